"""Server-sent events: what is sent, how a reader comes back, and what many readers cost."""

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engine.executor import Executor
from engine.queries.events import LOG_EVENTS_MAX, EventLog, Logged, Wanted
from tests.engine.homes import key_pair
from tests.engine.queries.conftest import Node

WAIT_S = 20
Event = tuple[str, str, dict[str, Any]]


class Reader:
    """A stream of events, read from a socket."""

    def __init__(self, node: Node, query: str = "", last_id: str = "") -> None:
        """Ask for events; the answer's head and first comment are read."""
        host, port = node.server.address.split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=20)
        extra = f"last-event-id: {last_id}\r\n" if last_id else ""
        request = f"GET /v1/events{query} HTTP/1.1\r\nhost: x\r\n{extra}\r\n"
        self._socket.sendall(request.encode())
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self._lines: list[bytes] = []
        while self._line().startswith(b":") is False:
            continue

    def _line(self) -> bytes:
        """Return a line of the body; the lines of its chunks are left out."""
        line = self._file.readline()
        assert line != b": still here\n", "what is waited for does not come"
        return line

    def next(self) -> Event:
        """Return the next event."""
        fields: dict[str, str] = {}
        while "data" not in fields:
            name, separator, value = self._line().decode().rstrip("\n").partition(": ")
            if separator:
                fields[name] = value
        return fields["id"], fields["event"], json.loads(fields["data"])

    def close(self) -> None:
        """Go."""
        self._file.close()
        self._socket.close()


def test_heads_and_finality_in_order(node: Node) -> None:
    """Each block is told when it is followed and when it is final, with rising ids."""
    reader = Reader(node)
    blocks = [node.add(finalized=1) for _ in range(4)]
    events = [reader.next() for _ in range(7)]
    reader.close()
    heads = [values for _, kind, values in events if kind == "head"]
    final = [values for _, kind, values in events if kind == "finalized"]
    assert [item["hash"] for item in heads] == [block.hash.hex() for block in blocks]
    assert [item["transaction_count"] for item in heads] == [3] * 4
    assert [(item["height"], item["hash"]) for item in final] == [
        (block.height, block.hash.hex()) for block in blocks[:3]
    ]
    numbers = [int(name.split("-")[1]) for name, _, _ in events]
    assert numbers == list(range(1, 8))


def test_chosen_accounts_are_told_at_first_and_when_they_change(node: Node) -> None:
    """An account's balance at the finalized block, once at the start and once per change."""
    key = key_pair(5)[0]
    reader = Reader(node, f"?accounts=0x{key.hex()}&kinds=account")
    first = reader.next()
    assert (first[1], first[2]["balance"], first[2]["block"]["height"]) == (
        "account", "1000000000", 0,
    )  # fmt: skip
    maker = node.home.maker
    node.add(transactions=[maker.transaction(0, 0, key_pair(1)[0])])
    node.add(transactions=[maker.transaction(1, 0, key, amount=123)])
    told = reader.next()
    reader.close()
    assert (told[1], told[2]["balance"]) == ("account", "1000000123")
    assert told[2]["block"]["height"] == 2


def test_an_account_is_told_although_the_writer_is_at_work_again(node: Node) -> None:
    """What cannot be read when its block becomes final is told later, without another block."""
    key = key_pair(5)[0]
    maker, events = node.home.maker, node.server.events
    reader = Reader(node, f"?accounts=0x{key.hex()}&kinds=account")
    reader.next()
    loop_may_go, has_moved, may_end = threading.Event(), threading.Event(), threading.Event()

    def work(executor: Executor) -> None:
        """Stand on another block, until the loop has looked."""
        here = executor.chain.position.block_hash
        executor.chain.switch(executor.chain.finalized.block_hash)
        has_moved.set()
        assert may_end.wait(WAIT_S)
        executor.chain.switch(here)

    events.loop.call_soon_threadsafe(loop_may_go.wait)
    node.add(transactions=[maker.transaction(1, 0, key, amount=123)], finalized=1)
    node.add(finalized=1)
    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(node.home.service.ask, "a test", work)
        assert has_moved.wait(WAIT_S)
        loop_may_go.set()
        has_looked = threading.Event()
        events.loop.call_soon_threadsafe(has_looked.set)
        assert has_looked.wait(WAIT_S)
        may_end.set()
        working.result(WAIT_S)
    told = reader.next()
    reader.close()
    assert (told[1], told[2]["balance"]) == ("account", "1000000123")


def test_a_reader_that_comes_back_misses_nothing(node: Node) -> None:
    """From the last id on every event comes once; an id of another start gets a gap."""
    reader = Reader(node)
    node.add()
    seen = [reader.next(), reader.next()]
    reader.close()
    node.add()
    node.add()
    again = Reader(node, last_id=seen[-1][0])
    later = [again.next() for _ in range(4)]
    again.close()
    assert [int(name.split("-")[1]) for name, _, _ in later] == [3, 4, 5, 6]
    stranger = Reader(node, last_id="0011223344556677-3")
    gap = stranger.next()
    stranger.close()
    assert (gap[1], gap[2]["missed_count"]) == ("gap", None)


def test_an_account_told_at_first_stands_before_what_was_missed(node: Node) -> None:
    """A reader that comes back, and goes after its account was told, still misses nothing."""
    key = key_pair(5)[0]
    reader = Reader(node)
    node.add()
    seen = [reader.next(), reader.next()]
    reader.close()
    node.add()
    node.add()
    again = Reader(node, f"?accounts=0x{key.hex()}", last_id=seen[-1][0])
    first = again.next()
    again.close()
    assert first[:2] == (seen[-1][0], "account")
    again = Reader(node, last_id=first[0])
    later = [again.next() for _ in range(4)]
    again.close()
    assert [int(name.split("-")[1]) for name, _, _ in later] == [3, 4, 5, 6]


def test_who_is_overtaken_is_told_how_much_was_missed() -> None:
    """A position that the log has left behind gives a gap with the count, then the rest."""
    log = EventLog.__new__(EventLog)
    _fill(log, LOG_EVENTS_MAX + 10)
    data, position = log._since(4, Wanted(frozenset({"head"}), frozenset()))
    assert position == LOG_EVENTS_MAX + 11
    text = data.decode()
    assert text.startswith("id: boot-10\nevent: gap\ndata: ")
    assert '"missed_count":7' in text
    assert text.count("one\n\n") == LOG_EVENTS_MAX
    assert log._since(position, Wanted(frozenset({"head"}), frozenset())) == (b"", position)


def _fill(log: EventLog, count: int) -> None:
    """Put a log together that has no service, and write events into it."""
    from collections import deque

    import msgspec

    log._boot = "boot"
    log._encode = msgspec.json.Encoder().encode
    log._log = deque(maxlen=LOG_EVENTS_MAX)
    log._next = 1
    for _ in range(count):
        log._log.append(Logged(log._next, "head", b"", b"one\n\n"))
        log._next += 1


async def _listen(node: Node, blocks: int) -> tuple[int, int]:
    """Read with 900 readers while 100 others never read; return (events, readers that saw all)."""
    host, port = node.server.address.split(":")
    request = b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n"
    opened = []
    for _ in range(1_000):
        reader, writer = await asyncio.open_connection(host, int(port), limit=2**16)
        writer.write(request)
        opened.append((reader, writer))
    silent, listening = opened[:100], opened[100:]
    for _, writer in silent:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of a socket
    for reader, _ in listening:
        await reader.readuntil(b": events of this node")

    async def read(reader: asyncio.StreamReader) -> list[int]:
        numbers: list[int] = []
        while len(numbers) < 2 * blocks:
            line = await reader.readline()
            if line.startswith(b"id: "):
                numbers.append(int(line.rsplit(b"-", 1)[1]))
        return numbers

    loop = asyncio.get_running_loop()
    tasks = [asyncio.create_task(read(reader)) for reader, _ in listening]
    for _ in range(blocks):
        await loop.run_in_executor(None, node.add, 1)
    seen = await asyncio.gather(*tasks)
    for _, writer in opened:
        writer.transport.abort()
    expected = list(range(1, 2 * blocks + 1))
    return 2 * blocks, sum(numbers == expected for numbers in seen)


@pytest.mark.slow
def test_a_thousand_readers_of_which_a_hundred_never_read(node: Node) -> None:
    """The 900 that read see every event, in order; the others cost them nothing."""
    _, complete = asyncio.run(_listen(node, 20))
    assert complete == 900
