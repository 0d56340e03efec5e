"""Send the batches of a plan at their times, and find out what became of them.

One clock drives everything: batch k is due k intervals after the start. In the open loop a batch
that is late is sent at once, and its latency counts from when it was due. A thread per connection
sends; one more looks at the last transfer of some batches until it is final.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

from bench.load_batches import Plan
from engine.client import Client, NodeError
from engine.constants import TRANSACTION_BYTES
from engine.pool_rules import PoolReason
from engine.signing import transaction_hash

COUNTS = ("offered", "answered", "accepted", "included", "finalized")
PERCENTILES = (50, 90, 99, 99.9, 100)
LATENCY_US_MAX = 600_000_000
FINAL_WAIT_S = 60
"""after the last batch, in which what was accepted may become final"""
LOOKS_PER_S = 20
SAMPLES_PER_S = 50
"""Transfers whose way to finality is timed, at most."""
US_PER_S = 1_000_000
NS_PER_US = 1_000


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run came to."""

    counts: dict[str, int]
    """offered, answered, accepted, included, finalized"""
    refused: dict[str, int]
    """by reason, of the node or of the connection"""
    elapsed_ms: int
    """from the first batch being due to the last answer"""
    final_ms: int
    """from the first batch being due to the last finality that was seen"""
    latency_us: dict[str, dict[str, int]]
    """`accepted` per batch and `finalized` per sample, by percentile, from the intended time"""
    late_us_max: int
    """how far the sender itself fell behind: figures are worth little where it is large"""


@dataclass(slots=True)
class _Shared:
    """What the threads of a run share."""

    start_ns: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    accepted: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, LATENCY_US_MAX, 3))
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    samples: queue.SimpleQueue[tuple[int, str]] = field(default_factory=queue.SimpleQueue)
    late_us_max: int = 0
    failure: str = ""


def run(
    plan: Plan,
    urls: Sequence[str],
    *,
    rate: int,
    is_open: bool,
    say: Callable[[str], None],
) -> Report:
    """Send everything, wait for finality, and return the figures; urls: one per connection."""
    gap_ns = plan.batch * 1_000_000_000 // rate
    jobs: list[queue.SimpleQueue[tuple[int, int] | None]] = [queue.SimpleQueue() for _ in urls]
    shared = _Shared(time.monotonic_ns() + 200_000_000)
    every = max(1, rate // plan.batch // SAMPLES_PER_S)
    senders = [
        threading.Thread(target=_send, args=(plan, url, jobs[i], shared, every, is_open))
        for i, url in enumerate(urls)
    ]
    is_over = threading.Event()
    finals = HdrHistogram(1, LATENCY_US_MAX, 3)
    watcher = threading.Thread(target=_watch, args=(urls[0], shared, finals, is_over))
    for thread in (*senders, watcher):
        thread.start()
    _offer(plan, jobs, shared, gap_ns, is_open, say)
    for thread in senders:
        thread.join()
    elapsed_ms = (time.monotonic_ns() - shared.start_ns) // 1_000_000
    final_ms = _wait_final(plan, urls[0], shared, say)
    is_over.set()
    watcher.join()
    if shared.failure:
        shared.refused[shared.failure] += 1
    return Report(
        counts={
            name: shared.counts[name]
            for name in ("offered", "answered", "accepted", "included", "finalized")
        },
        refused=dict(shared.refused),
        elapsed_ms=elapsed_ms,
        final_ms=final_ms,
        latency_us={"accepted": _figures(shared.accepted), "finalized": _figures(finals)},
        late_us_max=shared.late_us_max,
    )


def _offer(
    plan: Plan,
    jobs: Sequence["queue.SimpleQueue[tuple[int, int] | None]"],
    shared: _Shared,
    gap_ns: int,
    is_open: bool,
    say: Callable[[str], None],
) -> None:
    """Hand each batch over when it is due; in a closed loop when the one before has gone."""
    told_ns = shared.start_ns
    for number in range(plan.batches):
        due_ns = shared.start_ns + number * gap_ns
        while (now_ns := time.monotonic_ns()) < due_ns:
            time.sleep((due_ns - now_ns) / 1e9)
        target = jobs[int(plan.targets[number])]
        while not is_open and target.qsize():
            time.sleep(0.001)
        target.put((number, due_ns))
        shared.late_us_max = max(shared.late_us_max, (now_ns - due_ns) // NS_PER_US)
        shared.counts["offered"] += len(plan.body(number)) // TRANSACTION_BYTES
        if now_ns - told_ns >= 1_000_000_000:
            told_ns = now_ns
            seconds = max(1, (now_ns - shared.start_ns) // 1_000_000_000)
            left = (plan.batches - number) * gap_ns // 1_000_000_000
            say(
                f"{seconds} s: offered {shared.counts['offered']:,}, "
                f"accepted {shared.counts['accepted']:,} "
                f"({shared.counts['accepted'] // seconds:,}/s), {left} s left"
            )
    for target in jobs:
        target.put(None)


def _send(
    plan: Plan,
    url: str,
    jobs: "queue.SimpleQueue[tuple[int, int] | None]",
    shared: _Shared,
    every: int,
    is_open: bool,
) -> None:
    """Send batches to one node until there are no more."""
    with Client(url) as client:
        while (job := jobs.get()) is not None:
            number, due_ns = job
            body = plan.body(number)
            begin_ns = due_ns if is_open else time.monotonic_ns()
            try:
                statuses = client.send_batch(body)
            except NodeError as error:
                with shared.lock:
                    shared.refused[error.code] += len(body) // TRANSACTION_BYTES
                continue
            taken_us = (time.monotonic_ns() - begin_ns) // NS_PER_US
            if number % every == 0 and PoolReason(statuses[-1]).is_taken:
                shared.samples.put((begin_ns, transaction_hash(body[-TRANSACTION_BYTES:]).hex()))
            with shared.lock:
                shared.accepted.record_value(max(1, min(LATENCY_US_MAX, taken_us)))
                shared.counts["answered"] += len(statuses)
                for status, count in Counter(statuses).items():
                    reason = PoolReason(status)
                    if reason.is_taken:
                        shared.counts["accepted"] += count
                    else:
                        shared.refused[reason.name] += count


def _watch(url: str, shared: _Shared, finals: HdrHistogram, is_over: threading.Event) -> None:
    """Look at samples, the oldest first, until each is final; they become final in order."""
    with Client(url) as client:
        while not is_over.is_set():
            try:
                begin_ns, name = shared.samples.get(timeout=0.1)
            except queue.Empty:
                continue
            while not is_over.is_set():
                try:
                    found = client.transaction(name)
                except NodeError as error:
                    # One that was dropped again has no finality; the counts tell.
                    shared.failure = f"sample {error.code}"
                    break
                if found.state == "finalized":
                    taken_us = (time.monotonic_ns() - begin_ns) // NS_PER_US
                    finals.record_value(max(1, min(LATENCY_US_MAX, taken_us)))
                    break
                if found.state not in ("pending", "included"):
                    break
                time.sleep(1 / LOOKS_PER_S)


def _wait_final(plan: Plan, url: str, shared: _Shared, say: Callable[[str], None]) -> int:
    """Wait until what was accepted is final, or nothing moves any more; return when, in ms."""
    before = sum(plan.nonces)
    last_ns = moved_ns = time.monotonic_ns()
    with Client(url) as client:
        while True:
            finalized = sum(int(client.account(item).nonce) for item in plan.addresses) - before
            if finalized != shared.counts["finalized"]:
                shared.counts["finalized"] = finalized
                last_ns = moved_ns = time.monotonic_ns()
            if finalized >= shared.counts["accepted"]:
                break
            if time.monotonic_ns() - moved_ns > FINAL_WAIT_S * 1_000_000_000:
                say(f"nothing became final for {FINAL_WAIT_S} s: giving up")
                break
            time.sleep(0.1)
        at_head = sum(int(client.account(item, "head").nonce) for item in plan.addresses)
    shared.counts["included"] = at_head - before
    return (last_ns - shared.start_ns) // 1_000_000


def _figures(histogram: HdrHistogram) -> dict[str, int]:
    """Return microseconds by percentile; none where nothing was recorded."""
    if not histogram.get_total_count():
        return {}
    return {f"p{p}": int(histogram.get_value_at_percentile(p)) for p in PERCENTILES}
