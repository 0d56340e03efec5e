"""A node's executor: a serial toy ledger behind the calls of the Engine API, with its own time.

It is a process of its own: it can hang, be slow, restart with a new boot_id (executed results are
lost, headers and payloads are on disk) or compute wrongly. VALID means durable.
"""

from dataclasses import dataclass

from consensus.core.events import (
    Answer,
    CallError,
    CallRequest,
    ExecutorStatus,
    ExecutorSyncing,
    ForkchoiceDone,
    ForkchoiceUpdated,
    GetPayload,
    GetStatus,
    GetValidatorSet,
    NewPayload,
    PayloadBuilt,
    PayloadJudged,
    ValidatorsOf,
    Verdict,
)
from consensus.core.types import Hash32, Header, Height, Validator
from tests.sim import ledger
from tests.sim.keys import digest

INVALID_STATE = 9
INVALID_RECEIPTS = 10
INVALID_ENCODING = 32
INVALID_HEADER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A block on the executor's disk."""

    header: Header
    payload: bytes


class Schedule:
    """What genesis fixes for every executor: its hashes and the validator sets of all epochs."""

    def __init__(
        self,
        genesis_hash: bytes,
        params_hash: bytes,
        sets: tuple[tuple[Validator, ...], ...],
        unfinalized_max: int,
    ) -> None:
        """Hold the sets of epochs 0, 1, ...; the last one stays."""
        self.genesis_hash = genesis_hash
        self.params_hash = params_hash
        self.sets = sets
        self.unfinalized_max = unfinalized_max

    def validators(self, epoch: int) -> tuple[Validator, ...]:
        """Return the set of an epoch."""
        return self.sets[min(epoch, len(self.sets) - 1)]


class Executor:
    """State of one executor; `World` gives it time. `durable` survives everything."""

    def __init__(self, schedule: Schedule, identity: bytes) -> None:
        """Begin at genesis."""
        self.schedule = schedule
        self.identity = identity
        self.boots = 0
        self.boot_id = b""
        self.durable: dict[bytes, Held] = {}
        self.finalized_hash = schedule.genesis_hash
        self.finalized_height = 0
        self.is_wrong = False
        self.forgets_to_sync = False
        """a planted bug: VALID is answered for a payload that is only in memory"""
        self.unsynced: dict[bytes, Held] = {}
        self._heads: dict[bytes, tuple[int, ledger.State]] = {}
        self._built: set[tuple[bytes, bytes]] = set()
        self._finalized_state = ledger.OPENING_STATE
        self.busy_until_ms = 0
        self.restart()

    def restart(self) -> None:
        """Lose what is only in memory; execute what is on disk again."""
        self.boots += 1
        self.boot_id = digest("boot", self.identity + self.boots.to_bytes(4, "little"))[:16]
        self.unsynced.clear()
        self._built.clear()
        self._heads = {self.finalized_hash: (self.finalized_height, self._finalized_state)}
        above = [h for h in self.durable.items() if h[1].header.height > self.finalized_height]
        for block_hash, held in sorted(above, key=lambda item: item[1].header.height):
            parent = self._heads.get(held.header.parent_hash)
            if parent is not None:
                state = ledger.execute(parent[1], held.payload).state
                self._heads[block_hash] = (held.header.height, state)

    def is_own_build(self, request: CallRequest) -> bool:
        """Say whether NewPayload names something that GetPayload made here: nothing to execute."""
        return (
            isinstance(request, NewPayload)
            and (request.header.parent_hash, request.header.payload_commitment) in self._built
        )

    def bytes_of(self, block_hash: bytes) -> bytes | None:
        """Return the payload of a block that lies on disk (or, unsynced, in memory)."""
        held = self.durable.get(block_hash) or self.unsynced.get(block_hash)
        return held.payload if held else None

    def build(self, request: GetPayload, payload: bytes) -> tuple[Answer, bytes]:
        """Answer GetPayload with the given transactions, as many as the limits allow."""
        parent = self._heads.get(request.parent_hash)
        if parent is None:
            return ExecutorSyncing(), b""
        fits = min(request.payload_bytes_max, request.transactions_max * ledger.TRANSFER_BYTES)
        payload = payload[: fits // ledger.TRANSFER_BYTES * ledger.TRANSFER_BYTES]
        result = ledger.execute(parent[1], payload)
        made = ledger.commitment(payload)
        if len(self._built) < 4 * self.schedule.unfinalized_max:
            self._built.add((request.parent_hash, made))
        state_hash = digest("wrong", result.state_hash) if self.is_wrong else result.state_hash
        answer = PayloadBuilt(
            payload_commitment=Hash32(made),
            payload_bytes=len(payload),
            transaction_count=len(payload) // ledger.TRANSFER_BYTES,
            transactions_root=Hash32(result.transactions_root),
            state_hash=Hash32(state_hash),
            receipts_hash=Hash32(result.receipts_hash),
        )
        return answer, payload

    def answer(self, request: CallRequest, payload: bytes | None) -> Answer | CallError:
        """Answer everything but GetPayload; `payload`: what the shell streamed with the header."""
        if isinstance(request, NewPayload):
            return self._judge(request, payload)
        if isinstance(request, ForkchoiceUpdated):
            return self._follow(request)
        if isinstance(request, GetValidatorSet):
            return ValidatorsOf(validators=self.schedule.validators(request.epoch))
        assert isinstance(request, GetStatus), request
        above = sorted(
            (height, block_hash)
            for block_hash, (height, _) in self._heads.items()
            if height > self.finalized_height
        )
        return ExecutorStatus(
            genesis_hash=Hash32(self.schedule.genesis_hash),
            params_hash=Hash32(self.schedule.params_hash),
            finalized_height=Height(self.finalized_height),
            finalized_hash=Hash32(self.finalized_hash),
            unfinalized=tuple((Height(height), Hash32(found)) for height, found in above),
        )

    def _judge(self, request: NewPayload, payload: bytes | None) -> Answer | CallError:
        header, block_hash = request.header, request.block_hash
        if block_hash in self._heads:
            return PayloadJudged(verdict=Verdict.VALID)
        if payload is None:
            payload = self.bytes_of(block_hash)
            if payload is None:
                return CallError.PAYLOAD_NOT_HELD
        if len(payload) != header.payload_bytes or (
            ledger.commitment(payload) != header.payload_commitment
        ):
            return PayloadJudged(verdict=Verdict.MALFORMED)
        parent = self._heads.get(header.parent_hash)
        if parent is None:
            if header.height <= self.finalized_height:
                return CallError.CONFLICT
            return PayloadJudged(verdict=Verdict.SYNCING)
        if header.height - self.finalized_height > self.schedule.unfinalized_max:
            return CallError.DEPTH_EXCEEDED
        return self._execute(block_hash, header, payload, parent)

    def _execute(
        self,
        block_hash: bytes,
        header: Header,
        payload: bytes,
        parent: tuple[int, ledger.State],
    ) -> PayloadJudged:
        if header.height != parent[0] + 1:
            return PayloadJudged(verdict=Verdict.INVALID, reason=INVALID_HEADER)
        if not ledger.is_well_formed(payload):
            return PayloadJudged(verdict=Verdict.INVALID, reason=INVALID_ENCODING)
        result = ledger.execute(parent[1], payload)
        state_hash = digest("wrong", result.state_hash) if self.is_wrong else result.state_hash
        if header.state_hash != state_hash:
            return PayloadJudged(verdict=Verdict.INVALID, reason=INVALID_STATE)
        if header.receipts_hash != result.receipts_hash:
            return PayloadJudged(verdict=Verdict.INVALID, reason=INVALID_RECEIPTS)
        self._heads[block_hash] = (header.height, result.state)
        into = self.unsynced if self.forgets_to_sync else self.durable
        into[block_hash] = Held(header=header, payload=payload)
        return PayloadJudged(verdict=Verdict.VALID)

    def _follow(self, request: ForkchoiceUpdated) -> Answer | CallError:
        if not {request.head, request.safe, request.finalized} <= self._heads.keys():
            return ExecutorSyncing()
        height, state = self._heads[request.finalized]
        if height < self.finalized_height:
            return CallError.CONFLICT
        if request.finalized != self.finalized_hash:
            self.finalized_hash, self.finalized_height = request.finalized, height
            self._finalized_state = state
            self._abandon()
        return ForkchoiceDone()

    def _abandon(self) -> None:
        """Drop what does not descend from the finalized block, and what lies far below it."""
        kept = {self.finalized_hash: self._heads[self.finalized_hash]}
        for block_hash, entry in sorted(self._heads.items(), key=lambda item: item[1][0]):
            if entry[0] > self.finalized_height:
                held = self.durable.get(block_hash) or self.unsynced[block_hash]
                if held.header.parent_hash in kept:
                    kept[block_hash] = entry
        self._heads = kept
        self._built.clear()
