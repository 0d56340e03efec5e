"""Send the batches of a plan at their times, and find out what became of them.

One clock drives everything: batch k is due k intervals after the start. In the open loop a batch
that is late is sent at once, and its latency counts from when it was due. A thread per connection
sends. Whoever insists sends a batch again until all of it is taken: to the next node where one does
not answer, after a pause where a pool is full, and once more where what was taken does not become
final because a node lost it; its latency still counts from when it was due first.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hdrh.histogram import HdrHistogram

from bench.load_batches import Plan
from bench.load_final import AnyNode, FinalHeights
from engine.client import Client, NodeError
from engine.constants import TRANSACTION_BYTES
from engine.pool_rules import PoolReason
from engine.signing import transaction_hash

COUNTS = ("offered", "answered", "accepted", "included", "finalized", "sent_again")
PERCENTILES = (50, 90, 99, 99.9, 100)
LATENCY_US_MAX = 600_000_000
FINAL_WAIT_S = 60
"""after the last batch, in which what was accepted may become final"""
INSIST_S = 120
"""how long a batch is sent again before it counts as refused"""
AGAIN_PAUSE_S = 0.1
STALLED_S = 10
"""after which what was taken and is not final is sent again"""
LOOK_S = 0.5
PROBES = 4
"""transfers of a batch that are looked at: their senders' nonces say whether they are final"""
SAMPLES_PER_S = 20
"""Transfers whose way to finality is timed, at most."""
NS_PER_S = 1_000_000_000
NS_PER_US = 1_000
TEMPORARY = frozenset({PoolReason.POOL_FULL, PoolReason.NONCE_TOO_FAR, PoolReason.TOO_MANY_PARKED})
"""Reasons that pass by themselves."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run came to."""

    counts: dict[str, int]
    """COUNTS"""
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


@dataclass(frozen=True, slots=True)
class Job:
    """One batch to be sent."""

    number: int
    due_ns: int
    is_again: bool = False
    """it was taken once, and its node may have lost it"""


@dataclass(slots=True)
class Connection:
    """What one is to send, and what it sent that is not known to be final."""

    urls: Sequence[str]
    """its own first"""
    jobs: "queue.SimpleQueue[Job | None]" = field(default_factory=queue.SimpleQueue)
    waiting: list[int] = field(default_factory=list)
    """numbers of batches that were taken, ascending"""
    moved_ns: int = 0
    """when the first of these was known to be final, or taken, last"""
    unsent: int = 0


@dataclass(slots=True)
class Shared:
    """What the threads of a run share."""

    plan: Plan
    start_ns: int
    is_open: bool
    insists: bool
    every: int
    """a sample is taken of every so many batches"""
    in_flight: int
    """transfers that may be handed over and not known to be final; 0: any number"""
    lock: threading.Lock = field(default_factory=threading.Lock)
    accepted: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, LATENCY_US_MAX, 3))
    counts: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[int, str]] = field(default_factory=list)
    late_us_max: int = 0


Tell = Callable[[Mapping[str, Any]], None]


def run(
    plan: Plan,
    urls: Sequence[str],
    *,
    rate: int,
    is_open: bool,
    tell: Tell,
    insists: bool = False,
    in_flight: int = 0,
) -> Report:
    """Send everything, wait for finality, and return the figures; urls: one per connection.

    `tell` is given what happens, with an `event`: start, progress, sent. `in_flight` is for a
    closed loop that insists.
    """
    gap_ns = plan.batch * NS_PER_S // rate
    every = max(1, rate // plan.batch // SAMPLES_PER_S)
    start_ns = time.monotonic_ns() + NS_PER_S // 5
    shared = Shared(plan, start_ns, is_open, insists, every, in_flight)
    others = list(dict.fromkeys(urls))
    connections = [
        Connection([url, *others] if insists else [url], moved_ns=shared.start_ns) for url in urls
    ]
    finality = FinalHeights(others)
    finality.start()
    senders = [
        threading.Thread(target=_send, args=(connection, shared)) for connection in connections
    ]
    for thread in senders:
        thread.start()
    tell({"event": "start", "monotonic_ns": shared.start_ns})
    is_over = threading.Event()
    repairer = threading.Thread(target=_repair, args=(connections, shared, others, is_over))
    if insists:
        repairer.start()
    _offer(connections, shared, gap_ns, tell)
    _wait_sent(connections, shared)
    elapsed_ms = (time.monotonic_ns() - shared.start_ns) // 1_000_000
    tell({"event": "sent", "elapsed_ms": elapsed_ms})
    final_ms = _wait_final(connections, shared, others, tell)
    is_over.set()
    for connection in connections:
        connection.jobs.put(None)
    for thread in (*senders, *([repairer] if insists else [])):
        thread.join()
    finals = _final_latencies(shared, finality, others)
    finality.stop()
    return Report(
        counts={name: shared.counts[name] for name in COUNTS},
        refused=dict(shared.refused),
        elapsed_ms=elapsed_ms,
        final_ms=final_ms,
        latency_us={"accepted": _figures(shared.accepted), "finalized": _figures(finals)},
        late_us_max=shared.late_us_max,
    )


def _offer(connections: Sequence[Connection], shared: Shared, gap_ns: int, tell: Tell) -> None:
    """Hand each batch over when it is due; in a closed loop when the one before has gone."""
    plan, told_ns = shared.plan, shared.start_ns
    for number in range(plan.batches):
        due_ns = shared.start_ns + number * gap_ns
        while (now_ns := time.monotonic_ns()) < due_ns:
            time.sleep((due_ns - now_ns) / 1e9)
        connection = connections[int(plan.targets[number])]
        while not shared.is_open and (connection.unsent or _is_full(connections, shared)):
            time.sleep(0.001)
        with shared.lock:
            connection.unsent += 1
        connection.jobs.put(Job(number, due_ns))
        shared.late_us_max = max(shared.late_us_max, (now_ns - due_ns) // NS_PER_US)
        shared.counts["offered"] += len(plan.body(number)) // TRANSACTION_BYTES
        if now_ns - told_ns >= NS_PER_S:
            told_ns = now_ns
            tell(
                {
                    "event": "progress",
                    "s": max(1, (now_ns - shared.start_ns) // NS_PER_S),
                    "offered": shared.counts["offered"],
                    "accepted": shared.counts["accepted"],
                    "left_s": (plan.batches - number) * gap_ns // NS_PER_S,
                }
            )


def _is_full(connections: Sequence[Connection], shared: Shared) -> bool:
    """Say whether as many transfers are under way as may be."""
    if not shared.in_flight:
        return False
    with shared.lock:
        batches = sum(connection.unsent + len(connection.waiting) for connection in connections)
    return batches * shared.plan.batch >= shared.in_flight


def _wait_sent(connections: Sequence[Connection], shared: Shared) -> None:
    """Wait until every batch has been answered, or was given up."""
    while True:
        with shared.lock:
            if not any(connection.unsent for connection in connections):
                return
        time.sleep(0.01)


def _send(connection: Connection, shared: Shared) -> None:
    """Send the batches of one connection until there are no more."""
    nodes = AnyNode(connection.urls)
    while (job := connection.jobs.get()) is not None:
        body = shared.plan.body(job.number)
        begin_ns = job.due_ns if shared.is_open or job.is_again else time.monotonic_ns()
        statuses, failure = _deliver(nodes, body, shared)
        with shared.lock:
            if not job.is_again:
                _count(job, body, statuses, failure, begin_ns, shared)
                connection.unsent -= 1
            if statuses and job.number not in connection.waiting:
                connection.waiting.append(job.number)
                connection.waiting.sort()
                if len(connection.waiting) == 1:
                    connection.moved_ns = time.monotonic_ns()
    nodes.close()


def _deliver(nodes: AnyNode, body: bytes, shared: Shared) -> tuple[bytes, str]:
    """Return the last answer to a batch, a PoolReason for each transfer; or none, and why."""
    end_ns = time.monotonic_ns() + INSIST_S * NS_PER_S
    while True:
        statuses, failure = b"", ""
        try:
            statuses = nodes.client.send_batch(body)
        except NodeError as error:
            failure = error.code
        is_left = bool(failure) or any(PoolReason(code) in TEMPORARY for code in set(statuses))
        if not (shared.insists and is_left) or time.monotonic_ns() >= end_ns:
            return statuses, failure
        with shared.lock:
            shared.counts["sent_again"] += len(body) // TRANSACTION_BYTES
        if failure:
            nodes.turn()
        time.sleep(AGAIN_PAUSE_S)


def _count(
    job: Job, body: bytes, statuses: bytes, failure: str, begin_ns: int, shared: Shared
) -> None:
    """Take the answer to a batch into account; under the lock."""
    if failure:
        shared.refused[failure] += len(body) // TRANSACTION_BYTES
        return
    taken_us = (time.monotonic_ns() - begin_ns) // NS_PER_US
    shared.accepted.record_value(max(1, min(LATENCY_US_MAX, taken_us)))
    shared.counts["answered"] += len(statuses)
    if job.number % shared.every == 0 and _is_taken(statuses[-1], shared):
        name = transaction_hash(body[-TRANSACTION_BYTES:]).hex()
        shared.samples.append((begin_ns, name))
    for code, count in Counter(statuses).items():
        if _is_taken(code, shared):
            shared.counts["accepted"] += count
        else:
            shared.refused[PoolReason(code).name] += count


def _is_taken(code: int, shared: Shared) -> bool:
    """Say whether a transfer was taken; one that came twice may stand in a block already."""
    reason = PoolReason(code)
    return reason.is_taken or (shared.insists and reason is PoolReason.NONCE_USED)


# What insisting adds: batches that were taken and do not become final are sent again.


def _repair(
    connections: Sequence[Connection], shared: Shared, urls: Sequence[str], is_over: threading.Event
) -> None:
    """Look which batches are final, and hand those that are stuck over again."""
    nodes = AnyNode(urls)
    while not is_over.wait(LOOK_S):
        for connection in connections:
            with shared.lock:
                waiting = list(connection.waiting)
            if not waiting:
                continue
            try:
                done = _final_batches(nodes, shared.plan, waiting)
            except NodeError:
                # No node answers at this moment: nothing is known, and nothing is sent.
                continue
            now_ns = time.monotonic_ns()
            with shared.lock:
                del connection.waiting[:done]
                if done:
                    connection.moved_ns = now_ns
                is_stuck = (
                    bool(connection.waiting) and now_ns - connection.moved_ns > STALLED_S * NS_PER_S
                )
                if is_stuck:
                    connection.moved_ns = now_ns
                    for number in connection.waiting:
                        shared.counts["sent_again"] += len(shared.plan.body(number)) // (
                            TRANSACTION_BYTES
                        )
                        connection.jobs.put(Job(number, now_ns, is_again=True))
    nodes.close()


def _final_batches(nodes: AnyNode, plan: Plan, numbers: Sequence[int]) -> int:
    """Return how many of a connection's batches are final, which are the first of them."""
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if _is_final(nodes, plan, numbers[middle]):
            low = middle + 1
        else:
            high = middle
    return low


def _is_final(nodes: AnyNode, plan: Plan, number: int) -> bool:
    """Say whether the probes of a batch are final."""
    return all(
        nodes.ask(partial(_nonce, address=address)) > nonce
        for address, nonce in plan.probes(number, PROBES)
    )


def _nonce(client: Client, address: str) -> int:
    """Return how many transfers of an account are final."""
    return int(client.account(address).nonce)


def _wait_final(
    connections: Sequence[Connection], shared: Shared, urls: Sequence[str], tell: Tell
) -> int:
    """Wait until what was accepted is final, or nothing moves any more; return when, in ms."""
    before = sum(shared.plan.nonces)
    nodes = AnyNode(urls)
    last_ns = moved_ns = time.monotonic_ns()

    def total(client: Client) -> int:
        return sum(int(client.account(item).nonce) for item in shared.plan.addresses)

    while True:
        with shared.lock:
            left = (
                sum(len(connection.waiting) for connection in connections) if shared.insists else 0
            )
        # Whoever insists is told by the connections; all senders are then asked once.
        finalized = shared.counts["finalized"] if left else nodes.ask(total, rounds=50) - before
        progress = (left, finalized)
        if progress != (shared.counts["left"], shared.counts["finalized"]):
            shared.counts["left"], shared.counts["finalized"] = progress
            last_ns = moved_ns = time.monotonic_ns()
        if not left and finalized >= shared.counts["accepted"]:
            break
        if time.monotonic_ns() - moved_ns > FINAL_WAIT_S * NS_PER_S:
            tell({"event": "stuck", "what": f"nothing became final for {FINAL_WAIT_S} s"})
            shared.counts["finalized"] = nodes.ask(total) - before
            break
        time.sleep(0.1)
    at_head = nodes.ask(
        lambda client: sum(
            int(client.account(item, "head").nonce) for item in shared.plan.addresses
        )
    )
    nodes.close()
    shared.counts["included"] = at_head - before
    return (last_ns - shared.start_ns) // 1_000_000


def _final_latencies(shared: Shared, finality: FinalHeights, urls: Sequence[str]) -> HdrHistogram:
    """Ask once for each sample, and return how long each took to be final."""
    finals = HdrHistogram(1, LATENCY_US_MAX, 3)
    nodes = AnyNode(urls)
    for begin_ns, name in shared.samples:
        try:
            receipt = nodes.ask(partial(Client.transaction, transaction_hash=name)).receipt
        except NodeError as error:
            # One that no node knows any more has no finality; the counts tell.
            shared.refused[f"sample {error.code}"] += 1
            continue
        seen_ns = finality.seen_ns(receipt.block.height) if receipt is not None else None
        if seen_ns is None:
            shared.refused["sample not final"] += 1
            continue
        finals.record_value(max(1, min(LATENCY_US_MAX, (seen_ns - begin_ns) // NS_PER_US)))
    nodes.close()
    return finals


def _figures(histogram: HdrHistogram) -> dict[str, int]:
    """Return microseconds by percentile; none where nothing was recorded."""
    if not histogram.get_total_count():
        return {}
    return {f"p{p}": int(histogram.get_value_at_percentile(p)) for p in PERCENTILES}
