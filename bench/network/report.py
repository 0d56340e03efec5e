"""The figures of a run, as JSON values."""

import itertools
import statistics
from typing import Any

from bench.network.processes import disk_bytes
from bench.network.run import Options, Run
from bench.network.watch import BlockSeen

NS_PER_MS = 1_000_000
MS_PER_S = 1_000
LATENCIES = ("p50", "p90", "p99")


def report(options: Options, run: Run, expect_heights: int | None) -> dict[str, Any]:
    """Return what a run came to; `violations` is empty when all that must hold does."""
    cluster, judged = run.cluster, run.judgement
    blocks = [b for b in cluster.watch.blocks() if run.start_ns <= b.seen_ns <= run.stop_ns]
    window_ms = (run.stop_ns - run.start_ns) // NS_PER_MS
    counts = run.load["counts"] if run.load is not None else {}
    latency_us = run.load["latency_us"]["finalized"] if run.load is not None else {}
    tx_final = sum(block.transaction_count for block in blocks)
    tx_chain = sum(header.transaction_count for header in judged.headers)
    violations = [*run.violations, *judged.violations]
    if expect_heights is not None and len(blocks) < expect_heights:
        violations.append(f"{len(blocks)} heights were final, {expect_heights} were expected")
    return {
        "heights_final": len(blocks),
        "tx_final": tx_final,
        "tx_per_s_final": tx_final * MS_PER_S // max(1, window_ms),
        "finality_ms": {name: latency_us[name] // 1_000 for name in LATENCIES if latency_us},
        "state_hash_equal": judged.state_hash_equal,
        "replay_equal": judged.replay_equal,
        "double_votes": len(judged.double_votes),
        "validators": [_validator(run, number, window_ms) for number in range(len(run.cpu_ms))],
        "violations": violations,
        "window_s": round(window_ms / MS_PER_S, 1),
        "block_interval_ms": interval_ms(blocks, are_clocks_apart=bool(options.offsets_ms)),
        "tx_in_chain": tx_chain,
        "tx_per_s": {
            "offered": counts.get("offered", 0) * MS_PER_S // max(1, window_ms),
            "accepted": counts.get("accepted", 0) * MS_PER_S // max(1, window_ms),
        },
        "load": run.load,
        "lone": run.lone,
        "heights": judged.heights,
        "heights_compared": judged.heights_compared,
        "replay": judged.serial,
        "oracle": judged.oracle,
        "votes_seen": cluster.votes.votes_seen,
        "cpu_percent": cpu_percent(run),
        "acts": run.acts_done,
        "notes": run.notes,
        "options": {
            "validators": options.validators,
            "duration_s": options.duration_s,
            "rate": options.rate,
            "accounts": options.accounts,
            "batch": options.batch,
            "seed": options.seed,
            "open_loop": options.is_open,
            "links": options.faults.links_at_start.as_json(),
            "clock_offsets_ms": {str(k): v for k, v in options.offsets_ms.items()},
        },
        "machine": run.machine,
    }


def interval_ms(blocks: list[BlockSeen], *, are_clocks_apart: bool = False) -> int | None:
    """Return the median of header times from one block to the next; None for less than two.

    Headers have their leaders' times. Where those clocks are apart, it is the mean of the times at
    which blocks were seen to be final, by one clock, a quarter of a second apart at least.
    """
    if are_clocks_apart and len(blocks) > 1:
        return (blocks[-1].seen_ns - blocks[0].seen_ns) // NS_PER_MS // (len(blocks) - 1)
    gaps = [
        later.timestamp_ms - earlier.timestamp_ms for earlier, later in itertools.pairwise(blocks)
    ]
    return round(statistics.median(gaps)) if gaps else None


def cpu_percent(run: Run) -> dict[str, int]:
    """Return shares of one core: all consensus processes, all executors, the load, everything."""
    window_ms = max(1, (run.stop_ns - run.start_ns) // NS_PER_MS)
    used = {
        role: sum(of_one[role] for of_one in run.cpu_ms.values())
        for role in ("consensus", "executor")
    }
    used |= {"load": run.load_cpu_ms, "machine": run.machine_cpu_ms}
    return {name: ms * 100 // window_ms for name, ms in used.items()}


def _validator(run: Run, number: int, window_ms: int) -> dict[str, Any]:
    cluster = run.cluster
    status, usage = cluster.watch.last(number), cluster.usage[number]
    validator = cluster.validators[number]
    return {
        "number": number,
        "name": validator.home.name,
        "key": status.get("key", ""),
        "role": status.get("role", "never seen"),
        "height": run.judgement.heights[number],
        "epoch": status.get("epoch", 0),
        "view_changes": status.get("view_changes", 0),
        "missed_votes": status.get("missed_votes", 0),
        "starts": validator.starts,
        "exit_code": cluster.exit_codes.get(number),
        "stage_ms": status.get("stage_ms", {}),
        "drops": {k: v for k, v in status.get("drops", {}).items() if v},
        "cpu_percent": {
            role: used * 100 // max(1, window_ms) for role, used in run.cpu_ms[number].items()
        },
        "peak_bytes": usage.peak_bytes,
        "disk_bytes": disk_bytes(validator.home),
    }
