"""Kill an executor at random instants under load, and look after each restart at what it kept.

What must hold, whatever the instant: the process starts again; its finalized block is the last one
that was acknowledged, or the one that was asked for when it died; the state that it builds on has
the `state_hash` that the oracle gives for that block; every block that was answered VALID and was
not abandoned is there, byte for byte; what was torn at the end of a file is cut and told.
A kill leaves the page cache alone, so half-written ends are also made by hand: `tear`.
"""

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from engine.store.store import Store
from engine_api.client import EngineApiClient
from engine_api.protocol import Deadline
from engine_api.types import (
    Attributes,
    EngineApiError,
    ForkchoiceStatus,
    Limits,
    PayloadRequest,
    Verdict,
)
from spec import oracle
from tests.campaign.chain import (
    FEE_RECIPIENT,
    PAYLOAD_BYTES_MAX,
    UNFINALIZED_MAX,
    Block,
    OracleChain,
)
from tests.campaign.process import CALL_MS, Executor, ProcessFailed, call

LIFE_S_MAX = 6.0
"""of a process under load before it is killed"""
START_S_MAX = 3.0
"""a process that is killed while it starts is killed within this"""
EARLY_KILLS = 0.2
"""share of the processes that are killed while they start"""
TEARS = 0.3
"""share of the kills after which the end of a file is torn by hand"""
TORN_BYTES_MAX = 3_000
KEPT_BLOCKS = 64
"""finalized blocks that are compared byte for byte after each restart"""


class Violation(Exception):
    """Something that must hold and does not."""


class Died(Exception):
    """The process was killed in the middle of a call."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a campaign came to."""

    kills: int = 0
    early_kills: int = 0
    restarts_checked: int = 0
    blocks_valid: int = 0
    blocks_own: int = 0
    blocks_finalized: int = 0
    blocks_abandoned: int = 0
    transactions: int = 0
    bodies_compared: int = 0
    tails_torn: int = 0
    tails_cut: int = 0
    records_taken_in: int = 0
    finalized_unanswered: int = 0
    """finalizations that the process had made durable when it died before it answered"""
    violations: list[str] = field(default_factory=list)


class Campaign:
    """One home, one chain, and processes that come and go."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        settings: tuple[str, ...] = (),
        *,
        life_s_max: float = LIFE_S_MAX,
        start_s_max: float = START_S_MAX,
    ) -> None:
        """Make genesis and home in an empty folder; `settings`: further flags of `run`."""
        self._life_s_max = life_s_max
        self._start_s_max = start_s_max
        self._rng = random.Random(seed)
        self.chain = OracleChain(self._rng)
        genesis_path = folder / "genesis.json"
        self.chain.write_genesis(genesis_path)
        self.home = folder / "home"
        made = call("init", "--genesis", str(genesis_path), "--home", str(self.home), "--json")
        if made.returncode:
            raise ProcessFailed(made.stderr)
        with Store.open(self.home) as store:
            genesis_hash = store.genesis_hash
        self.executor = Executor(
            self.home,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
            settings=("--free-bytes-min", "0", *settings),
        )
        self.tally = Tally()
        self.finalized = self.chain.begin(genesis_hash)
        self._valid: dict[bytes, Block] = {}
        """answered VALID, above finalized"""
        self._asked: list[Block] = []
        """blocks that may be finalized though nobody answered"""
        self._client: EngineApiClient | None = None
        self._is_killed = False

    def run(self, *, kills: int | None = None, minutes: float | None = None) -> Tally:
        """Kill so often, or so long; returns what it came to, violations included."""
        end_s = time.monotonic() + 60 * (minutes if minutes is not None else 10**6)
        while time.monotonic() < end_s and (kills is None or self.tally.kills < kills):
            try:
                self._live_once()
            except (Violation, ProcessFailed, EngineApiError) as error:
                self.tally.violations.append(f"kill {self.tally.kills}: {error}")
                break
            finally:
                self._bury()
        if not self.tally.violations:
            self._last_look()
        return self.tally

    def _bury(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.executor.is_running:
            self.executor.kill()

    def _live_once(self) -> None:
        """Start a process, look at what it kept, give it work, and kill it."""
        self.executor.start()
        if self._rng.random() < EARLY_KILLS:
            time.sleep(self._rng.random() * self._start_s_max)
            self.executor.kill()
            self.tally.early_kills += 1
            self._count_kill()
            return
        self.executor.wait_ready()
        self._client = client = self.executor.client()
        self._check_restart(client)
        life_s = self._rng.random() * self._life_s_max
        self._is_killed = False
        killer = threading.Timer(life_s, self._kill)
        killer.start()
        try:
            while True:
                self._work(client)
        except Died:
            killer.join()
        finally:
            killer.cancel()
        self._count_kill()

    def _kill(self) -> None:
        self._is_killed = True
        self.executor.kill()

    def _count_kill(self) -> None:
        self.tally.kills += 1
        for line in self.executor.log():
            text = str(line.get("notice", "")) + str(line.get("text", ""))
            self.tally.tails_cut += "cut " in text
            self.tally.records_taken_in += "took in" in text
            if "Traceback" in text:
                raise Violation(f"the log has a traceback: {self.executor.log_text()[-4000:]}")
        if self._rng.random() < TEARS:
            self._tear()

    def _tear(self) -> None:
        """Leave half a record at the end of the newest file, as a power cut would."""
        folder = self.home / self._rng.choice(["blocks", "history"])
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if files:
            with files[-1].open("ab") as file:
                file.write(self._rng.randbytes(self._rng.randrange(1, TORN_BYTES_MAX)))
            self.tally.tails_torn += 1

    # What must hold after a restart.

    def _check_restart(self, client: EngineApiClient) -> None:
        status = client.get_status(deadline())
        candidates = {block.hash: block for block in [self.finalized, *self._asked]}
        finalized = candidates.get(status.finalized.hash)
        if finalized is None:
            raise Violation(
                f"finalized is {status.finalized}, acknowledged was height {self.finalized.height} "
                f"{self.finalized.hash.hex()}"
            )
        if finalized is not self.finalized:
            self.tally.finalized_unanswered += 1
            self._finalize(finalized)
        self._asked = []
        self._check_state(client, finalized)
        self._check_bodies(client, list(self._valid.values()))
        known = {item.hash for item in status.unfinalized}
        lost = [block for block in self._valid.values() if block.hash not in known]
        if len(known) < min(len(self._valid), 2 * UNFINALIZED_MAX) and lost:
            raise Violation(f"{len(lost)} blocks that were VALID are not executed again")
        self._check_final_bodies(client)
        self.tally.restarts_checked += 1

    def _check_state(self, client: EngineApiClient, block: Block) -> None:
        """Compare the resident state: an empty block on it has its state_hash."""
        answer = client.get_payload(empty_request(block), deadline())
        if answer.built is None:
            raise Violation(f"the finalized block {block.hash.hex()} cannot be built on")
        if answer.built.state_hash != block.state_hash:
            raise Violation(
                f"height {block.height}: the state has {answer.built.state_hash.hex()}, the oracle "
                f"says {block.state_hash.hex()}"
            )

    def _check_bodies(self, client: EngineApiClient, blocks: list[Block]) -> None:
        """Compare stored blocks by their hashes, byte for byte."""
        for start in range(0, len(blocks), 64):
            part = blocks[start : start + 64]
            bodies = client.bodies_by_hash([block.hash for block in part], deadline())
            for block, body in zip(part, bodies, strict=True):
                if body.header != block.header or bytes(body.payload) != block.payload:
                    raise Violation(f"height {block.height} {block.hash.hex()} is lost or other")
                self.tally.bodies_compared += 1

    def _check_final_bodies(self, client: EngineApiClient) -> None:
        """Compare the newest finalized blocks by their heights."""
        kept = [block for block in self.chain.ancestors(self.finalized) if block.height]
        if not kept:
            return
        kept = kept[:KEPT_BLOCKS][::-1]
        bodies = client.bodies_by_range(kept[0].height, len(kept), deadline())
        for block, body in zip(kept, bodies, strict=True):
            if body.header != block.header or bytes(body.payload) != block.payload:
                raise Violation(f"the finalized block at height {block.height} is lost or other")
            self.tally.bodies_compared += 1

    def _last_look(self) -> None:
        """Let the last process end in peace, then read every byte that is stored."""
        try:
            self.executor.start()
            self.executor.wait_ready()
            with self.executor.client() as client:
                self._check_restart(client)
            code = self.executor.stop()
            if code:
                raise Violation(f"SIGTERM ended the process with {code}")
            with Store.open(self.home) as store:
                store.verify()
                notices = [text for text in store.take_notices() if "cut" in text]
            if notices:
                raise Violation(f"a clean stop left something to repair: {notices}")
        except (Violation, ProcessFailed, EngineApiError) as error:
            self.tally.violations.append(f"at the end: {error}")
        finally:
            self._bury()

    # Load.

    def _work(self, client: EngineApiClient) -> None:
        """Do one random thing that a consensus could do."""
        try:
            choice = self._rng.random()
            if choice < 0.55:
                self._send_block(client)
            elif choice < 0.65:
                self._build_own(client)
            elif choice < 0.75 and self._valid:
                self._send_again(client)
            else:
                self._move(client)
        except EngineApiError as error:
            if self._is_killed:
                raise Died from error
            raise

    def _parent(self) -> Block | None:
        """Return a block to build on, mostly the highest; None where depth forbids it."""
        room = self.finalized.height + UNFINALIZED_MAX
        able = [b for b in [self.finalized, *self._valid.values()] if b.height < room]
        if not able:
            return None
        if self._rng.random() < 0.75:
            return max(able, key=lambda block: block.height)
        return self._rng.choice(able)

    def _send_block(self, client: EngineApiClient) -> None:
        parent = self._parent()
        if parent is None or len(self._valid) >= 2 * UNFINALIZED_MAX:
            self._move(client)
            return
        count = self._rng.choice([0, 1, 20, 100, 300, 1_500])
        self._expect_valid(client, self.chain.make(parent, count), is_held=False)

    def _send_again(self, client: EngineApiClient) -> None:
        block = self._rng.choice(list(self._valid.values()))
        self._expect_valid(client, block, is_held=self._rng.random() < 0.5)

    def _expect_valid(self, client: EngineApiClient, block: Block, *, is_held: bool) -> None:
        payload = None if is_held else block.payload
        answer = client.new_payload(block.header, payload, deadline())
        if answer.verdict != Verdict.VALID:
            raise Violation(f"height {block.height} is {answer.verdict.name}: {answer.detail}")
        if block.hash not in self._valid:
            self.tally.blocks_valid += 1
            self.tally.transactions += block.transaction_count
        self._valid[block.hash] = block

    def _build_own(self, client: EngineApiClient) -> None:
        """Submit transfers, let the executor build, and compare its results with the oracle's."""
        parent = self._parent()
        if parent is None or len(self._valid) >= 2 * UNFINALIZED_MAX:
            return
        made = self.chain.transactions(parent, self._rng.choice([5, 60]))
        records = b"".join(oracle.encode_transaction(item) for item in made)
        client.submit(records, deadline())
        timestamp_ms = parent.timestamp_ms + 1
        request = PayloadRequest(
            parent_hash=parent.hash,
            height=parent.height + 1,
            limits=Limits(bytes=2**20, transactions=1_000, objects=1_000),
            attributes=Attributes(timestamp_ms=timestamp_ms, fee_recipient=FEE_RECIPIENT),
            wait_ms=0,
        )
        built = client.get_payload(request, deadline()).built
        if built is None:
            raise Violation(f"height {parent.height} cannot be built on")
        try:
            block = self.chain.adopt(parent, bytes(built.payload), timestamp_ms)
        except oracle.Invalid as error:
            raise Violation(f"the oracle refuses an own build: {error}") from error
        if block.state_hash != built.state_hash:
            raise Violation(f"an own build at height {block.height} has another state_hash")
        self.tally.blocks_own += 1
        self._expect_valid(client, block, is_held=True)

    def _move(self, client: EngineApiClient) -> None:
        """Choose a head, and finalize one of its ancestors or what is finalized already."""
        head = self._rng.choice([self.finalized, *self._valid.values()])
        path = [b for b in self.chain.ancestors(head) if b.height >= self.finalized.height]
        final = self._rng.choice(path)
        safe = self._rng.choice(path[: path.index(final) + 1])
        self._asked = [final]
        answer = client.forkchoice_updated(head.hash, safe.hash, final.hash, deadline())
        if answer.status != ForkchoiceStatus.OK:
            raise Violation(f"blocks that are VALID are unknown to ForkchoiceUpdated: {answer}")
        self._asked = []
        self._finalize(final)

    def _finalize(self, block: Block) -> None:
        self.tally.blocks_finalized += block.height - self.finalized.height
        self.finalized = block
        self.tally.blocks_abandoned += len(self.chain.forget(block, KEPT_BLOCKS))
        self._valid = {
            name: item
            for name, item in self._valid.items()
            if item.height > block.height and self.chain.descends(item, block)
        }


def deadline() -> Deadline:
    """Return the deadline of a call that is not expected to be late."""
    return Deadline.after_ms(CALL_MS)


def empty_request(block: Block) -> PayloadRequest:
    """Ask for a block without transactions."""
    return PayloadRequest(
        parent_hash=block.hash,
        height=block.height + 1,
        limits=Limits(bytes=2**16, transactions=0, objects=0),
        attributes=Attributes(timestamp_ms=block.timestamp_ms + 1, fee_recipient=FEE_RECIPIENT),
        wait_ms=0,
    )
