"""HTTP on one connection of the queries, with bounds on what a request's head may take.

The parser keeps a head until it is whole, however long and however slowly it comes; nothing above
it knows of it before. So the bytes that arrive before the end of a head are counted here, and the
time. Read `app` for the bounds on bodies.
"""

import asyncio
from http import HTTPStatus
from typing import Final

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.queries.answers import Error

HEAD_BYTES_MAX: Final = 2**14
"""A head that is not whole when so many bytes of it have come ends the connection."""
HEAD_TIMEOUT_S: Final = 20
"""From the first byte of a head, or from the connection, to its end."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection; what has no place on it is answered with an error of the API, and ends it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._is_ending = False
        self._is_in_head = True
        self._is_idle = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Parse; what leaves a head unfinished is counted, and has so much time."""
        if self._is_ending:
            return
        self._is_idle = False
        super().data_received(data)
        # Most heads come whole: they are not counted and start no clock, which would take 4 % more
        # of the rate of small requests. What begins behind another has the time between requests.
        if self._is_in_head and not self._is_idle and not self._is_ending:
            self._start_clock()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "query.head_bytes",
                    f"the head of the request has more than {HEAD_BYTES_MAX} bytes",
                    "send shorter headers and a shorter path",
                )

    def on_headers_complete(self) -> None:
        """End a head."""
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_clock()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Be ready for another head."""
        super().on_message_complete()
        self._is_in_head = self._is_idle = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, or no HTTP that is served here."""
        self._refuse(
            HTTPStatus.BAD_REQUEST, "query.http", "this is no request of HTTP/1.1",
            "send one, for example GET /v1/status",
        )  # fmt: skip

    def _start_clock(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_slow_head)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_slow_head(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_TIMEOUT,
            "query.head_timeout",
            f"the head of the request did not arrive within {HEAD_TIMEOUT_S} s",
            "send it at once",
        )

    def _refuse(self, status: HTTPStatus, code: str, what: str, what_to_do: str) -> None:
        """Answer with an error and end the connection; behind an answer under way only end it."""
        self._stop_clock()
        self._is_ending = True
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode(Error(code=code, what=what, what_to_do=what_to_do))
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%s"
                % (status.value, status.phrase.encode(), len(body), body)
            )
        self.transport.close()
