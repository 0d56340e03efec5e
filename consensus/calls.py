"""Calls of the executor: a thread per kind of call, a deadline each, exactly one end.

A call ends by its answer, its error, or its deadline, whichever comes first; what comes after is
dropped. Calls start in the order of their ids, wherever they come from: one that stands behind a
sync holds the later ones back until it is there. Spec: spec/engine_api.md, spec/consensus.md#shell.
"""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from consensus.core import events as ev
from consensus.core.codec import encode_header
from consensus.core.execution import CALLS_MAX
from consensus.core.types import BootId, Hash32, Height, PublicKey, Validator
from consensus.waiting import NS_PER_MS, seconds
from engine_api import types as api
from engine_api.protocol import Deadline, ExecutionEngine

KINDS = (ev.GetStatus, ev.GetPayload, ev.NewPayload, ev.ForkchoiceUpdated, ev.GetValidatorSet)
assert len(KINDS) == CALLS_MAX
STOP_MAX_MS = 1_000
"""that a stop waits for calls that run; their threads end with the process"""
_VERDICTS = {
    api.Verdict.VALID: ev.Verdict.VALID,
    api.Verdict.INVALID: ev.Verdict.INVALID,
    api.Verdict.SYNCING: ev.Verdict.SYNCING,
    api.Verdict.MALFORMED: ev.Verdict.MALFORMED,
}
Reply = tuple[bytes, ev.Answer, bytes | None]
"""boot_id, answer, and the bytes of a payload that was built"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a call came to, for metrics."""

    kind: str
    outcome: str
    """`answered`, or the name of the error"""
    took_ms: int
    why: str = ""
    """the executor's own words, where it gave any"""


class Calls:
    """The threads, and the calls that are open."""

    def __init__(
        self,
        *,
        engine: ExecutionEngine,
        key: PublicKey | None,
        hold: Callable[[Hash32, bytes], None],
        get: Callable[[Hash32], bytes | None],
        on_event: Callable[[ev.Answered | ev.CallFailed], None],
        on_ended: Callable[[Ended], None],
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        """Prepare. `key`: the own one; `hold`, `get`: bytes of a payload by its commitment."""
        self._engine, self._key = engine, key
        self._hold, self._get = hold, get
        self._on_event, self._on_ended, self._on_failure = on_event, on_ended, on_failure
        self._lock = threading.Lock()
        self._early: dict[int, ev.Call] = {}
        self._next_id = 1
        self._open: dict[int, tuple[ev.Call, int]] = {}
        """id -> (call, start in ns of the monotonic clock)"""
        self._queues: dict[type, queue.SimpleQueue[ev.Call | None]] = {
            kind: queue.SimpleQueue() for kind in KINDS
        }
        self._threads = [
            threading.Thread(target=self._run, args=(kind,), name=kind.__name__, daemon=True)
            for kind in KINDS
        ]
        self.boot_id: bytes | None = None
        """of the executor that answered last"""
        self.is_connected = False
        """whether the last call was answered by somebody"""
        self.finalized_hash: bytes | None = None
        """of the executor, by its last status or the last forkchoice that it took"""

    def start(self) -> None:
        """Begin to take calls."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more; what runs is left to end with its connection or the process."""
        for waiting in self._queues.values():
            waiting.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join(seconds(STOP_MAX_MS))

    def __len__(self) -> int:
        """Count the calls that are open."""
        return len(self._open)

    def make(self, call: ev.Call) -> None:
        """Start a call as soon as all calls with lower ids have started."""
        with self._lock:
            self._early[call.call_id] = call
            assert len(self._early) <= CALLS_MAX, "the core has at most so many open"
            while (due := self._early.pop(self._next_id, None)) is not None:
                self._next_id += 1
                self._open[due.call_id] = (due, time.monotonic_ns())
                self._queues[type(due.request)].put(due)

    def expire(self) -> int | None:
        """End the calls whose deadline has passed; return in how many ms the next one does."""
        now_ns = time.monotonic_ns()
        late, next_ms = [], None
        with self._lock:
            for call, start_ns in self._open.values():
                left_ms = call.timeout_ms - (now_ns - start_ns) // NS_PER_MS
                if left_ms <= 0:
                    late.append(call)
                elif next_ms is None or left_ms < next_ms:
                    next_ms = left_ms
        for call in late:
            self._fail(call, ev.CallError.DEADLINE_EXCEEDED)
        return next_ms

    # --- one thread per kind ----------------------------------------------------------------------

    def _run(self, kind: type) -> None:
        waiting = self._queues[kind]
        try:
            while (call := waiting.get()) is not None:
                self._perform(call)
        except BaseException as error:
            self._on_failure(kind.__name__, error)

    def _perform(self, call: ev.Call) -> None:
        with self._lock:
            entry = self._open.get(call.call_id)
        if entry is None:
            return  # ended by its deadline while the one before it hung
        deadline = Deadline(entry[1] + call.timeout_ms * NS_PER_MS)
        try:
            boot_id, answer, payload = self._ask(call.request, deadline)
        except api.EngineApiError as error:
            code = ev.CallError(error.code)
            self.is_connected = code not in (
                ev.CallError.UNAVAILABLE,
                ev.CallError.DEADLINE_EXCEEDED,
            )
            self._fail(call, code, error.sentence)
            return
        self.is_connected, self.boot_id = True, boot_id
        if self._end(call, "answered"):
            if payload is not None and isinstance(answer, ev.PayloadBuilt):
                self._hold(answer.payload_commitment, payload)  # before anybody is told of it
            event = ev.Answered(call_id=call.call_id, boot_id=BootId(boot_id), answer=answer)
            self._on_event(event)

    def _fail(self, call: ev.Call, error: ev.CallError, why: str = "") -> None:
        if self._end(call, error.name, why):
            self._on_event(ev.CallFailed(call_id=call.call_id, error=error))

    def _end(self, call: ev.Call, outcome: str, why: str = "") -> bool:
        """Close a call; False when it was closed before: then nothing is said of it."""
        with self._lock:
            entry = self._open.pop(call.call_id, None)
        if entry is None:
            return False
        took_ms = (time.monotonic_ns() - entry[1]) // NS_PER_MS
        kind = type(call.request).__name__
        self._on_ended(Ended(kind=kind, outcome=outcome, took_ms=took_ms, why=why))
        return True

    # --- the five calls ---------------------------------------------------------------------------

    def _ask(self, request: ev.CallRequest, deadline: Deadline) -> Reply:
        """Return boot_id, answer and the payload of a build; raises EngineApiError."""
        if isinstance(request, ev.GetPayload):
            return self._get_payload(request, deadline)
        if isinstance(request, ev.NewPayload):
            judged = self._new_payload(request, deadline)
            verdict = ev.PayloadJudged(verdict=_VERDICTS[judged.verdict], reason=judged.reason)
            return judged.boot_id, verdict, None
        if isinstance(request, ev.ForkchoiceUpdated):
            told = self._engine.forkchoice_updated(
                request.head, request.safe, request.finalized, deadline
            )
            is_ok = told.status == api.ForkchoiceStatus.OK
            if is_ok:
                self.finalized_hash = request.finalized
            return told.boot_id, ev.ForkchoiceDone() if is_ok else ev.ExecutorSyncing(), None
        if isinstance(request, ev.GetValidatorSet):
            found = self._engine.validator_set(request.epoch, deadline)
            validators = tuple(
                Validator(public_key=PublicKey(one.key), power=one.power)
                for one in found.validators
            )
            return found.boot_id, ev.ValidatorsOf(validators=validators), None
        return self._get_status(deadline)

    def _new_payload(self, request: ev.NewPayload, deadline: Deadline) -> api.NewPayloadAnswer:
        """Stream what is held; not what the executor has built itself, unless it lost it."""
        header = encode_header(request.header)
        payload = self._get(request.header.payload_commitment)
        if payload is not None and request.header.proposer == self._key:
            try:
                return self._engine.new_payload(header, None, deadline)
            except api.EngineApiError as error:
                if error.code != api.ErrorCode.PAYLOAD_NOT_HELD:
                    raise
        return self._engine.new_payload(header, payload, deadline)

    def _get_status(self, deadline: Deadline) -> Reply:
        status = self._engine.get_status(deadline)
        self.finalized_hash = status.finalized.hash
        answer = ev.ExecutorStatus(
            genesis_hash=Hash32(status.genesis_hash),
            params_hash=Hash32(status.params_hash),
            finalized_height=Height(status.finalized.height),
            finalized_hash=Hash32(status.finalized.hash),
            unfinalized=tuple(
                (Height(block.height), Hash32(block.hash)) for block in status.unfinalized
            ),
        )
        return status.boot_id, answer, None

    def _get_payload(self, request: ev.GetPayload, deadline: Deadline) -> Reply:
        answer = self._engine.get_payload(
            api.PayloadRequest(
                parent_hash=request.parent_hash,
                height=request.height,
                limits=api.Limits(
                    bytes=request.payload_bytes_max,
                    transactions=request.transactions_max,
                    objects=request.objects_max,
                ),
                attributes=api.Attributes(
                    timestamp_ms=request.timestamp_ms, fee_recipient=request.fee_recipient
                ),
                wait_ms=request.wait_ms,
            ),
            deadline,
        )
        built = answer.built
        if built is None:
            return answer.boot_id, ev.ExecutorSyncing(), None
        made = ev.PayloadBuilt(
            payload_commitment=Hash32(built.payload_commitment),
            payload_bytes=built.payload_bytes,
            transaction_count=built.transaction_count,
            transactions_root=Hash32(built.transactions_root),
            state_hash=Hash32(built.state_hash),
            receipts_hash=Hash32(built.receipts_hash),
        )
        return answer.boot_id, made, bytes(built.payload)
