"""Requests that are too long, too slow, or none: answered, ended, and nothing is kept."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from engine.queries import protocol
from engine.queries.protocol import HEAD_BYTES_MAX, body_bytes_max
from engine.queries.submission import BATCH_BYTES_MAX, BATCH_PATH, ONE_BYTES_MAX, RECORDS
from tests.engine.queries.conftest import Node

WAIT_S = 30
PIECE = b"a" * 1_024
IN_CHUNKS = b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
IN_CHUNKS += b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
POST_BATCH = f"POST {BATCH_PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: {RECORDS}\r\n".encode()
TOO_LONG = POST_BATCH + b"content-length: %d\r\n\r\n" % (BATCH_BYTES_MAX + 1)


@contextmanager
def connected(node: Node) -> Iterator[socket.socket]:
    """Open a connection to the node."""
    host, _, port = node.server.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=WAIT_S) as client:
        yield client


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the node ends the connection."""
    parts = []
    with suppress(ConnectionResetError):  # it ended while something was still on its way to it
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def error_of(answer: bytes, status: int) -> str:
    """Return the code of an answer, one, with this status."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"connection: close" in head.lower()
    found: dict[str, str] = json.loads(body)
    assert set(found) == {"code", "what", "what_to_do"}
    return found["code"]


@pytest.mark.parametrize("begin", [b"GET /v1/status HTTP/1.1\r\nx: ", b"GET /v1/status?x="])
def test_a_head_without_end(node: Node, begin: bytes) -> None:
    """A header or a path that goes on and on is refused soon after the bound."""
    sent = 0
    with connected(node) as client:
        client.sendall(begin)
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 100 * HEAD_BYTES_MAX:
                sent += client.send(PIECE)
                time.sleep(0.001)  # so that the node's answer is there before the next piece
        answer = read_all(client)
    assert sent < 100 * HEAD_BYTES_MAX
    if answer:  # a reset may have overtaken it
        assert error_of(answer, 431) == "query.head_bytes"


def test_a_head_that_is_just_too_long(node: Node) -> None:
    """At the bound a head is still answered, beyond it the error says what to do."""
    begin, end = b"GET /v1/status HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ", b"\r\n\r\n"
    for excess in (0, 1):
        with connected(node) as client:
            room = HEAD_BYTES_MAX - len(begin) + excess
            client.sendall(begin + b"a" * room)
            if excess:
                assert error_of(read_all(client), 431) == "query.head_bytes"
            else:
                client.sendall(end)
                assert read_all(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"GET /v1/sta", b"\r\n"])
def test_a_slow_head(node: Node, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Who sends no head, or half of one, or only empty lines, keeps no connection."""
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    with connected(node) as client:
        client.sendall(sent)
        assert error_of(read_all(client), 408) == "query.head_timeout"
    with connected(node) as client:
        client.sendall(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
        first = client.recv(65_536)
        assert first.startswith(b"HTTP/1.1 200 ")
        client.sendall(sent or b"\r\n")
        assert error_of(read_all(client), 408) == "query.head_timeout"


def test_many_requests_of_one_connection(node: Node) -> None:
    """Heads are counted one by one, also those that come together; idle time is no slow head."""
    request = b"GET /v1/status HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 4_000 + b"\r\n\r\n"
    last = request.replace(b"host: x", b"host: x\r\nconnection: close")
    with connected(node) as client:
        client.sendall(request * 20 + last)
        answers = read_all(client)
    assert answers.count(b"HTTP/1.1 200 ") == 21


def test_what_is_no_http(node: Node) -> None:
    """Other protocols are told so in the words of the API."""
    with connected(node) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        assert error_of(read_all(client), 400) == "query.http"


def test_a_body_that_is_announced_as_too_long(node: Node) -> None:
    """It is refused by its head alone, with no leave to send it, and by every path."""
    for path in (BATCH_PATH, "/v1/transactions", "/v1/status", "/v1/events", "/x"):
        for method in ("GET", "POST", "PUT"):
            for length in (body_bytes_max(path) + 1, 2**62):
                head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
                with connected(node) as client:
                    client.sendall(f"{head}content-length: {length}\r\n\r\n".encode())
                    assert error_of(read_all(client), 413) == "query.body_size"


def test_an_announced_body_within_the_bound(node: Node) -> None:
    """The longest body of each path is taken; one byte more has no place where few bytes have."""
    head = POST_BATCH + b"connection: close\r\ncontent-length: %d\r\n\r\n"
    with connected(node) as client:
        client.sendall(head % BATCH_BYTES_MAX + bytes(BATCH_BYTES_MAX))
        assert error_of(read_all(client), 409) == "batch.length"
    assert body_bytes_max("/v1/transactions") == ONE_BYTES_MAX < body_bytes_max(BATCH_PATH)


def test_a_body_in_chunks_that_is_too_long(node: Node) -> None:
    """Nobody knows its length before: the byte that passes the bound ends the connection."""
    half = b"%x\r\n%s\r\n" % (ONE_BYTES_MAX // 2, bytes(ONE_BYTES_MAX // 2))
    ends = [(b"0\r\n\r\n", 400, "transaction.form"), (b"1\r\n ", 413, "query.body_size")]
    for end, status, code in ends:
        with connected(node) as client:
            client.sendall(IN_CHUNKS)
            client.sendall(half * 2)
            client.sendall(end)
            assert error_of(read_all(client), status) == code


def test_a_body_that_nobody_reads(node: Node) -> None:
    """Who was answered and sends on and on loses the connection, without a second answer."""
    begin = b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    with connected(node) as client:
        client.sendall(begin)
        assert client.recv(65_536).startswith(b"HTTP/1.1 415 ")
        client.sendall(b"%x\r\n" % (ONE_BYTES_MAX + 1) + bytes(ONE_BYTES_MAX + 1))
        assert read_all(client) == b""


def test_a_body_that_is_too_long_behind_another_request(node: Node) -> None:
    """It ends the connection; what was answered before it is answered once."""
    with connected(node) as client:
        client.sendall(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        client.sendall(TOO_LONG + b"abc" + TOO_LONG)
        assert error_of(read_all(client), 413) == "query.body_size"
    with connected(node) as client:
        client.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        client.sendall(TOO_LONG + b"\0 no HTTP")
        assert b"HTTP/1.1" not in read_all(client)


def test_headers_behind_a_body(node: Node) -> None:
    """What stands behind the last chunk is bounded as a head is, and so is a chunk without end."""
    for begin in (b"0\r\nx: ", b"1;"):
        sent = 0
        with connected(node) as client:
            client.sendall(IN_CHUNKS + begin)
            with suppress(BrokenPipeError, ConnectionResetError):
                while sent < 100 * HEAD_BYTES_MAX:
                    sent += client.send(PIECE)
                    time.sleep(0.001)
            answer = read_all(client)
        assert sent < 100 * HEAD_BYTES_MAX
        if answer:
            assert error_of(answer, 431) == "query.chunk_bytes"


@pytest.mark.parametrize("begin", [IN_CHUNKS, POST_BATCH + b"content-length: 9\r\n\r\n0"])
def test_a_slow_body(node: Node, monkeypatch: pytest.MonkeyPatch, begin: bytes) -> None:
    """Who sends half of a body keeps no connection, and nobody waits for the rest."""
    monkeypatch.setattr(protocol, "BODY_TIMEOUT_S", 0.2)
    with connected(node) as client:
        client.sendall(begin)
        assert error_of(read_all(client), 408) == "query.body_timeout"
    with connected(node) as client:
        client.sendall(b"GET /v1/status HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n1")
        assert read_all(client).count(b"HTTP/1.1 ") == 1
