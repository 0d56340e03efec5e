"""HTTP on one connection of the queries, with bounds on what a request may take.

The parser keeps a head until it is whole, however long and however slowly it comes; nothing above
it knows of it before. So the bytes that arrive before the end of a head are counted here, and the
time; the same for what stands around and behind a body in chunks. A body is refused by the length
that its head announces, and by what comes: also where nobody reads it. Read `app` for the paths.
"""

import asyncio
from http import HTTPStatus
from typing import Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.queries.answers import Error
from engine.queries.submission import BATCH_BYTES_MAX, BATCH_PATH, ONE_BYTES_MAX

HEAD_BYTES_MAX: Final = 2**14
"""A head that is not whole when so many bytes of it have come ends the connection."""
HEAD_TIMEOUT_S: Final = 20
"""From the first byte of a head, or from the connection, to its end."""
BODY_TIMEOUT_S: Final = 30
"""From the end of a head to that of its body."""


def body_bytes_max(path: str) -> int:
    """Return how long a request's body may be, whatever its method; most bodies are not read."""
    return BATCH_BYTES_MAX if path == BATCH_PATH else ONE_BYTES_MAX


class BoundedProtocol(HttpToolsProtocol):
    """One connection; what has no place on it is answered with an error of the API, and ends it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._is_ending = False
        self._is_in_head = True
        self._is_idle = False
        self._has_moved = False
        self._stray_bytes = 0
        self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Parse; what leaves a request unfinished is counted, and has so much time."""
        if self._is_ending:
            return
        self._is_idle = self._has_moved = False
        super().data_received(data)
        # Most requests come whole: they are not counted and start no clock, which would take 4 %
        # more of the rate of small ones. What begins behind another has the time between requests.
        if self._is_idle or self._is_ending:
            return
        self._start_clock()
        if self._is_in_head or not self._has_moved:
            self._stray_bytes += len(data)
            if self._stray_bytes > HEAD_BYTES_MAX:
                self._refuse_stray()

    def on_headers_complete(self) -> None:
        """End a head; a body that it announces as too long ends the connection."""
        if self._is_ending:  # what stood behind a refused body in the same bytes
            return
        self._is_in_head = False
        self._has_moved = True
        self._stray_bytes = self._body_bytes = 0
        self._stop_clock()
        super().on_headers_complete()
        for name, value in self.headers:
            if name == b"content-length":  # digits, and once: the parser has looked
                self._check_body(int(value))

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, unless there is too much of it."""
        self._has_moved = True
        self._stray_bytes = 0
        self._body_bytes += len(body)
        self._check_body(self._body_bytes)
        if not self._is_ending:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Be ready for another head."""
        if not self._is_ending:
            super().on_message_complete()
            self._stray_bytes = 0
            self._stop_clock()
            self._is_in_head = self._is_idle = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or no HTTP that is served here."""
        self._refuse_head(
            HTTPStatus.BAD_REQUEST, "query.http", "this is no request of HTTP/1.1",
            "send one, for example GET /v1/status",
        )  # fmt: skip

    def _check_body(self, count: int) -> None:
        """Refuse the request if its body has so many bytes and may not."""
        if count <= ONE_BYTES_MAX or self._is_ending:
            return
        bytes_max = body_bytes_max(self.scope["path"])
        if count > bytes_max:
            self._refuse_body(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "query.body_size",
                f"the body is longer than {bytes_max} bytes",
                "send smaller batches" if bytes_max == BATCH_BYTES_MAX else "send less",
            )

    def _start_clock(self) -> None:
        if self._timer is None:
            wait_s = HEAD_TIMEOUT_S if self._is_in_head else BODY_TIMEOUT_S
            self._timer = self.loop.call_later(wait_s, self._on_slow)

    def _stop_clock(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_slow(self) -> None:
        status = HTTPStatus.REQUEST_TIMEOUT
        if self._is_in_head:
            what = f"the head of the request did not arrive within {HEAD_TIMEOUT_S} s"
            self._refuse_head(status, "query.head_timeout", what, "send it at once")
        else:
            what = f"the body did not arrive within {BODY_TIMEOUT_S} s"
            what_to_do = "send it again, faster or in smaller parts"
            self._refuse_body(status, "query.body_timeout", what, what_to_do)

    def _refuse_stray(self) -> None:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if self._is_in_head:
            what = f"the head of the request has more than {HEAD_BYTES_MAX} bytes"
            what_to_do = "send shorter headers and a shorter path"
            self._refuse_head(status, "query.head_bytes", what, what_to_do)
        else:
            what = f"around the chunks of the body are more than {HEAD_BYTES_MAX} bytes"
            self._refuse_body(status, "query.chunk_bytes", what, "send no headers behind the body")

    def _refuse_head(self, status: HTTPStatus, code: str, what: str, what_to_do: str) -> None:
        """Refuse what has not become a request; the one before it may still be under way."""
        is_taken = self.cycle is not None and not self.cycle.response_complete
        self._refuse(Error(code=code, what=what, what_to_do=what_to_do), status, is_taken=is_taken)

    def _refuse_body(self, status: HTTPStatus, code: str, what: str, what_to_do: str) -> None:
        """Refuse a request because of its body; who answers it finds that the client has gone."""
        is_taken = self.cycle.response_started or bool(self.pipeline)
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        self._refuse(Error(code=code, what=what, what_to_do=what_to_do), status, is_taken=is_taken)

    def _refuse(self, error: Error, status: HTTPStatus, *, is_taken: bool) -> None:
        """Answer and end the connection; where another answer has its place, only end it."""
        if self._is_ending:
            return
        self._stop_clock()
        self._is_ending = True
        if not is_taken:
            body = msgspec.json.encode(error)
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%s"
                % (status.value, status.phrase.encode(), len(body), body)
            )
        self.transport.close()
