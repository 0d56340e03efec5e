"""A running executor: home, store, service, Engine API and pages, put together and taken apart.

Only assembly, logging and signals are here. The order of starting is the order of dependence, that
of stopping its reverse: callers are let go before the store closes. Whatever is not over STOP_MAX_S
after a signal is cut off, which costs nothing that was answered: VALID means durable.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from http import HTTPStatus
from pathlib import Path

from engine import events
from engine.backends import device_settings
from engine.compiling import compile_kernels, load_kernels
from engine.config import Config, Settings
from engine.doctor import engine_api_address, software_version
from engine.gossip.addresses import check_listen, open_key, parse_peers
from engine.gossip.outbox import Outbox
from engine.gossip.runner import GossipConfig, GossipRunner
from engine.metrics import NodeMetrics
from engine.opening import open_service
from engine.queries.server import QueryServer
from engine.service import Service
from engine.store.config import StoreConfig
from engine.store.store import Store
from engine_api.auth import create_secret, read_secret
from engine_api.server import EngineApiServer
from engine_api.transport import UNIX
from runtime.lifetime import Lifetime
from runtime.logs import Logger, LogStream
from runtime.metrics import CONTENT_TYPE
from runtime.pages import Page, Pages, PageServer, text_page

STOP_MAX_S = 5
"""from a signal to the end of the process"""
GRACE_MS = 1_000
"""for calls that run when the node stops"""
TICK_S = 1
"""between two looks at whether the service has failed"""
NS_PER_S = 1_000_000_000
NS_PER_US = 1_000
LOUD = (events.PathDisabled, events.Stopped)
"""Events that a person has to look at."""
RUN_FOLDER = "run"
SECRET_NAME = "engine.secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What serves when a node is ready."""

    service: Service
    store: Store
    engine_api: str
    queries: str
    """address, empty where none is served"""


Beside = Callable[[Ready], Callable[[], None]]
"""Is called when the node is ready and returns what ends it, which is called first at the end."""


class StopRequested(BaseException):
    """A signal came while the node was starting: leave at once."""


class Node:
    """One executor, from `run` to its end."""

    def __init__(
        self,
        home: Path,
        config: Config,
        log: Logger,
        stream: LogStream,
        beside: Beside | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        stream: where `log` writes; beside: what runs beside the service, see `Beside`.
        """
        self._stream = stream
        self._beside = beside
        self.home = home
        self.settings: Settings = config.settings
        self._log = log
        self._wake = threading.Event()
        self._is_starting = True
        self._is_stopping = False
        self._lifetime = Lifetime(
            log, stop_max_s=STOP_MAX_S, on_signal=self._on_signal, on_failure=self._wake.set
        )

    def run(self) -> bool:
        """Serve until a signal or a failure; returns whether all went well.

        Raises ExplainedError, SetupError and DeviceUnavailable where the node cannot start.
        """
        with self._lifetime.watched(), ExitStack() as stack:
            try:
                version = software_version()
                self._log.info("starting", home=str(self.home), version=version, pid=os.getpid())
                compile_kernels(self._log)
                service = self._start(stack)
                self._is_starting = False
            except StopRequested:
                self._log.info("stopped while starting", reason=self._lifetime.signal)
                return True
            why = ""
            while not self._wake.wait(TICK_S):
                if service.failed.is_set():
                    break
                why = self._tell_serving(why, service.health().not_serving)
            self._is_stopping = True
            failure = self._lifetime.failure or service.failure
            if failure:
                self._log.error("stopping", reason=failure)
            else:
                self._log.info("stopping", reason=self._lifetime.signal)
        self._log.info("stopped")
        return not (failure or self._lifetime.failure)

    def _start(self, stack: ExitStack) -> Service:
        """Open everything; what is open already is closed by the stack, the last first."""
        settings = self.settings
        store = stack.enter_context(Store.open(self.home, store_config(settings)))
        self._tell_notices(store)
        self._metrics = NodeMetrics(software_version(), store.genesis_hash)
        outbox = Outbox() if settings.gossip_listen else None
        service = self._open(store, outbox, stack)
        self._metrics.watch(lambda: gauges(service, store, self._stream))
        address = engine_api_address(self.home, settings)
        server = EngineApiServer(
            service,
            address,
            payload_bytes_max=service.payload_bytes_max,
            secret=self._secret(address),
            report=self._report_call,
        )
        address = server.start()
        stack.callback(server.stop, GRACE_MS)
        pages = ""
        if settings.http_address:
            page_server = PageServer(settings.http_address, self._pages(service))
            pages = page_server.start()
            stack.callback(page_server.stop)
        gossip = self._start_gossip(service, store, outbox, stack) if outbox else ""
        queries = ""
        if settings.query_address:
            query_server = QueryServer(
                settings.query_address,
                service,
                store,
                software=software_version(),
                metrics=lambda: (self._metrics.page(), CONTENT_TYPE),
            )
            queries = query_server.start()
            stack.callback(query_server.stop)
        if self._beside is not None:
            ready = Ready(service=service, store=store, engine_api=address, queries=queries)
            stack.callback(self._beside(ready))
        self._log.info(
            "ready",
            engine_api=address,
            http=pages,
            queries=queries,
            gossip=gossip,
            height=store.finalized.height,
            finalized=store.finalized.block_hash,
            genesis=store.genesis_hash,
        )
        return service

    def _open(self, store: Store, outbox: Outbox | None, stack: ExitStack) -> Service:
        """Return a service that nothing has to be compiled, loaded or found room for any more."""
        settings = self.settings
        service = open_service(
            store,
            backend=settings.device,
            device=device_settings(settings),
            threads=settings.threads or None,
            known_keys=settings.known_keys,
            report=self._report,
            pool_listener=outbox.listen if outbox else None,
            software=software_version(),
        )
        stack.callback(service.close)
        load_kernels(service.backend)
        service.take_memory()
        return service

    def _start_gossip(
        self, service: Service, store: Store, outbox: Outbox, stack: ExitStack
    ) -> str:
        """Pass transactions on from now on; return KEY@tcp://HOST:PORT, as peers list it."""
        check_listen(self.settings.gossip_listen)
        config = GossipConfig(
            pair=open_key(self.home),
            genesis_hash=store.genesis_hash,
            listen=self.settings.gossip_listen,
            peers=parse_peers(self.settings.gossip_peers),
        )
        runner = GossipRunner(service, outbox, config, tell=self._tell_gossip)
        address = runner.start()
        stack.callback(runner.stop)
        self._metrics.watch(runner.counts)
        return f"{config.pair.public_key.hex()}@{address}"

    def _secret(self, address: str) -> bytes | None:
        """Return what callers must know: nothing at a Unix socket unless a file is named."""
        if self.settings.engine_api_secret_file:
            return read_secret(Path(self.settings.engine_api_secret_file))
        if address.startswith(UNIX):
            return None
        path = self.home.joinpath(RUN_FOLDER, SECRET_NAME)
        if path.exists():
            return read_secret(path)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._log.info("made a secret for callers of the Engine API", file=str(path))
        return create_secret(path)

    def _tell_serving(self, before: str, now: str) -> str:
        """Log that the service begins or ends to serve; returns why it does not now."""
        if now and not before:
            self._log.error("not serving", why=now)
        elif before and not now:
            self._log.info("serving again")
        return now

    def _why_not(self, service: Service) -> str:
        """Return why the node does not serve, or nothing."""
        ending = self._lifetime.signal or self._lifetime.failure or service.failure
        if ending or self._is_stopping:
            return ending or "it stops"
        return service.health().not_serving

    def _pages(self, service: Service) -> Pages:
        def health() -> Page:
            state = f"degraded: {service.degraded}" if service.degraded else "ok"
            return text_page(HTTPStatus.OK, state)

        def readiness() -> Page:
            why = self._why_not(service)
            if why:
                return text_page(HTTPStatus.SERVICE_UNAVAILABLE, f"not serving: {why}")
            return text_page(HTTPStatus.OK, "serving")

        def metrics() -> Page:
            body = self._metrics.page()
            return Page(status=HTTPStatus.OK, content_type=CONTENT_TYPE, body=body)

        return {"/healthz": health, "/readyz": readiness, "/metrics": metrics}

    # What others report; all of these may be called from any thread.

    def _report(self, event: events.Event) -> None:
        """Log and count what the service tells."""
        name = type(event).__name__
        if isinstance(event, events.BlockExecuted):
            self._metrics.add_block(event.transaction_count, event.stage_ns)
            self._log.info("block", **block_fields(event))
        elif isinstance(event, events.Finalized):
            self._metrics.add_finalized(event.block_count)
            self._log.debug("finalized", **fields_of(event))
        elif isinstance(event, events.Recovered):
            self._log.info("recovered", **fields_of(event))
        else:
            self._metrics.add_event(name)
            write = self._log.error if isinstance(event, LOUD) else self._log.warning
            write(name, **fields_of(event))
            if isinstance(event, events.Stopped):
                self._wake.set()

    def _report_call(self, method: str, error: Exception) -> None:
        """Log a call that failed inside the executor."""
        self._metrics.add_event("call_failed")
        self._log.error("a call failed", method=method, exc_info=error)

    def _tell_gossip(self, event: str, fields: Mapping[str, object]) -> None:
        """Log what happened to a peer; bans and batches that were not judged are loud."""
        write = self._log.info if event == "gossip peer" else self._log.warning
        write(event, **fields)

    def _tell_notices(self, store: Store) -> None:
        for notice in store.take_notices():
            self._log.warning("store", notice=notice)

    def _on_signal(self) -> None:
        self._wake.set()
        if self._is_starting:
            raise StopRequested


def store_config(settings: Settings) -> StoreConfig:
    """Return the part of the settings that is the store's."""
    return StoreConfig(
        keep_blocks=settings.keep_blocks or None,
        snapshot_every=settings.snapshot_every,
        max_disk_bytes=settings.max_disk_bytes or None,
        free_bytes_min=settings.free_bytes_min,
    )


def gauges(service: Service, store: Store, stream: LogStream) -> Mapping[str, int]:
    """Return the values of the moment, for /metrics."""
    status, use = service.status, store.disk_use()
    known, decoded = service.backend.known_keys
    return {
        "head_height": status.head.height,
        "finalized_height": status.finalized.height,
        "unfinalized_blocks": len(status.unfinalized),
        "queued_transactions": service.queued_count,
        "degraded": int(bool(service.degraded)),
        "signature_keys_known": known,
        "signature_keys_decoded": decoded,
        "log_lines_lost": stream.lost_count,
        "disk_blocks_bytes": use.blocks,
        "disk_history_bytes": use.history,
        "disk_rows_bytes": use.rows,
        "disk_snapshots_bytes": use.snapshots,
        "disk_indexes_bytes": use.indexes,
        "disk_total_bytes": use.total,
        "disk_free_bytes": use.free,
    }


def block_fields(event: events.BlockExecuted) -> dict[str, object]:
    """Return the one line of a block: what it is, and where its time went."""
    return {
        "height": event.height,
        "hash": event.block_hash,
        "transactions": event.transaction_count,
        "bytes": event.payload_bytes,
        "own": event.is_own,
        "us": {stage: ns // NS_PER_US for stage, ns in event.stage_ns.items()},
        "total_us": event.total_ns // NS_PER_US,
        "tx_per_s": event.transaction_count * NS_PER_S // max(1, event.total_ns),
    }


def fields_of(event: events.Event) -> dict[str, object]:
    """Return the fields of an event for a line of the log."""
    return {item.name: getattr(event, item.name) for item in fields(event)}
