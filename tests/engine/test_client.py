"""The client and what answers it: connections that end, and answers that are none of a node."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import pytest

from engine.client import VALID_HEIGHTS, Client, NodeError
from engine.queries import answers
from runtime.keypair import KeyPair

BLOCK = answers.BlockName(height=7, hash="ab" * 32)
STATUS = answers.Status(
    chain_id=1, genesis_hash="cd" * 32, address_prefix="tos", symbol="TOS", decimals=9,
    account_minimum="1", fee_minimum="3", head=BLOCK, safe=BLOCK, finalized=BLOCK,
    pending_count=0, degraded="", software="test",
)  # fmt: skip
ACCOUNT = answers.Account(
    address="tos1", exists=True, slot=0, balance="9", spendable="8", nonce="4", next_nonce="6",
    at="head", block=BLOCK,
)  # fmt: skip


@contextmanager
def answering(replies: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Answer each question by the next reply, on a connection that ends with it.

    Yields the address, and the questions that came.
    """
    questions: list[bytes] = []

    def serve() -> None:
        for reply in replies:
            connection, _ = server.accept()
            with connection:
                questions.append(connection.recv(2**16))
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", questions
        thread.join(10)


def reply(body: bytes, kind: str = "application/json") -> bytes:
    """Return a good answer that promises to keep the connection open."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_connection_that_the_node_closed_is_made_again() -> None:
    """Between two questions a node may close it: the second one is asked all the same, once."""
    good = reply(msgspec.json.encode({"code": "x", "what": "y", "what_to_do": "z"}))
    with answering([good, good]) as (url, questions), Client(url) as client:
        assert client._ask("GET", "/a") == client._ask("GET", "/b")
        assert [question.split()[1] for question in questions] == [b"/a", b"/b"]
    with answering([good, b""]) as (url, questions), Client(url) as client:
        client._ask("GET", "/a")
        with pytest.raises(NodeError) as caught:
            client._ask("GET", "/b")
        assert caught.value.code == "client.unreachable"


@pytest.mark.parametrize(
    "text",
    [b"event: head\ndata: {}\n\n", b"id: 1\nevent: head\ndata: {\n\n", b"id: \xff\n\n"],
    ids=["no id", "no JSON", "no text"],
)
def test_events_of_something_else_are_explained(text: bytes) -> None:
    """An event without a name, or bytes that are none, end in a sentence and a code."""
    good = b'id: 1\nevent: head\ndata: {"height":1}\n\n'
    with answering([reply(good + text, "text/event-stream")]) as (url, _), Client(url) as client:
        events = client.events()
        assert next(events) == ("1", "head", {"height": 1})
        with pytest.raises(NodeError) as caught:
            next(events)
        assert caught.value.code == "client.answer"


@pytest.mark.parametrize(("asked", "signed"), [(None, 7 + VALID_HEIGHTS), (0, 0), (9, 9)])
def test_what_a_transfer_says_is_what_was_asked(asked: int | None, signed: int) -> None:
    """Only what is not given is found out: a height of 0 is one, too."""
    replies = [reply(msgspec.json.encode(item)) for item in (STATUS, ACCOUNT)]
    with answering(replies) as (url, _), Client(url) as client:
        record = client.transfer(KeyPair.of(bytes(32)), bytes(32), 5, valid_until=asked)
    numbers = [int.from_bytes(record[i : i + 8], "little") for i in (8, 16, 24, 32)]
    assert numbers == [6, signed, 5, 3]
