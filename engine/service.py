"""The executor's service: the Engine API over chain and store.

One writer thread owns the chain; every call that looks at it or moves it goes through that thread's
bounded queue. Signatures of submitted transactions are verified on the caller's thread, and so is
the second look of the serial arm at a block that is about to be INVALID. Status and health answer
from what the writer published last, so they never wait and never see half of a change.
Spec: spec/engine_api.md. Below: `executor.py` (what the writer does), `building.py` (GetPayload).
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from engine import confirm, header_checks
from engine.bad_blocks import BadBlocks, room_bytes
from engine.building import PayloadBuilder
from engine.chain import DepthExceeded
from engine.codec import payload_commitment
from engine.errors import InvalidPayload
from engine.events import BlockInvalid, Notice, Report, Stopped
from engine.executor import Executor
from engine.genesis import validator_set_id
from engine.header import Header
from engine.indexer import Indexer
from engine.mempool import Mempool
from engine.pool_keeper import PoolKeeper
from engine.pool_rules import PoolAnswer
from engine.store.errors import StoreFull
from engine.store.store import Store
from engine.store.values import StoredBlock
from engine.transition import StageTimer, announce_payload
from engine.verdicts import FinalizedBlock, Judged, refused
from engine.views import Views, status_answer
from engine.writer import Writer
from engine_api import checks
from engine_api.protocol import NEVER, Deadline
from engine_api.types import (
    BOOT_ID_BYTES,
    Bodies,
    Body,
    EngineApiError,
    ErrorCode,
    ForkchoiceAnswer,
    ForkchoiceStatus,
    HealthAnswer,
    NewPayloadAnswer,
    PayloadAnswer,
    PayloadRequest,
    StatusAnswer,
    SubmitAnswer,
    Validator,
    ValidatorSetAnswer,
    Verdict,
    Versions,
)
from kernels.backend import Backend
from kernels.layout import U8

T = TypeVar("T")
JUDGE_ATTEMPTS = 2
"""A block is judged again at most once: after the serial arm has taken over."""


class Service:
    """An ExecutionEngine over one home; made by `opening.open_service`."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        keeper: PoolKeeper,
        *,
        backends: Sequence[Backend],
        versions: Versions,
        report: Report,
    ) -> None:
        """Serve from where the executor stands; `close` closes the backends, not the store."""
        self.boot_id = secrets.token_bytes(BOOT_ID_BYTES)
        self.failed = threading.Event()
        """set when the service has stopped for good"""
        self.failure = ""
        """why it has; the process must end then"""
        self._store = store
        self._executor = executor
        self._keeper = keeper
        self._builder = PayloadBuilder(executor, keeper)
        self._bad_blocks = BadBlocks(store.home, partial(room_bytes, store))
        self._backends = backends
        self._versions = versions
        self._report = report
        self._confirming = threading.Lock()
        self.views = Views(executor, keeper.recent)
        """accounts and followed blocks, for readers on any thread"""
        self._status = self._make_status()
        self._writer = Writer()
        executor.goes_on = self._writer.go_on
        self._indexer = Indexer(store, make_again=self._make_again, report=report, fail=self._stop)

    @property
    def payload_bytes_max(self) -> int:
        """The longest payload of this chain, in bytes."""
        return self._executor.limits.bytes

    @property
    def degraded(self) -> str:
        """Why another arm than the wanted one executes, or nothing; the service goes on, slower."""
        return self._executor.degraded or self.backend.degraded

    @property
    def queued_count(self) -> int:
        """Transactions that wait for a payload."""
        return len(self._keeper)

    @property
    def pool(self) -> Mempool:
        """What waits, and what became of the rest."""
        return self._keeper.pool

    @property
    def status(self) -> StatusAnswer:
        """What the last change left."""
        return self._status

    def take_memory(self) -> None:
        """Take the memory that the first batch would wait for."""
        self._executor.marks.take_memory()
        self.pool.take_memory()

    def mark_verified(self, hashes: U8) -> None:
        """Take the signatures of (n, 32) transaction hashes as valid: the caller verified them."""
        self._executor.marks.mark(hashes)

    def close(self) -> None:
        """Finish what runs, refuse what waits, end the threads, keep the pool on disk."""
        self._writer.close()
        self._indexer.close()
        self._keeper.save()
        for backend in self._backends:
            backend.close()

    def load_pool(self) -> None:
        """Take in what waited when the last process ended."""
        self._keeper.load(self._admit)

    def wait_indexed(self) -> None:
        """Return when every finalized block is in the indexes."""
        self._indexer.wait_idle()

    # Calls that read

    def get_status(self, deadline: Deadline = NEVER) -> StatusAnswer:
        """Return what the last change left; raises UNAVAILABLE where no other one will come."""
        self._writer.check_moving()
        return self._status

    def health(self, deadline: Deadline = NEVER) -> HealthAnswer:
        """Return whether the service serves; it never waits."""
        return HealthAnswer(
            boot_id=self.boot_id,
            not_serving=self.failure or self._writer.locked_up() or self._store.no_room(),
            finalized_height=self._status.finalized.height,
            free_disk_bytes=self._store.disk_use().free,
        )

    def bodies_by_hash(self, hashes: Sequence[bytes], deadline: Deadline = NEVER) -> Bodies:
        """Return stored blocks, one per hash."""
        checks.check_hashes(hashes)
        known = {block.hash for block in self._status.unfinalized}
        return (self._body(self._block_by_hash(bytes(name), known)) for name in hashes)

    def bodies_by_range(self, first_height: int, count: int, deadline: Deadline = NEVER) -> Bodies:
        """Return finalized blocks from a height on."""
        checks.check_heights(first_height, count)
        return (
            self._body(self._reading(partial(self._store.block_at, height)))
            for height in range(first_height, first_height + count)
        )

    def validator_set(self, epoch: int, deadline: Deadline = NEVER) -> ValidatorSetAnswer:
        """Return who decides the blocks of an epoch, from the genesis schedule."""
        checks.check_range("epoch", epoch, 0, checks.U64_MAX)
        members = self._executor.genesis.validators_of(epoch)
        return ValidatorSetAnswer(
            boot_id=self.boot_id,
            epoch=epoch,
            validators=tuple(
                Validator(key=member.public_key, power=member.power) for member in members
            ),
            validator_set_id=validator_set_id(members),
        )

    # Calls that change something

    def submit(self, batch: bytes | memoryview, deadline: Deadline = NEVER) -> SubmitAnswer:
        """Verify transactions on the caller's thread and bring them into the pool."""
        checks.check_batch(batch)
        deadline.check("the batch was queued")
        results = self._guarded(partial(self._keeper.submit, batch, self._admit))
        return SubmitAnswer(boot_id=self.boot_id, results=results)

    def admit(self, batch: bytes | memoryview, deadline: Deadline = NEVER) -> U8:
        """Do what `submit` does; return a PoolReason for each record, (n,) uint8."""
        checks.check_batch(batch)
        deadline.check("the batch was queued")
        return self._guarded(partial(self._keeper.admit, batch, self._admit))

    def status_of(self, transaction_hash: bytes) -> PoolAnswer:
        """Return what pool and chain know of a transaction; never waits for the writer."""
        return self._reading(partial(self._keeper.status_of, transaction_hash))

    def get_payload(self, request: PayloadRequest, deadline: Deadline = NEVER) -> PayloadAnswer:
        """Build on a block, waiting for work as long as the request allows."""
        checks.check_payload_request(request)
        self._builder.check_limits(request)
        place = partial(self._builder.is_place, request)
        if not self._write("the parent was looked up", place, deadline):
            return PayloadAnswer(boot_id=self.boot_id, built=None)
        left_ms = deadline.remaining_ms()
        wait_ms = request.wait_ms if left_ms is None else min(request.wait_ms, left_ms)
        self._keeper.wait(wait_ms, deadline.cancelled)
        built = self._write("building", partial(self._builder.build, request, deadline), deadline)
        return PayloadAnswer(boot_id=self.boot_id, built=built)

    def new_payload(
        self,
        header: bytes,
        payload: bytes | memoryview | None,
        deadline: Deadline = NEVER,
    ) -> NewPayloadAnswer:
        """Judge a block and make it durable."""
        deadline.check("the block was judged")
        self._check_serving()
        header = bytes(header)
        try:
            fields = header_checks.check_alone(
                header, self._executor.chain_id, self.payload_bytes_max
            )
        except InvalidPayload as refusal:
            judged = refused(refusal, self._status.finalized.hash)
            return self._answer(judged)
        return self._answer(self._judge(fields, header, payload, deadline))

    def forkchoice_updated(
        self, head: bytes, safe: bytes, finalized: bytes, deadline: Deadline = NEVER
    ) -> ForkchoiceAnswer:
        """Follow a head, make finalized irreversible."""
        checks.check_forkchoice(head, safe, finalized)
        deadline.check("the head moved")
        names = (bytes(head), bytes(safe), bytes(finalized))
        work = partial(self._follow, *names, deadline)
        status = self._write("the head moved", work, deadline)
        return ForkchoiceAnswer(boot_id=self.boot_id, status=status)

    def _follow(
        self, head: bytes, safe: bytes, finalized: bytes, deadline: Deadline
    ) -> ForkchoiceStatus:
        """Do what forkchoice asks, then keep house: on the writer's thread."""
        status, final = self._executor.follow(head, safe, finalized, deadline)
        if final:
            self._indexer.add(final)
            if self._indexer.mutex.acquire(blocking=False):
                try:
                    self._store.maintain()
                finally:
                    self._indexer.mutex.release()
            for text in self._store.take_notices():
                self._report(Notice(text=text))
        return status

    def _admit(self, work: Callable[[], None]) -> None:
        """Run what the pool wants of the writer; whoever waits for it also waits for others."""
        self._write("transactions were admitted", work, NEVER)

    def ask(self, what: str, work: Callable[[Executor], T], deadline: Deadline = NEVER) -> T:
        """Look at the executor on the writer's thread, where nothing changes meanwhile.

        The work may move the state between blocks of the tree, and changes nothing else.
        """
        return self._write(what, partial(work, self._executor), deadline)

    @property
    def backend(self) -> Backend:
        """What hashes and verifies at present; for any thread."""
        return self._executor.chain.state.backend

    # NewPayload

    def _judge(
        self,
        fields: Header,
        header: bytes,
        payload: bytes | memoryview | None,
        deadline: Deadline,
    ) -> Judged:
        """Judge a block, with a second look before INVALID; see spec/engine_api.md#newpayload."""
        # Hashed here, so that the writer may be busy with another call meanwhile. Whether the block
        # is worth it is only guessed: the writer looks properly.
        is_wanted = payload is not None and len(payload) == fields.payload_bytes
        is_wanted = is_wanted and fields.parent_hash in self._executor.chain
        is_wanted = is_wanted and fields.block_hash() not in self._executor.chain
        commitment = None
        timer = StageTimer(before=lambda stage: deadline.check(f"the stage {stage}"))
        if payload is not None and is_wanted:
            announce_payload(self.backend, payload, self._executor.limits)
            with timer.stage("commitment"):
                commitment = payload_commitment(payload)
        work = partial(self._executor.judge, fields, header, payload, commitment, timer, deadline)
        for _ in range(JUDGE_ATTEMPTS):
            found = self._write("execution", work, deadline)
            if isinstance(found, Judged):
                if found.refusal is not None:
                    self._report_invalid(fields, found.refusal, "")
                return found
            judged = self._confirm(found)
            if judged is not None:
                return judged
        raise EngineApiError(ErrorCode.INTERNAL, "the serial arm contradicts itself")

    def _confirm(self, suspect: confirm.Suspect) -> Judged | None:
        """Ask the serial arm; None: it has taken over, and the block is to be judged again."""
        executor = self._executor
        if suspect.arm == "serial":
            said = confirm.Confirmation(
                refusal=suspect.refusal,
                difference="",
                judgements=[confirm.judgement_of("serial", suspect.refusal, None)],
            )
        else:
            with self._confirming:
                said = self._guarded(
                    partial(confirm.confirm, suspect, executor.serial, executor.marks)
                )
        kept_in = self._keep_bad(suspect, said)
        if said.difference:
            work = partial(executor.disable_path, said.difference)
            self._write("the serial arm took over", work, NEVER)
        if said.refusal is None:
            return None
        if suspect.is_own and said.refusal.position is not None:
            work = partial(self._quarantine, suspect, said.refusal.position)
            self._write("a transaction was quarantined", work, NEVER)
        self._report_invalid(suspect.fields, said.refusal, kept_in)
        return refused(said.refusal, suspect.parent.block_hash)

    def _quarantine(self, suspect: confirm.Suspect, position: int) -> None:
        """Never build again with the transaction for which an own build was refused."""
        self._executor.builds.forget(suspect.fields)
        self._builder.quarantine(suspect.payload, position)

    def _keep_bad(self, suspect: confirm.Suspect, said: confirm.Confirmation) -> str:
        """Keep a block that one arm refused; what goes wrong here changes no verdict."""
        try:
            folder = self._bad_blocks.keep(
                height=suspect.fields.height,
                block_hash=suspect.fields.block_hash(),
                header=suspect.header,
                payload=suspect.payload,
                judgements=said.judgements,
            )
        except OSError as error:
            self._report(Notice(text=f"a bad block could not be kept: {error}"))
            return ""
        return str(folder)

    def _report_invalid(self, fields: Header, refusal: InvalidPayload, kept_in: str) -> None:
        self._report(
            BlockInvalid(
                height=fields.height,
                block_hash=fields.block_hash(),
                reason=refusal.reason,
                detail=str(refusal),
                kept_in=kept_in,
            )
        )

    def _answer(self, judged: Judged) -> NewPayloadAnswer:
        is_invalid = judged.verdict is Verdict.INVALID
        assert is_invalid == (judged.refusal is not None), "INVALID has a reason"
        return NewPayloadAnswer(
            boot_id=self.boot_id,
            verdict=judged.verdict,
            reason=judged.refusal.reason if judged.refusal is not None else 0,
            latest_valid_hash=judged.latest_valid_hash,
            detail=judged.detail,
        )

    # Around every call

    def _write(self, what: str, work: Callable[[], T], deadline: Deadline) -> T:
        """Run work on the writer's thread and publish the status that it leaves."""
        return self._writer.call(
            what, partial(self._guarded, partial(self._published, work)), deadline
        )

    def _published(self, work: Callable[[], T]) -> T:
        """Work, then let readers see what it left, also where it was broken off."""
        try:
            return work()
        finally:
            self._executor.trim()
            self._status = self._make_status()
            self.views.publish(self._executor)

    def _guarded(self, work: Callable[[], T]) -> T:
        """Turn what can go wrong into errors of the call; what leaves doubt stops the service."""
        self._check_serving()
        try:
            return work()
        except EngineApiError:
            raise
        except DepthExceeded as error:
            raise EngineApiError(ErrorCode.DEPTH_EXCEEDED, str(error)) from error
        except StoreFull as error:
            raise EngineApiError(ErrorCode.RESOURCE_EXHAUSTED, str(error)) from error
        except BaseException as error:
            self._stop(error)
            raise self._stopped() from error

    def _stop(self, error: BaseException) -> None:
        """Serve nothing more: nobody knows what memory or disk hold after such an error."""
        if not self.failure:
            self.failure = f"the executor has stopped: {type(error).__name__}: {error}"
            self.failed.set()
            self._report(Stopped(why=self.failure))

    def _stopped(self) -> EngineApiError:
        return EngineApiError(ErrorCode.INTERNAL, self.failure)

    def _check_serving(self) -> None:
        if self.failure:
            raise self._stopped()

    def _make_status(self) -> StatusAnswer:
        return status_answer(self._executor, self.boot_id, self._versions)

    def _make_again(self, height: int) -> FinalizedBlock | None:
        """Return what the indexes need of a finalized block, from disk."""
        return self._write("indexing", partial(self._builder.finalized_from_disk, height), NEVER)

    def _block_by_hash(self, name: bytes, known: set[bytes]) -> StoredBlock | None:
        """Return a stored block that is final, or was VALID in this process."""
        stored = self._reading(partial(self._store.block, name))
        if stored is None or name in known or name in self._executor.chain:
            return stored
        is_final = self._reading(partial(self._executor.is_final, stored.height, name))
        return stored if is_final else None

    def _body(self, stored: StoredBlock | None) -> Body:
        payload = None
        if stored is not None:
            payload = self._reading(partial(self._store.payload, stored.block_hash))
        if stored is None or payload is None:
            return Body(boot_id=self.boot_id, header=b"", payload=b"")
        return Body(boot_id=self.boot_id, header=stored.header, payload=payload)

    def _reading(self, work: Callable[[], T]) -> T:
        """Read from the store; damage to what is old is an error of the call alone."""
        try:
            return work()
        except Exception as error:
            self._report(Notice(text=f"a stored block cannot be read: {error}"))
            raise EngineApiError(ErrorCode.INTERNAL, str(error)) from error
