"""One arm of a benchmark: the same payloads through one backend, timed stage by stage.

A repeat begins at the opening state, executes all blocks in order and writes each one's delta to a
file that is synced; then the state is taken back by undoing the changes, which is not timed. A pass
before the repeats warms caches. An arm frees its state before the next begins.
"""

import gc
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from bench.blocks import CHAIN_ID, Workload
from bench.machine import peak_memory_bytes, reset_peak_memory
from bench.workloads import ACCOUNT_MINIMUM, FEE_MINIMUM
from engine.codec import PayloadLimits
from engine.header import Header
from engine.state import State
from engine.transition import (
    BlockContext,
    LedgerRules,
    Outcome,
    StageTimer,
    all_verified,
    announce_payload,
    execute_payload,
)
from engine.types import (
    ZERO_HASH,
    Epoch,
    Hash32,
    Height,
    PublicKey,
    TimestampMs,
)
from kernels.backend import (
    Backend,
    BackendName,
    DeviceSettings,
    DeviceUnavailable,
    open_backend,
)
from kernels.layout import Changes

STAGES = (
    *("decode", "verify", "lookup", "execute", "settle", "hash", "receipts", "state_hash"),
    "commit",
)
ACCOUNTS_MAX = 2**32 - 2
LIMITS = PayloadLimits(bytes=1 << 40, transactions=1 << 30, objects=1 << 30)
"""As wide as any block is."""
DEVICE = DeviceSettings(crossover_transactions=1, crossover_signatures=1, check_blocks=0)
"""The gpu arm does everything on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A backend and how many threads it runs on."""

    backend: BackendName
    threads: int

    @property
    def label(self) -> str:
        """Return the name in tables."""
        return f"cpu x{self.threads}" if self.backend == "cpu" else self.backend


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """What a block came to; two arms that differ in any of it do not match."""

    statuses: bytes
    """BLAKE3 of the (n,) uint8 statuses"""
    receipts_hash: bytes
    state_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRun:
    """The timings and the results of one arm over one workload."""

    arm: Arm
    pass_ns: tuple[int, ...]
    """wall time of each repeat, all blocks, execution and commit"""
    stage_ns: tuple[dict[str, int], ...]
    """the same by stage; keys STAGES"""
    blocks: tuple[BlockResult, ...]
    is_stable: bool
    """whether all repeats gave these blocks, and undoing them gave the opening state"""
    commit_bytes_per_block: int
    resident_bytes_per_account: float
    peak_memory_bytes: int
    """largest size of the process while the arm ran, payloads included"""
    device: dict[str, Any] | None = None
    """what a device did in one more pass, see `device.figures`"""


class Journal:
    """An unnamed file that blocks are appended to and synced, as a store would."""

    def __init__(self, directory: Path) -> None:
        """Open the file in `directory`; it vanishes when closed."""
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - kept open
        self.bytes_written = 0

    def append(self, changes: Changes, header: bytes) -> int:
        """Write a block's delta and header and wait for the disk; answers the bytes written."""
        parts: list[bytes | memoryview] = [
            header,
            *(
                np.ascontiguousarray(array).data.cast("B")
                for array in (
                    changes.slots,
                    changes.balances_after,
                    changes.nonces_after,
                    changes.created_keys,
                )
                if array.size
            ),
        ]
        size = sum(len(part) for part in parts)
        written = os.writev(self._file.fileno(), parts)
        if written != size:
            raise OSError(f"only {written} of {size} bytes of a block were written")
        os.fdatasync(self._file.fileno())
        self.bytes_written += size
        return size

    def rewind(self) -> None:
        """Begin at the start again and drop what was written."""
        self._file.seek(0)
        self._file.truncate()
        self.bytes_written = 0

    def close(self) -> None:
        """Close the file; its blocks go with it."""
        self._file.close()


def run_arm(
    arm: Arm,
    workload: Workload,
    *,
    repeat: int,
    is_signed: bool,
    directory: Path,
    step: Callable[[], None] = lambda: None,
) -> ArmRun:
    """Time one arm; `step` is called after each pass, `repeat` + 1 times.

    `is_signed`: every signature is verified inside the block; otherwise none is looked at.
    On a device payloads lie in pinned memory, and one more pass tells its work apart. Raises
    kernels.backend.DeviceUnavailable, also for a device that fails or differs meanwhile: what the
    CPU did in its stead is no figure of the device. Raises whatever a backend or the disk raises.
    """
    gc.collect()
    reset_peak_memory()
    threads = arm.threads if arm.backend == "cpu" else None
    backend = open_backend(arm.backend, threads, device=DEVICE)
    state = State(
        workload.keys,
        workload.balances,
        None,
        backend=backend,
        capacity=workload.payments.accounts + workload.payments.created + 1,
    )
    journal = Journal(directory)
    runner = _Runner(state, workload, journal, is_signed=is_signed)
    try:
        resident = state.resident_bytes / state.count
        runner.hold_payloads(backend)
        first = runner.run(1 if is_signed else len(workload.payloads))
        step()
        passes = []
        for _ in range(repeat):
            passes.append(runner.run(len(workload.payloads)))
            step()
        figures = runner.device_figures(backend)
        if backend.degraded:
            raise DeviceUnavailable(backend.degraded)
        return ArmRun(
            arm=arm,
            pass_ns=tuple(item.wall_ns for item in passes),
            stage_ns=tuple(item.stage_ns for item in passes),
            blocks=passes[0].blocks,
            is_stable=runner.is_undone
            and all(item.blocks == passes[0].blocks for item in passes)
            and first.blocks == passes[0].blocks[: len(first.blocks)],
            commit_bytes_per_block=passes[0].commit_bytes // len(workload.payloads),
            resident_bytes_per_account=round(resident, 2),
            peak_memory_bytes=peak_memory_bytes(),
            device=figures,
        )
    finally:
        runner.close()
        journal.close()
        backend.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pass:
    wall_ns: int
    stage_ns: dict[str, int]
    blocks: tuple[BlockResult, ...]
    commit_bytes: int


class _Runner:
    """Runs passes over one state and takes each back."""

    def __init__(
        self, state: State, workload: Workload, journal: Journal, *, is_signed: bool
    ) -> None:
        self._state = state
        self._workload = workload
        self._journal = journal
        self._is_verified = None if is_signed else all_verified
        self._opening_hash = state.state_hash()
        self._payloads: Sequence[bytes | memoryview] = workload.payloads
        self._hold_ns = 0
        self._ahead: ThreadPoolExecutor | None = None
        self._announced: Future[None] | None = None
        self.is_undone = True

    def hold_payloads(self, backend: Backend) -> None:
        """Put the payloads where a device takes them from, if the backend has one."""
        if backend.name == "gpu":
            from bench.device import pinned_payload  # needs Numba's part for devices
            from kernels.gpu.backend import GpuBackend

            assert isinstance(backend, GpuBackend), "the name says which backend it is"
            start = time.perf_counter_ns()
            self._payloads = [pinned_payload(backend, item) for item in self._workload.payloads]
            self._hold_ns = time.perf_counter_ns() - start
            self._ahead = ThreadPoolExecutor(1, "ahead")

    def close(self) -> None:
        """End the thread that announces blocks, if there is one."""
        if self._ahead is not None:
            self._ahead.shutdown()

    def _announce(self, index: int, block_count: int) -> None:
        """Let a device copy the next block meanwhile, as a node does when it has arrived."""
        if self._ahead is not None and index < block_count:
            self._announced = self._ahead.submit(
                announce_payload, self._state.backend, self._payloads[index], LIMITS
            )

    def device_figures(self, backend: Backend) -> dict[str, Any] | None:
        """Run once more with a meter in the device, if the backend has one."""
        if backend.name != "gpu" or backend.degraded:
            return None
        from bench.device import bandwidths, figures
        from kernels.gpu.backend import GpuBackend

        assert isinstance(backend, GpuBackend), "the name says which backend it is"
        copies = bandwidths(backend.device)
        backend.device.meter = backend.device.new_meter()
        self.run(len(self._payloads))
        count = self._workload.payments.per_block * len(self._payloads)
        return figures(backend.device, copies, count, self._hold_ns)

    def run(self, block_count: int) -> _Pass:
        """Execute the first `block_count` blocks, then undo them."""
        timer = StageTimer()
        wall_ns = commit_ns = 0
        blocks: list[BlockResult] = []
        changes: list[Changes] = []
        self._journal.rewind()
        gc.collect()
        gc.disable()
        try:
            for height, payload in enumerate(self._payloads[:block_count], start=1):
                start = time.perf_counter_ns()
                self._announce(height, block_count)
                outcome = execute_payload(
                    self._state,
                    payload,
                    block_context(self._workload, height),
                    timer=timer,
                    is_verified=self._is_verified,
                )
                executed = time.perf_counter_ns()
                header = _header(self._workload, height, payload, outcome)
                self._journal.append(outcome.changes, header)
                stop = time.perf_counter_ns()
                wall_ns += stop - start
                commit_ns += stop - executed
                changes.append(outcome.changes)
                blocks.append(block_result(outcome))
        finally:
            gc.enable()
        if self._announced is not None:
            self._announced.result()
        commit_bytes = self._journal.bytes_written
        self._state.undo(changes[::-1])
        self.is_undone &= self._state.state_hash() == self._opening_hash
        stages = {name: timer.ns.get(name, 0) for name in STAGES} | {"commit": commit_ns}
        return _Pass(
            wall_ns=wall_ns, stage_ns=stages, blocks=tuple(blocks), commit_bytes=commit_bytes
        )


def first_difference(expected: ArmRun, run: ArmRun) -> str | None:
    """Say what a run got otherwise than `expected`, or None if it got the same."""
    if not run.is_stable:
        return "its own repeats differ, or undoing a block did not restore the state"
    for height, (wanted, got) in enumerate(zip(expected.blocks, run.blocks, strict=True), start=1):
        for name in ("statuses", "receipts_hash", "state_hash"):
            if getattr(wanted, name) != getattr(got, name):
                return f"{name} of block {height} differs from the {expected.arm.label} arm"
    return None


def block_context(workload: Workload, height: int) -> BlockContext:
    """Return what the block at `height` is executed under; limits as wide as the blocks are."""
    return BlockContext(
        chain_id=CHAIN_ID,
        height=height,
        fee_recipient=workload.fee_recipient,
        transaction_domain=workload.transaction_domain,
        rules=LedgerRules(
            fee_minimum=FEE_MINIMUM, account_minimum=ACCOUNT_MINIMUM, accounts_max=ACCOUNTS_MAX
        ),
        limits=LIMITS,
    )


def block_result(outcome: Outcome) -> BlockResult:
    """Return what must be the same on every arm."""
    statuses = np.ascontiguousarray(outcome.statuses, np.uint8)
    return BlockResult(
        statuses=blake3.blake3(statuses.data).digest(),
        receipts_hash=outcome.receipts_hash,
        state_hash=outcome.state_hash,
    )


def _header(
    workload: Workload, height: int, payload: bytes | memoryview, outcome: Outcome
) -> bytes:
    """Return the 400 bytes that are stored; what consensus would fill in stays zero."""
    return Header(
        chain_id=CHAIN_ID,
        epoch=Epoch(0),
        height=Height(height),
        parent_hash=Hash32(workload.genesis_hash),
        timestamp_ms=TimestampMs(height),
        proposer=PublicKey(ZERO_HASH),
        fee_recipient=PublicKey(workload.fee_recipient),
        validator_set_id=ZERO_HASH,
        payload_commitment=ZERO_HASH,
        payload_bytes=len(payload),
        transaction_count=len(outcome.statuses),
        transactions_root=Hash32(outcome.transactions_root),
        state_hash=Hash32(outcome.state_hash),
        receipts_hash=Hash32(outcome.receipts_hash),
    ).encode()
