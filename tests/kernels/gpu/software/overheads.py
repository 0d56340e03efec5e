"""What blocks on a device cost the host: launches, waits, copies, and Python around them.

    .venv-gpu/bin/python -m tests.kernels.gpu.software.overheads [--transactions N,...]

The software device does its work on another thread; what is counted is the processor time of the
thread that executes blocks, which is what the host would spend beside any device: arguments of
launches, the backend, the ledger. A real driver's calls cost more than this one's, so
these are figures of the Python side alone. Nothing is written, no signature is looked at.
"""

import gc
import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import click
import numpy as np

from tests.kernels.gpu.compiled import KERNELS
from tests.kernels.gpu.software.install import Counts, SoftwareDevice, install

ACCOUNTS: Final = 1_000_000
BLOCKS: Final = 3
"""per size; one pass before them compiles and allocates"""
PASSES: Final = 3
"""over them; the one that costs the host least counts, since others may use its cores"""
LAUNCHES: Final = 1_000
"""of a kernel that does nothing, to time one"""
NOTHING: Final = ("prefix.fill_u32", "tree.hash_changed", "walks.walk_short")
"""what is launched to time a launch"""
WAITS: Final = ("wait", "wait_for", "wait_for_fetched")
METHODS: Final = ("copy_in", "begin_fetch", "begin_fetch_beside", "zero", "empty", *WAITS)
"""of `Device`, beside `launch_blocks`, whose time is told apart"""


@dataclass(slots=True)
class Part:
    """Calls of one kind."""

    arguments: int = 0
    calls: int = 0
    host_ns: int = 0


@dataclass(slots=True)
class Probe:
    """Takes the time of the device's methods, less what the software device spent executing."""

    device: SoftwareDevice
    parts: dict[str, Part] = field(default_factory=dict)
    depth: int = 0

    def attach(self, owner: Any) -> None:
        """Stand in front of a `kernels.gpu.device.Device`."""
        launch_blocks = owner.launch_blocks

        def launch(kernel: Any, blocks: int, *arguments: Any) -> None:
            self.timed(
                f"launch {kernel.__name__}", len(arguments), launch_blocks, kernel, blocks,
                *arguments,
            )  # fmt: skip

        owner.launch_blocks = launch
        for name in METHODS:
            self._attach_one(owner, name)

    def _attach_one(self, owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def call(*given: Any, **named: Any) -> Any:
            return self.timed(name, 0, method, *given, **named)

        setattr(owner, name, call)

    def taken(self) -> dict[str, Part]:
        """Return what came together so far, and begin again."""
        parts, self.parts = self.parts, {}
        return parts

    def timed(
        self, name: str, arguments: int, what: Callable[..., Any], *given: Any, **named: Any
    ) -> Any:
        """Call something; calls within calls count for the outermost."""
        self.depth += 1
        start = time.thread_time_ns()
        try:
            return what(*given, **named)
        finally:
            passed = time.thread_time_ns() - start
            self.depth -= 1
            if not self.depth:
                part = self.parts.setdefault(name, Part(arguments))
                part.calls += 1
                part.host_ns += passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """Of one size of blocks, all blocks together."""

    transactions: int
    """per block"""
    blocks: int
    host_ns: int
    """of the thread that executes blocks; waiting is none of it"""
    execution_ns: int
    counts: dict[str, int]
    parts: dict[str, Part]

    @property
    def waiting_ns(self) -> int:
        """Of `host_ns`: what the software device spins through."""
        return sum(self.parts[name].host_ns for name in WAITS if name in self.parts)


def measure(device: SoftwareDevice, transactions: int, accounts: int, blocks: int) -> Overheads:
    """Execute blocks of `uniform` several times; the quickest pass behind the first counts."""
    from bench.arms import DEVICE, block_context
    from bench.blocks import build
    from bench.device import pinned_payload
    from bench.workloads import synthetic
    from engine.state import State
    from engine.transition import all_verified, execute_payload
    from kernels.backend import open_backend
    from kernels.gpu.backend import GpuBackend

    payments = synthetic(
        "uniform", accounts=accounts, per_block=transactions, blocks=blocks, seed=1
    )
    workload = build(payments, seed=1, is_signed=False)
    backend = open_backend("gpu", device=DEVICE)
    assert isinstance(backend, GpuBackend), "the name says which backend it is"
    capacity = accounts + payments.created + 1
    state = State(workload.keys, workload.balances, None, backend=backend, capacity=capacity)
    payloads = [pinned_payload(backend, payload) for payload in workload.payloads]
    probe = Probe(device)

    def run() -> Overheads:
        changes = []
        start, before = time.thread_time_ns(), device.counts()
        for height, payload in enumerate(payloads, start=1):
            context = block_context(workload, height)
            outcome = execute_payload(state, payload, context, is_verified=all_verified)
            changes.append(outcome.changes)
        stop, after, parts = time.thread_time_ns(), device.counts(), probe.taken()
        state.undo(changes[::-1])
        probe.taken()
        counts = {
            name: getattr(after, name) - getattr(before, name)
            for name in Counts.__dataclass_fields__
        }
        return Overheads(
            transactions=transactions, blocks=blocks, host_ns=stop - start,
            execution_ns=counts["execution_ns"], counts=counts, parts=parts,
        )  # fmt: skip

    run()
    probe.attach(backend.device)
    gc.collect()
    gc.disable()
    found = min((run() for _ in range(PASSES)), key=lambda one: one.host_ns - one.waiting_ns)
    gc.enable()
    assert not backend.degraded, backend.degraded
    backend.close()
    return found


def floors() -> None:
    """Print what a launch costs that nothing executes and nothing else comes between."""
    from numba import cuda

    from kernels.gpu.arrays import DeviceArray
    from kernels.gpu.device import Device
    from kernels.gpu.grid import THREADS

    owner, stream = Device(1 << 20), cuda.stream()
    for name in NOTHING:
        module, function = name.split(".")
        kernel = getattr(importlib.import_module(f"kernels.gpu.{module}"), function)
        arguments = [_nothing(owner, letters) for letters in KERNELS[name].split()]
        arrays = sum(isinstance(item, DeviceArray) for item in arguments)
        owner.launch_blocks(kernel, 1, *arguments)
        owner.wait()
        start = time.perf_counter_ns()
        for _ in range(LAUNCHES):
            owner.launch_blocks(kernel, 1, *arguments)
        through = time.perf_counter_ns()
        owner.wait()
        configured = kernel[1, THREADS, stream]
        arguments = [
            cuda.device_array(item.shape, item.dtype) if isinstance(item, DeviceArray) else item
            for item in arguments
        ]
        again = time.perf_counter_ns()
        for _ in range(LAUNCHES):
            configured(*arguments)
        bare = time.perf_counter_ns()
        stream.synchronize()
        click.echo(
            f"{function}, {arrays} arrays of nothing and {len(arguments) - arrays} numbers:"
            f" {(through - start) / LAUNCHES / 1e3:.1f} us through Device.launch_blocks,"
            f" {(bare - again) / LAUNCHES / 1e3:.1f} us as Numba launches it"
        )
    start = time.perf_counter_ns()
    for _ in range(LAUNCHES):
        cuda.current_context()
    stop = time.perf_counter_ns()
    click.echo(f"cuda.current_context(): {(stop - start) / LAUNCHES / 1e3:.1f} us")
    owner.close()


def _nothing(owner: Any, letters: str) -> Any:
    """Return an empty array, or zero, of a type of `compiled.KERNELS`."""
    kinds = {"b": np.uint8, "i": np.int32, "w": np.uint32, "q": np.uint64, "l": np.int64}
    kinds |= {"L": np.int64, "Q": np.uint64, "W": np.uint32}
    kind: Any = kinds[letters[0]]
    if letters in "LQW":
        return kind(0)
    return owner.empty((8,) * len(letters), kind)[:0]


def show(found: Overheads) -> None:
    """Print one size of blocks, everything per block."""
    blocks, counts = found.blocks, found.counts
    known_ns = sum(part.host_ns for part in found.parts.values()) - found.waiting_ns
    host_ns = found.host_ns - found.waiting_ns
    click.echo(
        f"\n{found.transactions:,} transactions per block, {blocks} blocks; per block:\n"
        f"  {counts['launches'] / blocks:.1f} launches, {counts['waits'] / blocks:.1f} waits,"
        f" {counts['copies_in'] / blocks:.1f} copies in of {counts['bytes_in'] / blocks:,.0f} bytes"
        f" ({counts['bytes_staged'] / blocks:,.0f} from pageable memory),"
        f" {counts['copies_out'] / blocks:.1f} back of {counts['bytes_out'] / blocks:,.0f},"
        f" {counts['copies_within'] / blocks:.1f} within, {counts['memsets'] / blocks:.1f} memsets,"
        f" {counts['allocations'] / blocks:.1f} allocations,"
        f" {counts['pinned_allocations'] / blocks:.1f} of locked pages\n"
        f"  host {host_ns / blocks / 1e6:.3f} ms beside its waits"
        f" ({host_ns / blocks / found.transactions:.1f} ns/tx), of it"
        f" {known_ns / blocks / 1e6:.3f} ms in calls of the device"
        f" (the software device executed for {found.execution_ns / blocks / 1e6:.1f} ms)"
    )
    rows = sorted(found.parts.items(), key=lambda item: -item[1].host_ns)
    click.echo(f"  {'':28} {'calls':>7} {'arguments':>9} {'us/call':>9} {'us/block':>9}")
    for name, part in rows:
        click.echo(
            f"  {name:28} {part.calls / blocks:7.1f} {part.arguments or '':>9}"
            f" {part.host_ns / part.calls / 1e3:9.1f} {part.host_ns / blocks / 1e3:9.1f}"
        )


@click.command()
@click.option("--transactions", default="10000,100000,1000000", show_default=True, metavar="N,...")
@click.option("--accounts", type=click.IntRange(2), default=ACCOUNTS, show_default=True)
@click.option("--blocks", type=click.IntRange(1), default=BLOCKS, show_default=True)
def main(transactions: str, accounts: int, blocks: int) -> None:
    """Measure what the host spends on blocks beside a device."""
    device = install("late", seed=0)
    device.set_memory(16 << 30)
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    device.use_helper()
    os.sched_setaffinity(0, cores)
    floors()
    for size in map(int, transactions.split(",")):
        show(measure(device, size, accounts, blocks))


if __name__ == "__main__":
    main()
