"""One consensus node as a process: executor, network, core and pages, started and stopped in order.

Only assembly, logging and signals are here. The executor comes first, because nothing can be judged
without it, and goes last. What a signal does not end within STOP_MAX_S is cut off, which costs
nothing: whatever has left this process was durable before. Next: `node.py`.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from consensus.config import Config, Peer
from consensus.core.types import PublicKey
from consensus.executor_watch import ExecutorWatch
from consensus.following import GENESIS_PREFIX, genesis_page
from consensus.home import Home, HomeError, executor_command
from consensus.inbox import Inbox
from consensus.network.addresses import PeerAddresses
from consensus.network.mesh import Mesh
from consensus.node import Node, stored_payload
from consensus.pages import height_pages, node_pages
from consensus.payloads import Payloads
from consensus.supervisor import Supervisor
from consensus.view import View
from consensus.waiting import SystemClock, seconds
from engine_api.auth import read_secret
from engine_api.client import EngineApiClient
from engine_api.protocol import Deadline
from engine_api.transport import UNIX
from engine_api.types import EngineApiError, ErrorCode
from kernels.signatures import PathUnavailable, VerdictDiffers
from runtime.command_line import ExitCode
from runtime.errors import signatures_unusable
from runtime.keypair import KeyPair
from runtime.lifetime import Lifetime
from runtime.logs import Logger, LogStream
from runtime.pages import PageServer
from runtime.secrets import PASSWORD_VARIABLE

HANDSHAKE_CONTEXT = "tos handshake v1"
HELD_BYTES_MIN = 2**27
HELD_PAYLOADS = 12
"""payloads of the largest size that may be held: those of all unfinalized blocks, and some more"""
STOP_MAX_S = 20
"""from a signal to the end of the process; the executor has less"""
ASK_MS = 1_000
ASK_AGAIN_MS = 50
TELL_MS = 5_000
"""from one line of the log to the next while an executor starts; a first one compiles kernels"""
NS_PER_MS = 1_000_000
FIRST_STARTS_MAX = 3
"""lives of an executor that never answered, after which the node gives up"""
SECRET_VARIABLES = (PASSWORD_VARIABLE,)
"""Not for the executor."""


class NodeProcess:
    """One node, from `run` to its end."""

    def __init__(
        self, home: Home, config: Config, pair: KeyPair, log: Logger, stream: LogStream
    ) -> None:
        """Prepare; the home is locked and stays so. pair: of the validator, or of the transport."""
        self._home = home
        self._settings = config.settings
        self._pair = pair
        self._log = log
        self._stream = stream
        self._chain_file = home.chain()
        self._node: Node | None = None
        self._own_executor: Callable[[], Mapping[str, int]] = dict
        """what is counted of the executor that this node starts"""
        self._wake = threading.Event()
        self._lifetime = Lifetime(
            log, stop_max_s=STOP_MAX_S, on_signal=self._end, on_failure=self._end
        )

    def run(self) -> ExitCode:
        """Run until a signal or a failure. Raises ExplainedError where the node cannot start."""
        is_well, lifetime = True, self._lifetime
        with lifetime.watched(), ExitStack() as stack:
            supervisor = self._start_executor(stack)
            engine = self._connect(stack)
            if supervisor is not None:
                self._watch_executor(stack, supervisor)
            if supervisor is not None and not self._wait_for(supervisor, engine):
                if lifetime.failure:
                    return ExitCode.FAILED
                if lifetime.signal:
                    self._log.info("stopped while starting", reason=lifetime.signal)
                return ExitCode.OK if lifetime.signal else ExitCode.NO_DEVICE
            try:
                node = self._assemble(stack, engine, supervisor)
            except (PathUnavailable, VerdictDiffers) as error:
                raise signatures_unusable(error) from error
            if not lifetime.is_ending:
                is_well = node.run()
            reason = lifetime.failure or node.failure or lifetime.signal
            self._log.info("stopping", reason=reason)
        self._log.info("stopped")
        return ExitCode.OK if is_well and not lifetime.failure else ExitCode.FAILED

    # --- the executor ---------------------------------------------------------------------------

    def _start_executor(self, stack: ExitStack) -> Supervisor | None:
        """Start the own executor; None where somebody else runs it."""
        run = self._home.run
        run.mkdir(mode=0o700, exist_ok=True)
        if self._settings.executor_address:
            return None
        supervisor = Supervisor(
            executor_command(self._home, self._settings.device),
            environment={
                name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES
            },
            log_path=self._home.executor_log,
            log=self._log,
        )
        supervisor.start()
        stack.callback(supervisor.stop)
        return supervisor

    def _watch_executor(self, stack: ExitStack, supervisor: Supervisor) -> None:
        """Ask the own executor, on a connection of its own, whether it still answers."""
        watch = ExecutorWatch(
            self._connect(stack),
            life=lambda: supervisor.life,
            end_life=supervisor.end_life,
            log=self._log,
        )
        self._own_executor = lambda: {"restarts": supervisor.restarts, "hangs": watch.hangs}
        watch.start()
        stack.callback(watch.stop)

    def _connect(self, stack: ExitStack) -> EngineApiClient:
        """Return a client of the executor; raises SetupError for an address that is none."""
        own = f"{UNIX}{self._home.executor.absolute().joinpath('run', 'engine.sock')}"
        secret_file = self._settings.executor_secret_file
        engine = EngineApiClient(
            self._settings.executor_address or own,
            payload_bytes_max=self._chain_file.parameters.payload_bytes_max,
            secret=read_secret(Path(secret_file)) if secret_file else None,
        )
        stack.callback(engine.close)
        return engine

    def _wait_for(self, supervisor: Supervisor, engine: EngineApiClient) -> bool:
        """Wait until the own executor answers; False: told to stop, or there is no such device.

        Raises HomeError with the executor's own words where it does not begin.
        """
        told_ns = time.monotonic_ns()
        while not self._lifetime.is_ending:
            if time.monotonic_ns() - told_ns >= TELL_MS * NS_PER_MS:
                told_ns = time.monotonic_ns()
                self._log.info("waiting for the executor", its_log=str(self._home.executor_log))
            try:
                engine.get_status(Deadline.after_ms(ASK_MS))
            except EngineApiError as error:
                if error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.DEADLINE_EXCEEDED):
                    self._log.warning("the executor answers with an error", error=str(error))
            else:
                return True
            if supervisor.last_code == ExitCode.NO_DEVICE:
                self._stream.write(supervisor.last_words)
                return False
            if supervisor.starts > FIRST_STARTS_MAX:
                code = supervisor.last_code
                ended = "it cannot be started" if code is None else f"it ended with {code}"
                raise HomeError(
                    "home.executor",
                    what="the executor does not start",
                    where=str(self._home.executor),
                    why=f"{ended}, and its last words are:\n{supervisor.last_words}",
                    what_to_do="put right what it says; its log is run/executor.log in the home",
                )
            self._wake.wait(seconds(ASK_AGAIN_MS))
        return False

    # --- the node -------------------------------------------------------------------------------

    def _assemble(
        self, stack: ExitStack, engine: EngineApiClient, supervisor: Supervisor | None
    ) -> Node:
        """Put the node together and serve its pages."""
        settings, chain = self._settings, self._chain_file.chain
        domain = blake3(chain.genesis_hash, derive_key_context=HANDSHAKE_CONTEXT).digest()
        inbox = Inbox()
        mesh = Mesh(
            pair=self._pair,
            domain=domain,
            listen_votes=settings.listen_votes,
            listen_sync=settings.listen_sync,
            on_message=inbox.offer,
            report=self._report,
        )
        payload_bytes_max = chain.parameters.payload_bytes_max
        payloads = Payloads(
            pair=self._pair,
            domain=domain,
            listen=settings.listen_payloads,
            payload_bytes_max=payload_bytes_max,
            held_bytes_max=max(HELD_BYTES_MIN, HELD_PAYLOADS * payload_bytes_max),
            read_stored=partial(stored_payload, engine),
            on_event=inbox.put,
            report=self._report,
        )
        node = Node(
            chain=chain,
            pair=None if self._home.is_follower() else self._pair,
            fee_recipient=PublicKey(bytes.fromhex(settings.fee_recipient) or self._pair.public_key),
            folder=self._home.folder,
            engine=engine,
            inbox=inbox,
            network=mesh,
            payloads=payloads,
            addresses={
                bytes.fromhex(peer.key): PeerAddresses(
                    votes=peer.votes, sync=peer.sync, payloads=peer.payloads
                )
                for peer in settings.peers
            },
            clock=SystemClock(settings.clock_offset_ms),
            log=self._log,
        )
        self._node = node
        names = {bytes.fromhex(peer.key): peer.name for peer in settings.peers}
        view = View(node, inbox=inbox, network=mesh, payloads=payloads, names=names)
        node.metrics.watch(
            lambda: {f"executor_{name}": count for name, count in self._own_executor().items()}
        )
        if settings.http_address:
            self._serve(stack, view, mesh, payloads, supervisor)
        return node

    def _known_nodes(self, mesh: Mesh, payloads: Payloads) -> list[Peer]:
        """Return where others find this node and its peers; for those who follow."""
        own = Peer(
            key=self._pair.public_key.hex(),
            votes=mesh.votes_address,
            sync=mesh.sync_address,
            payloads=payloads.payloads_address,
        )
        return [own, *self._settings.peers]

    def _serve(
        self,
        stack: ExitStack,
        view: View,
        mesh: Mesh,
        payloads: Payloads,
        supervisor: Supervisor | None,
    ) -> None:
        """Serve the pages, and leave their address in the home for commands."""
        more: dict[str, Any] = {"address_prefix": self._chain_file.address_prefix}
        if supervisor is not None:
            more["executor"] = self._own_executor
            more["executor_pid"] = lambda: supervisor.pid
        home = self._home
        others: dict[str, Callable[[], Any]] = {
            "/chain": partial(msgspec.to_builtins, self._chain_file),
            "/peers": lambda: msgspec.to_builtins(self._known_nodes(mesh, payloads)),
            "/genesis": home.genesis_names,
        }
        server = PageServer(
            self._settings.http_address,
            node_pages(view, more, others),
            {**height_pages(view), GENESIS_PREFIX: partial(genesis_page, home)},
        )
        address = server.start()
        stack.callback(server.stop)
        place = self._home.http_address
        place.write_text(f"{address}\n")
        stack.callback(_remove, place)
        self._log.info("pages", url=f"http://{address}", pid=os.getpid())

    def _report(self, event: str, fields: Mapping[str, object]) -> None:
        """Log what the network tells; from any thread."""
        self._log.info(event, **fields)

    def _end(self) -> None:
        """Wake whatever waits: there is a reason to end."""
        self._wake.set()
        if self._node is not None:
            self._node.stop()


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):  # somebody tidied up
        path.unlink()
