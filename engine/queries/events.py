"""Events for whoever listens: heads, finality, chosen accounts, over server-sent events.

There is one log of bounded length, written once per event and shared by all readers; a reader is a
position in it. Who reads too slowly is overtaken by the log's end and is told so by a `gap` event,
never left in silence; who does not read at all costs one socket buffer and is let go after
`SEND_TIMEOUT_S`. A reader that comes back names the last event it has seen (`Last-Event-ID`); where
the log does not reach back so far, or the node was started anew, it gets a `gap` first.
Everything here runs on the server's event loop, but for `tell`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from http import HTTPStatus
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Send

from engine.header import Header
from engine.queries import answers
from engine.queries.errors import QueryError
from engine.queries.reader import Queries
from engine.store.store import Store
from engine.views import Changing, Standing
from engine.writer import seconds

LOG_EVENTS_MAX = 4_096
"""Events that are kept for slow readers and for those that come back."""
READERS_MAX = 2_048
WATCHED_MAX = 32
"""Accounts of one reader."""
WATCHED_ALL_MAX = 16_384
"""Different accounts of all readers."""
PING_S = 15
"""of silence, after which a comment is sent so that proxies keep the connection"""
SEND_TIMEOUT_S = 60
"""within which a reader takes some bytes, or loses its connection"""
FINAL_MAX = 64
"""Finalized blocks of one change that have an event each; of more, the last ones."""
READ_ATTEMPTS = 1_000
LATE_PAUSE_MS = 5
"""Until accounts that the writer was at work on are looked at again."""

Kind = str
KINDS: tuple[Kind, ...] = ("head", "finalized", "account")


class Logged(NamedTuple):
    """An event as it is sent."""

    number: int
    kind: Kind
    key: bytes
    """of the account; empty for other kinds"""
    data: bytes


class Wanted(NamedTuple):
    """What a reader asked for."""

    kinds: frozenset[Kind]
    keys: frozenset[bytes]

    def has(self, event: Logged) -> bool:
        """Say whether an event is for this reader."""
        return event.kind in self.kinds and (event.kind != "account" or event.key in self.keys)


class EventLog:
    """The log and its readers."""

    def __init__(self, queries: Queries, store: Store) -> None:
        """Begin empty; `open` connects it to a loop."""
        self._queries = queries
        self._store = store
        self._boot = queries.service.boot_id.hex()[:16]
        self._log: deque[Logged] = deque(maxlen=LOG_EVENTS_MAX)
        self._next = 1
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[bytes, int] = {}
        """key -> readers that watch it"""
        self._known: dict[bytes, tuple[str, str]] = {}
        """key -> (balance, nonce) of its last event"""
        self._late: list[bytes] = []
        """keys that are to be looked at again"""
        self._encode = msgspec.json.Encoder().encode
        self.reader_count = 0

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write events on this loop from now on."""
        self._loop = loop
        self._queries.service.views.listeners.append(self.tell)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop on which events are written."""
        assert self._loop is not None, "it is opened before it is used"
        return self._loop

    def close(self) -> None:
        """Write nothing more."""
        self._loop = None
        with suppress(ValueError):  # it was never opened
            self._queries.service.views.listeners.remove(self.tell)

    def tell(self, before: Standing, after: Standing) -> None:
        """Hand a change over to the loop; on the writer's thread."""
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the loop has just been closed: nobody listens
                loop.call_soon_threadsafe(self._add_change, before, after)

    def stream(self, wanted: Wanted, last_id: str | None) -> AsyncIterator[bytes]:
        """Return the events for a reader, from the one after `last_id` on. Raises QueryError."""
        if self.reader_count >= READERS_MAX:
            raise _full(f"{READERS_MAX} readers listen already")
        new = sum(key not in self._watched for key in wanted.keys)
        if len(self._watched) + new > WATCHED_ALL_MAX:
            raise _full(f"{WATCHED_ALL_MAX} accounts are watched already")
        return self._follow(wanted, last_id)

    async def _follow(self, wanted: Wanted, last_id: str | None) -> AsyncIterator[bytes]:
        self.reader_count += 1
        for key in wanted.keys:
            self._watched[key] = self._watched.get(key, 0) + 1
        try:
            position, first = self._begin(last_id)
            yield b": events of this node\n\n" + first
            for key in sorted(wanted.keys):
                yield await self._present(key, position)
            while True:
                changed = self._changed
                data, position = self._since(position, wanted)
                if data:
                    yield data
                    continue
                try:
                    async with asyncio.timeout(PING_S):
                        await changed.wait()
                except TimeoutError:
                    yield b": still here\n\n"
        finally:
            self.reader_count -= 1
            for key in wanted.keys:
                self._watched[key] -= 1
                if not self._watched[key]:
                    del self._watched[key]
                    self._known.pop(key, None)

    def _begin(self, last_id: str | None) -> tuple[int, bytes]:
        """Return the number of the first event to send, and a gap if it cannot be known."""
        if last_id is None:
            return self._next, b""
        boot, _, number = last_id.partition("-")
        is_ours = boot == self._boot and number.isascii() and number.isdecimal()
        if not is_ours or len(number) > 18 or int(number) >= self._next:
            return self._next, self._gap(None, self._next)
        return int(number) + 1, b""

    def _since(self, position: int, wanted: Wanted) -> tuple[bytes, int]:
        """Return what a reader has not seen yet, and where it stands then."""
        parts = []
        oldest = self._next - len(self._log)
        if position < oldest:
            parts.append(self._gap(oldest - position, oldest))
            position = oldest
        fresh = self._next - position
        if fresh:
            events = list(islice(reversed(self._log), fresh))[::-1]  # few of many
            parts += [event.data for event in events if wanted.has(event)]
        return b"".join(parts), self._next

    def _gap(self, missed_count: int | None, following: int) -> bytes:
        sentence = "read the state again: status, and the accounts and transactions that matter"
        event = answers.GapEvent(missed_count=missed_count, what_to_do=sentence)
        return self._render("gap", event, following - 1)

    def _render(self, kind: Kind, event: answers.Answer, number: int) -> bytes:
        head = f"id: {self._boot}-{number}\nevent: {kind}\ndata: ".encode()
        return head + self._encode(event) + b"\n\n"

    def add(self, kind: Kind, event: answers.Answer, key: bytes = b"") -> None:
        """Write an event, on the loop; `wake` tells the readers."""
        data = self._render(kind, event, self._next)
        self._log.append(Logged(self._next, kind, key, data))
        self._next += 1

    def _add_change(self, before: Standing, after: Standing) -> None:
        """Write the events of a change, and wake the readers."""
        was, now = before.blocks["finalized"], after.blocks["finalized"]
        for height in range(max(was.height, now.height - FINAL_MAX) + 1, now.height + 1):
            stored = self._store.block_at(height)
            if stored is not None:
                self.add(
                    "finalized",
                    answers.FinalizedEvent(height=height, hash=stored.block_hash.hex()),
                )
        head = after.blocks["head"]
        if head.block_hash != before.blocks["head"].block_hash:
            stored = self._store.block(head.block_hash)
            if stored is not None:
                fields = Header.decode(stored.header)
                event = answers.HeadEvent(
                    height=fields.height,
                    hash=head.block_hash.hex(),
                    parent_hash=fields.parent_hash.hex(),
                    transaction_count=fields.transaction_count,
                )
                self.add("head", event)
        if was.block_hash != now.block_hash:
            self._add_accounts(sorted(self._watched))
        self.wake()

    def wake(self) -> None:
        """Tell the readers that there is something new."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _add_accounts(self, keys: list[bytes]) -> None:
        """Write an event for each account that is another one than in its last event.

        Those that cannot be read since the writer is at work again are looked at a little later:
        it may be long until the next block.
        """
        is_asked = bool(self._late)
        self._late = []
        for place, key in enumerate(keys):
            try:
                event = self._account(key)
            except Changing:
                self._late = keys[place:]
                break
            if self._known.get(key) != (event.balance, event.nonce):
                self._known[key] = (event.balance, event.nonce)
                self.add("account", event, key)
        if self._late and not is_asked:
            self.loop.call_later(seconds(LATE_PAUSE_MS), self._add_late)

    def _add_late(self) -> None:
        """Look again at accounts that could not be read."""
        keys, self._late = self._late, []
        if self._loop is not None and keys:
            self._add_accounts([key for key in keys if key in self._watched])
            self.wake()

    async def _present(self, key: bytes, position: int) -> bytes:
        """Return an account as it is, for a reader that has just come and stands at `position`.

        Its id is that of the event before: a reader that goes now has seen nothing later.
        """
        for _ in range(READ_ATTEMPTS):
            with suppress(Changing):
                event = self._account(key)
                self._known.setdefault(key, (event.balance, event.nonce))
                return self._render("account", event, position - 1)
            await asyncio.sleep(0)
        return b""

    def _account(self, key: bytes) -> answers.AccountEvent:
        found = self._queries.account(self._queries.address_of(key))
        return answers.AccountEvent(
            address=found.address, balance=found.balance, nonce=found.nonce, block=found.block
        )


class EventResponse(StreamingResponse):
    """A stream of events that lets go of a reader who takes nothing."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        """Send these events."""
        super().__init__(events, headers={"cache-control": "no-store"})

    async def stream_response(self, send: Send) -> None:
        """Send every event within its time."""

        async def send_in_time(message: Any) -> None:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await send(message)

        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            # It gets a gap when it comes back; the connection ends with the response.
            return
        finally:
            await self._end()

    async def _end(self) -> None:
        close = getattr(self.body_iterator, "aclose", None)
        if close is not None:
            await close()


def parse_wanted(queries: Queries, kinds: str | None, accounts: str | None) -> Wanted:
    """Return what a reader asked for, in lists separated by commas. Raises QueryError."""
    texts: Collection[str] = accounts.split(",") if accounts else ()
    if len(texts) > WATCHED_MAX:
        raise QueryError(
            HTTPStatus.BAD_REQUEST,
            "events.accounts",
            f"{len(texts)} accounts are more than {WATCHED_MAX}",
            "open several streams",
        )
    names = kinds.split(",") if kinds is not None else KINDS
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise QueryError(
            HTTPStatus.BAD_REQUEST,
            "events.kind",
            f"there is no kind of event {unknown[0][:40]!r}",
            f"name some of {', '.join(KINDS)}, separated by commas",
        )
    return Wanted(frozenset(names), frozenset(queries.key_of(text) for text in texts))


def _full(what: str) -> QueryError:
    return QueryError(
        HTTPStatus.SERVICE_UNAVAILABLE, "events.full", what, "try again later, or another node"
    )
