"""The HTTP server of the queries: one thread with an event loop, from `start` to `stop`."""

import asyncio
import socket
import threading

import uvicorn

from engine.queries.app import Api, Metrics
from engine.queries.events import EventLog
from engine.queries.protocol import BoundedProtocol
from engine.queries.reader import Queries
from engine.service import Service
from engine.store.store import Store
from engine.writer import seconds
from engine_api.transport import split_host_port
from runtime.errors import ExplainedError, advice_on_listening

CONNECTIONS_MAX = 4_096
"""Connections and running requests; more are answered with 503."""
BACKLOG_MAX = 1_024
KEEP_ALIVE_S = 75
STOP_MAX_S = 2
START_MAX_S = 30
TICK_MS = 20


class QueryServerError(ExplainedError):
    """An address at which queries cannot be served. Codes begin with `query.`"""


class QueryServer:
    """Serves the queries of a service at one address."""

    def __init__(
        self, address: str, service: Service, store: Store, *, software: str, metrics: Metrics
    ) -> None:
        """Listen at HOST:PORT (port 0: a free one). Raises QueryServerError."""
        self._socket = _listen(address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        queries = Queries(service, store, software=software)
        self.events = EventLog(queries, store)
        self._api = Api(queries, self.events, metrics)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._api,
                access_log=False,
                log_config=None,
                # A stranger's bad request is answered with 400; a line of the log for each of them
                # would be a way to fill the disk. What fails inside the node is still written.
                log_level="error",
                lifespan="off",
                server_header=False,
                proxy_headers=False,
                ws="none",
                backlog=BACKLOG_MAX,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=STOP_MAX_S,
                http=BoundedProtocol,
            )
        )
        self._thread = threading.Thread(target=self._run, name="queries", daemon=True)

    @property
    def url(self) -> str:
        """Where a client connects."""
        return f"http://{self.address}"

    def start(self) -> str:
        """Serve in a thread of its own, and return the address."""
        self._thread.start()
        pause = threading.Event()
        for _ in range(START_MAX_S * 1_000 // TICK_MS):
            if self._server.started or not self._thread.is_alive():
                break
            pause.wait(seconds(TICK_MS))
        assert self._server.started, "the server starts on a socket that listens already"
        return self.address

    def stop(self) -> None:
        """Take no new request, let those that run end for a short while, cut off the others."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._api.close()
        self._socket.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.events.open(asyncio.get_running_loop())
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self.events.close()


def _listen(address: str) -> socket.socket:
    """Return a bound socket; raises QueryServerError."""
    place = split_host_port(address)
    if place is None:
        raise QueryServerError(
            "query.address",
            what=f"queries cannot be served at {address!r}",
            where="query_address",
            why="it is not a host and a port",
            what_to_do="write for example 127.0.0.1:8553",
        )
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(BACKLOG_MAX)
    except OSError as error:
        listener.close()
        raise QueryServerError(
            "query.address_in_use",
            what=f"queries cannot be served at {address}",
            where="query_address",
            why=error.strerror or str(error),
            what_to_do=advice_on_listening(error),
        ) from error
    return listener
