"""From disk to a chain that stands where the last process left it.

The finalized state comes from the newest good snapshot and the deltas after it; the stored blocks
above it are executed again, parents first, every signature verified, since a block may have been
written by a process that died before it had judged it. Spec: spec/storage.md#recovery.
"""

import contextlib
import time
from collections.abc import Callable

from engine import confirm
from engine.events import Notice, Recovered, Report
from engine.executor import Executor, open_chain
from engine.store.errors import StoreFull
from engine.store.store import Store
from engine.verified import VerifiedMarks
from engine_api.types import Verdict
from kernels.backend import Backend


def recover(
    store: Store,
    backend: Backend,
    *,
    serial: Backend,
    marks: VerifiedMarks,
    report: Report,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Executor:
    """Return an executor that stands where the store does, with all stored blocks executed."""
    start_ns = clock_ns()
    chain, base_height = open_chain(store, backend)
    executor = Executor(store, chain, marks=marks, serial=serial, report=report, clock_ns=clock_ns)
    executed = sum(_replay(executor, item.block_hash, report) for item in store.unfinalized())
    if store.head.block_hash in executor.chain:
        executor.head = store.head.block_hash
        executor.ensure(executor.head)
        executor.trim()
    for text in store.take_notices():
        report(Notice(text=text))
    report(
        Recovered(
            finalized_height=store.finalized.height,
            base_height=base_height,
            executed_count=executed,
            total_ns=clock_ns() - start_ns,
        )
    )
    return executor


def _replay(executor: Executor, name: bytes, report: Report) -> bool:
    """Execute a stored block again; say whether it is VALID."""
    store = executor.store
    stored, payload = store.block(name), store.payload(name)
    assert stored is not None, "the store has just named it"
    assert payload is not None, "payloads above finalized are never pruned"
    found = executor.replay(stored.header, payload)
    if isinstance(found, confirm.Suspect):
        said = confirm.confirm(found, executor.serial, executor.marks)
        if said.difference and executor.chain.state.backend is not executor.serial:
            executor.disable_path(said.difference)
            found = executor.replay(stored.header, payload)
    if isinstance(found, confirm.Suspect) or found.verdict is not Verdict.VALID:
        report(Notice(text=f"the stored block {name.hex()} is left out: it was never VALID"))
        with contextlib.suppress(StoreFull):  # then it takes its room until the next finalization
            store.take_back(name)
        return False
    return True
