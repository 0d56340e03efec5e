"""The pool between the service's threads: batches in, head moves in, the file at start and end.

A batch is checked and its signatures are verified on the thread that brings it. Whether its
accounts can pay is judged on the writer's thread, where the state stands still; batches that wait
for it meanwhile are judged together in one turn, so that blocks and batches cannot push each other
out of the writer's queue. Read `mempool.py` for the rules. Spec: spec/engine_api.md#submit.
"""

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from engine.chain import Node
from engine.codec import decode_payload
from engine.columns import to_records
from engine.constants import TRANSACTION_BYTES
from engine.events import Notice, Report
from engine.executor import Executor
from engine.mempool import Listener, Mempool
from engine.pool_accounts import Route, count_at, read_at, read_slots_below, route
from engine.pool_admission import Admission
from engine.pool_file import POOL_FILE_NAME, PoolFileRefused, read_pool, remove_pool, write_pool
from engine.pool_rules import (
    BATCH_MAX,
    TRANSACTIONS_MAX,
    Checked,
    Move,
    PoolAnswer,
    PoolLimits,
    PoolReason,
    PoolStatus,
    room_for_accounts,
)
from engine.recent_blocks import RecentBlocks
from engine.writer import POLL_MS, seconds
from engine_api.protocol import NS_PER_MS
from engine_api.types import EngineApiError, ErrorCode, SubmitResult
from kernels.layout import U8

BATCHES_MAX = 64
"""Batches that wait for the writer; as many as a server lets in."""
SECRET_BYTES = 64

OnWriter = Callable[[Callable[[], None]], None]
"""Runs a function on the writer's thread and returns when it has run, or raises."""


def wall_clock_ms() -> int:
    """Return milliseconds since 1970, for the times of outcomes."""
    return time.time_ns() // NS_PER_MS


class _Waiting:
    """A checked batch on its way to the writer."""

    __slots__ = ("batch", "codes", "done", "error")

    def __init__(self, batch: Checked) -> None:
        self.batch = batch
        self.codes = batch.codes
        self.done = threading.Event()
        self.error: BaseException | None = None


def _fail(batches: list[_Waiting], error: BaseException) -> None:
    """Let everybody whose batch is not judged yet know why it will not be."""
    for waiting in batches:
        if not waiting.done.is_set():
            waiting.error = error
            waiting.done.set()


class PoolKeeper:
    """Owns the pool of one executor."""

    def __init__(
        self,
        executor: Executor,
        *,
        report: Report,
        limits: PoolLimits | None = None,
        listener: Listener | None = None,
        clock_ms: Callable[[], int] = wall_clock_ms,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Stand at the executor's head with an empty pool, and follow it from now on."""
        head = executor.chain.node(executor.head)
        self.pool = Mempool(
            rules=executor.rules,
            height=head.height,
            secret=secrets.token_bytes(SECRET_BYTES),
            limits=limits,
            listener=listener,
            since_ms=clock_ms(),
        )
        self.recent = RecentBlocks()
        self._executor = executor
        self._admission = Admission(
            self.pool,
            chain_id=executor.chain_id,
            domain=executor.domain,
            backend=lambda: executor.chain.state.backend,
            marks=executor.marks,
        )
        self._report = report
        self._clock_ms = clock_ms
        self._clock_ns = clock_ns
        self._head = head.block_hash
        self._condition = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._is_called = False
        """whether the writer is about to take what waits"""
        self._is_full = False
        """whether what waits was looked through since accounts have no room"""
        executor.ensure(executor.head)
        for node in route(executor.chain, executor.chain.finalized, head).done:
            self._remember(node)
        executor.moved = self._moved

    def __len__(self) -> int:
        """Count the transactions that wait."""
        return len(self.pool)

    # Batches

    def admit(self, batch: bytes | memoryview, on_writer: OnWriter) -> U8:
        """Take records of 192 bytes; return a PoolReason for each, (n,) uint8.

        Raises RESOURCE_EXHAUSTED when too many batches wait, and what `on_writer` raises.
        """
        checked = self._admission.check(batch)
        if not (checked.codes == PoolReason.ACCEPTED).any():
            return checked.codes
        waiting = _Waiting(checked)
        with self._condition:
            if len(self._waiting) >= BATCHES_MAX:
                raise EngineApiError(
                    ErrorCode.RESOURCE_EXHAUSTED,
                    f"{BATCHES_MAX} batches wait already: send it again later",
                )
            self._waiting.append(waiting)
            is_caller, self._is_called = not self._is_called, True
        if is_caller:
            try:
                on_writer(self._take_waiting)
            except BaseException as error:
                self._give_up(error)
        waiting.done.wait()
        if waiting.error is not None:
            raise waiting.error
        with self._condition:
            self._condition.notify_all()
        return waiting.codes

    def submit(self, batch: bytes | memoryview, on_writer: OnWriter) -> bytes:
        """Take records; return a SubmitResult for each."""
        codes = self.admit(batch, on_writer)
        results = np.full(len(codes), SubmitResult.REFUSED, np.uint8)
        results[codes == PoolReason.POOL_FULL] = SubmitResult.QUEUE_FULL
        is_taken = (codes == PoolReason.ACCEPTED) | (codes == PoolReason.DUPLICATE)
        results[is_taken] = SubmitResult.QUEUED
        return results.tobytes()

    def wait(self, timeout_ms: int, is_over: Callable[[], bool] = bool) -> None:
        """Return as soon as something can be built with, or nobody waits, or after the time."""
        end_ns = self._clock_ns() + timeout_ms * NS_PER_MS
        with self._condition:
            while not self.pool.ready_count:
                left_ns = end_ns - self._clock_ns()
                if left_ns <= 0 or is_over():
                    return
                self._condition.wait(seconds(min(POLL_MS, left_ns // NS_PER_MS + 1)))

    def _take_waiting(self) -> None:
        """Judge all batches that wait; on the writer's thread."""
        with self._condition:
            batches = list(self._waiting)
            self._waiting.clear()
            self._is_called = False
        chain = self._executor.chain
        try:
            head = chain.node(self._head)
            is_full = self._is_full_at(count_at(chain, head))
            for waiting in batches:
                batch = waiting.batch
                read = read_at(chain, head, np.concatenate([batch.senders, batch.recipients]))
                now_ms = self._clock_ms()
                waiting.codes = self.pool.add(batch, read, now_ms=now_ms, is_full=is_full)
                waiting.done.set()
        except BaseException as error:
            _fail(batches, error)
            raise

    def _give_up(self, error: BaseException) -> None:
        """Let everybody who waits know that the writer cannot be had."""
        with self._condition:
            batches = list(self._waiting)
            self._waiting.clear()
            self._is_called = False
        _fail(batches, error)

    # The head

    def _moved(self, top: Node) -> None:
        """Follow the executor, whose state stands on its new head or above; on its thread."""
        chain = self._executor.chain
        if top.block_hash == self._head:
            return
        if self._head in chain:
            if chain.missing(self._head):
                self._executor.ensure(self._head)
                chain.switch(top.block_hash)
            way = route(chain, chain.node(self._head), top)
        else:
            way = Route(undone=[], done=[])
        move = self._move(way, top, is_refresh=self._head not in chain)
        self.pool.follow(move, now_ms=self._clock_ms())
        self._follow_room(top, len(move.returned) > 0)
        for node in way.undone:
            self.recent.remove(node.block_hash)
        for node in way.done:
            self._remember(node)
        self._head = top.block_hash

    def _is_full_at(self, count: int) -> bool:
        """Say whether no payload creates an account where there are so many."""
        return not room_for_accounts(self._executor.rules.accounts_max, count)

    def _follow_room(self, top: Node, has_returned: bool) -> None:
        """Let go what needs an account that cannot be, once, when the room has come to an end."""
        chain = self._executor.chain
        is_full, was_full = self._is_full_at(count_at(chain, top)), self._is_full
        self._is_full = is_full
        if is_full and (has_returned or not was_full):
            self.pool.drop_creating(
                lambda keys: read_at(chain, top, keys).exists, now_ms=self._clock_ms()
            )

    def _move(self, way: Route, top: Node, *, is_refresh: bool) -> Move:
        """Return what the pool must know of a way; is_refresh: ask for every sender anew."""
        chain = self._executor.chain
        undone = [chain.outcome(node.block_hash) for node in way.undone[::-1]]
        done = [chain.outcome(node.block_hash) for node in way.done]
        outcomes = [*undone, *done]
        slots = np.concatenate([np.empty(0, np.uint32), *(item.changes.slots for item in outcomes)])
        keys = self.pool.sender_keys()
        if is_refresh or len(keys) < len(slots):
            read = read_at(chain, top, keys)
        else:
            keys, present = read_slots_below(
                chain, top, slots[slots < np.uint32(count_at(chain, top))]
            )
            gone = np.concatenate([keys[:0], *(item.changes.created_keys for item in undone)])
            read = present.followed_by(read_at(chain, top, gone))
            keys = np.concatenate([keys, gone])
        nothing = np.empty((0, 32), np.uint8)
        returned = [np.empty((0, TRANSACTION_BYTES), np.uint8)]
        returned += [self._records_of(node) for node in way.undone[::-1]]
        records = np.concatenate(returned)
        return Move(
            height=top.height,
            included=np.concatenate([nothing, *(item.transaction_hashes for item in done)]),
            returned=records,
            returned_hashes=np.concatenate(
                [nothing, *(item.transaction_hashes for item in undone)]
            ),
            returned_accounts=read_at(chain, top, np.ascontiguousarray(records[:, 64:96])),
            keys=keys,
            accounts=read,
        )

    def _records_of(self, node: Node) -> U8:
        payload = self._executor.store.payload(node.block_hash)
        assert payload is not None, "payloads above finalized are never pruned"
        return to_records(decode_payload(payload, self._executor.limits).columns)

    def _remember(self, node: Node) -> None:
        hashes = self._executor.chain.outcome(node.block_hash).transaction_hashes
        self.recent.add(node.block_hash, node.height, hashes)

    # Questions and the quarantine

    def quarantine(self, transaction_hash: bytes) -> None:
        """Refuse a transaction from now on: the serial arm found that it may not be included."""
        self.pool.quarantine(transaction_hash, now_ms=self._clock_ms())

    def status_of(self, transaction_hash: bytes) -> PoolAnswer:
        """Return what pool and chain know of a transaction; final ones by the store's index."""
        answer = self.pool.status_of(transaction_hash)
        if answer.status is PoolStatus.PENDING:
            return answer
        found = self.recent.find(transaction_hash)
        height = None if found is None else found.height
        if height is None:
            place = self._executor.store.find_transaction(transaction_hash)
            height = None if place is None else place.height
        if height is None:
            return answer
        is_final = height <= self._executor.chain.finalized.height
        return PoolAnswer(
            status=PoolStatus.FINALIZED if is_final else PoolStatus.INCLUDED,
            reason=PoolReason.INCLUDED,
            covered_from_ms=answer.covered_from_ms,
        )

    # The file

    def load(self, on_writer: OnWriter) -> None:
        """Take in what waited when the last process ended, as if it were sent again.

        It may have had a larger pool: of what comes the best stay, as of any batches.
        """
        store = self._executor.store
        folder = store.home
        path = folder / POOL_FILE_NAME
        try:
            most = max(len(self.pool.marks), TRANSACTIONS_MAX + BATCH_MAX)
            records = read_pool(path, store.genesis_hash, most)
        except (PoolFileRefused, OSError) as error:
            self._report(Notice(text=f"the pool starts empty: {error}"))
            records = np.empty((0, TRANSACTION_BYTES), np.uint8)
        for start in range(0, len(records), BATCH_MAX):
            self.admit(records[start : start + BATCH_MAX].tobytes(), on_writer)
        if len(records):
            self._report(Notice(text=f"{len(self)} of {len(records)} transactions wait again"))
        remove_pool(path)

    def save(self) -> None:
        """Write what waits for the next process."""
        store = self._executor.store
        records = self.pool.records()
        if not len(records):
            return
        try:
            folder = store.home
            write_pool(folder / POOL_FILE_NAME, store.genesis_hash, records)
        except OSError as error:
            self._report(Notice(text=f"{len(records)} waiting transactions are lost: {error}"))
