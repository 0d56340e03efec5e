"""A few pages on loopback for whoever watches a node: /healthz, /readyz, /metrics and others.

/healthz answers 200 while the process lives, /readyz 200 while it serves and 503 with the reason
otherwise. A page stands at a path, or below a prefix with one parameter. Only GET and HEAD, only
loopback, no request body. A client that falls silent loses its connection, and so does one that
takes too long; however many come, threads and waiting connections are few. The Engine API is
elsewhere (`engine_api/server.py`).
"""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from engine_api.transport import is_loopback, split_host_port
from runtime.errors import ExplainedError, advice_on_listening

NS_PER_S = 1_000_000_000
THREADS = 4
"""requests that are answered at once"""
WAITING_MAX = 16
"""connections that wait for a thread; more are closed at once"""
TIMEOUT_S = 2
"""of silence, after which a client loses its connection"""
REQUEST_MAX_S = 10
"""for a request: who sends a byte a second would hold a thread for hours"""
ANSWER_BYTES_PER_S = 2**20
"""that a client takes at least of an answer, on the average"""
WRITE_BYTES = 2**16
"""of an answer that have TIMEOUT_S, so that a slow line gets a long page, too"""
TEXT = "text/plain; charset=utf-8"


class HttpError(ExplainedError):
    """An address at which the pages cannot be served. Codes begin with `http.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer."""

    status: int
    content_type: str
    body: bytes


Pages = dict[str, Callable[[], Page]]
"""by path"""
Prefixes = dict[str, Callable[[str], Page]]
"""by the path's beginning, which ends in `/`; called with the rest of the path"""


def text_page(status: int, sentence: str) -> Page:
    """Return a page of one line."""
    return Page(status=status, content_type=TEXT, body=f"{sentence}\n".encode())


class PageServer(HTTPServer):
    """Serves a few pages at one loopback address, from `start` to `stop`."""

    request_queue_size = WAITING_MAX
    allow_reuse_address = True

    def __init__(
        self,
        address: str,
        pages: Pages,
        prefixes: Prefixes | None = None,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Listen at HOST:PORT (port 0: a free one); raises HttpError."""
        host, port = _split(address)
        self._pages = pages
        self._prefixes = prefixes or {}
        assert all(prefix.endswith("/") for prefix in self._prefixes), self._prefixes
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._clock_ns = clock_ns
        self._running: dict[socket.socket, int] = {}
        """connection that a thread works for -> until when"""
        self._running_lock = threading.Lock()
        self._places = threading.BoundedSemaphore(THREADS + WAITING_MAX)
        self._workers = ThreadPoolExecutor(THREADS, thread_name_prefix="http")
        self._thread = threading.Thread(target=self.serve_forever, name="http", daemon=True)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            self._workers.shutdown()
            raise HttpError(
                "http.address_in_use",
                what=f"the pages cannot be served at {address}",
                where="http_address",
                why=error.strerror or str(error),
                what_to_do=advice_on_listening(error),
            ) from error
        self.address = f"{host}:{self.server_port}" if ":" not in host else address

    @property
    def running_count(self) -> int:
        """Requests that threads work for now."""
        with self._running_lock:
            return len(self._running)

    def server_bind(self) -> None:
        """Bind without looking the host's name up, which may wait for a network."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_port = self.server_address[1]

    def start(self) -> str:
        """Serve in a thread of its own, and return the address."""
        self._thread.start()
        return self.address

    def stop(self) -> None:
        """Take no new request and wait for those that run, at most TIMEOUT_S each."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()
        self._workers.shutdown(cancel_futures=True)

    def page(self, path: str) -> Page:
        """Return what stands at a path; a page that cannot be made says why."""
        make = self._pages.get(path)
        folder, _, rest = path.rpartition("/")
        below = self._prefixes.get(f"{folder}/")
        if make is None and below is None:
            paths = [*self._pages, *(f"{prefix}..." for prefix in self._prefixes)]
            return text_page(404, f"the pages are {', '.join(paths)}")
        try:
            if make is not None:
                return make()
            assert below is not None
            return below(rest)
        except Exception as error:
            return text_page(500, f"this page cannot be made: {type(error).__name__}: {error}")

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection to a thread, or close it where all of them have enough to do."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        job = self._workers.submit(self._work, request, client_address)
        # What else is raised there is a bug, which the pool then writes to stderr.
        job.add_done_callback(lambda done: None if done.cancelled() else done.result())

    def service_actions(self) -> None:
        """Hang up on those who take too long; called twice a second."""
        now_ns = self._clock_ns()
        with self._running_lock:
            for request, until_ns in self._running.items():
                if until_ns <= now_ns:
                    with suppress(OSError):  # it has gone by itself
                        request.shutdown(socket.SHUT_RDWR)

    def allow(self, request: socket.socket, answer_bytes: int = 0) -> None:
        """Give a connection the time of a request, and that of an answer of so many bytes."""
        allowed_s = REQUEST_MAX_S + answer_bytes // ANSWER_BYTES_PER_S
        with self._running_lock:
            self._running[request] = self._clock_ns() + allowed_s * NS_PER_S

    def _work(self, request: Any, client_address: Any) -> None:
        self.allow(request)
        try:
            self.finish_request(request, client_address)
        except OSError:
            # The client has gone or was too slow: its loss, and nothing that a node should log.
            return
        finally:
            with self._running_lock:
                del self._running[request]
            self.shutdown_request(request)
            self._places.release()


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version = "tos"
    sys_version = ""
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        page = self.server.page(self.path)
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if has_body:
            self.server.allow(self.connection, len(page.body))
            for start in range(0, len(page.body), WRITE_BYTES):
                self.wfile.write(page.body[start : start + WRITE_BYTES])

    def log_message(self, *_: object) -> None:
        """Write nothing: a probe per second would fill the log."""


def _split(address: str) -> tuple[str, int]:
    """Return host and port of a loopback address; raises HttpError."""
    place = split_host_port(address)
    if place is None or not is_loopback(place[0]):
        raise HttpError(
            "http.address",
            what=f"the pages cannot be served at {address!r}",
            where="http_address",
            why="it is not a loopback host and a port; the pages have no password",
            what_to_do="write for example 127.0.0.1:8552, and put a proxy before it for others",
        )
    return place
