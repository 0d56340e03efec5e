"""The transaction pool in one process: `python bench/pool.py --help`.

- `admit`: 192-byte records in batches -> checks, hash, signature, accounts, chains: queued
- `admit, verified`: the same without signatures: what the pool itself costs
- `select`: the best transactions out of all that wait, judged on the state, as a payload's order
- `get_payload`: the same, encoded, committed to and executed
- `follow`: a block with these transactions becomes the head: they leave, the accounts are read

Signatures are valid and each is new; keys come again, but none is kept, unlike in a node
(`known_keys`). Nothing is on disk here.
"""

import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
import numpy as np
from rich.console import Console

from bench import machine
from engine.codec import PayloadLimits, payload_commitment
from engine.mempool import Mempool
from engine.pool_accounts import read_accounts
from engine.pool_admission import Admission
from engine.pool_rules import BATCH_MAX, Move, PoolLimits, PoolReason
from engine.pool_selection import select
from engine.state import State
from engine.transition import BlockContext, LedgerRules, Outcome, all_verified, execute_payload
from engine.verified import VerifiedMarks
from kernels.backend import Backend, open_backend
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from kernels.layout import U8

CHAIN_ID = 7
DOMAIN = bytes(32)
FEE_RECIPIENT = b"\xfe" * 32
BALANCE = 10**9
RULES = LedgerRules(fee_minimum=1, account_minimum=1, accounts_max=2**31)


@click.command(context_settings={"max_content_width": 100})
@click.option("--pending", type=click.IntRange(1, 2_000_000), default=1_000_000, show_default=True,
              help="Transactions that wait.")  # fmt: skip
@click.option("--accounts", type=click.IntRange(1), default=200_000, show_default=True)
@click.option("--batch", type=click.IntRange(1, BATCH_MAX), default=10_000, show_default=True)
@click.option("--block", type=click.IntRange(1), default=100_000, show_default=True,
              help="Transactions of a payload.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Default: all cores.")
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63), default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="Write all rows.")  # fmt: skip
def main(
    pending: int, accounts: int, batch: int, block: int, threads: int | None, repeat: int,
    seed: int, json_file: Path | None,
) -> None:  # fmt: skip
    """Fill a pool, select from it, follow a block; print medians over repeats."""
    console = Console()
    described = machine.describe(Path())
    console.print(machine.describe_text(described), highlight=False)
    bench = Bench(pending=pending, accounts=accounts, threads=threads, seed=seed)
    rows = bench.run(batch=batch, block=block, repeat=repeat)
    bench.backend.close()
    for row in rows:
        numbers = {name: value for name, value in row.items() if name != "stage"}
        console.print(f"{row['stage']:<16} " + " ".join(f"{k} {v:,}" for k, v in numbers.items()))
    if json_file is not None:
        json_file.write_text(json.dumps({"rows": rows, "machine": described}, indent=1) + "\n")


class Bench:
    """Signed records of many accounts, and a state that has these accounts."""

    def __init__(self, *, pending: int, accounts: int, threads: int | None, seed: int) -> None:
        """Make and sign everything."""
        rng = np.random.default_rng(seed)
        self.count = pending
        self.backend: Backend = open_backend("cpu", threads)
        seeds = rng.integers(0, 256, (accounts, 32), np.uint8)
        self.keys = insecure_public_keys(seeds)
        balances = np.full(accounts, BALANCE, np.uint64)
        self.state = State(self.keys, balances, backend=self.backend)
        self.records = make_records(rng, pending, seeds, self.keys)
        self.limits = PoolLimits(transactions=pending + BATCH_MAX)

    def open(self, marks: VerifiedMarks) -> tuple[Mempool, Admission]:
        """Return an empty pool and what checks its batches."""
        secret = secrets.token_bytes(64)
        pool = Mempool(rules=RULES, height=0, secret=secret, limits=self.limits)
        return pool, Admission(
            pool, chain_id=CHAIN_ID, domain=DOMAIN, backend=lambda: self.backend, marks=marks
        )

    def admit(self, pool: Mempool, admission: Admission, batch: int) -> list[int]:
        """Fill a pool; return the nanoseconds of each batch."""
        data = self.records.tobytes()
        spans = []
        for start in range(0, self.count, batch):
            part = data[192 * start : 192 * (start + batch)]
            begin = time.perf_counter_ns()
            checked = admission.check(part)
            keys = np.concatenate([checked.senders, checked.recipients])
            codes = pool.add(checked, read_accounts(self.state.accounts, keys), now_ms=0)
            spans.append(time.perf_counter_ns() - begin)
            assert (codes == PoolReason.ACCEPTED).all(), "all records are good"
        return spans

    def run(self, *, batch: int, block: int, repeat: int) -> list[dict[str, Any]]:
        """Measure; answers one row per stage."""
        pool, admission = self.open(VerifiedMarks(1))
        first = sum(self.admit(pool, admission, batch))
        rows = [rate_row("admit, untouched", self.count, [first])]
        spans = []
        for _ in range(repeat):
            empty(pool)
            spans.append(sum(self.admit(pool, admission, batch)))
        rows.append(rate_row("admit", self.count, spans))
        marks = VerifiedMarks(2 * self.count)
        marks.mark(self.backend.hash_messages(self.records))
        known = Admission(
            pool, chain_id=CHAIN_ID, domain=DOMAIN, backend=lambda: self.backend, marks=marks
        )
        spans = []
        for _ in range(repeat):
            empty(pool)
            spans.append(sum(self.admit(pool, known, batch)))
        rows.append(rate_row("admit, verified", self.count, spans))
        limits = PayloadLimits(bytes=2**31, transactions=block, objects=2**30)
        rows.append(time_row("select", lambda: select_only(pool, self.state, limits), repeat))
        rows.append(time_row("get_payload", lambda: self.build(pool, limits), repeat))
        rows.append(self.follow(pool, limits))
        return rows

    def build(self, pool: Mempool, limits: PayloadLimits) -> None:
        """Do what GetPayload does."""
        payload = select(pool, self.state, height=1, limits=limits).payload()
        payload_commitment(payload)
        outcome = self.execute(payload, limits)
        self.state.undo([outcome.changes])

    def execute(self, payload: bytes, limits: PayloadLimits) -> Outcome:
        """Execute a payload whose signatures are known."""
        context = BlockContext(
            chain_id=CHAIN_ID,
            height=1,
            fee_recipient=FEE_RECIPIENT,
            transaction_domain=DOMAIN,
            rules=RULES,
            limits=limits,
        )
        return execute_payload(self.state, payload, context, is_verified=all_verified)

    def follow(self, pool: Mempool, limits: PayloadLimits) -> dict[str, Any]:
        """Measure one block that becomes the head."""
        payload = select(pool, self.state, height=1, limits=limits).payload()
        outcome = self.execute(payload, limits)
        begin = time.perf_counter_ns()
        keys, _, _ = self.state.accounts.read(outcome.changes.slots)
        nothing = np.empty((0, 32), np.uint8)
        move = Move(
            height=1,
            included=outcome.transaction_hashes,
            returned=np.empty((0, 192), np.uint8),
            returned_hashes=nothing,
            returned_accounts=read_accounts(self.state.accounts, nothing),
            keys=keys,
            accounts=read_accounts(self.state.accounts, keys),
        )
        pool.follow(move, now_ms=0)
        span = time.perf_counter_ns() - begin
        left = len(outcome.statuses)
        assert len(pool) == self.count - left, "what is included has left"
        return {"stage": "follow", "included": left, "ms": round(span / 1e6, 1)}


def make_records(rng: np.random.Generator, count: int, seeds: U8, keys: U8) -> U8:
    """Return signed transfers in random order of senders, nonces of each in order."""
    senders = rng.permutation(np.arange(count) % len(keys))
    order = np.argsort(senders, kind="stable")
    firsts = np.searchsorted(senders[order], np.arange(len(keys)))
    words = np.zeros((count, 24), np.uint64)
    words[:, 0] = 1 | CHAIN_ID << 32
    words[order, 1] = np.arange(count) - firsts[senders[order]]
    words[:, 2] = 2**40
    words[:, 3] = 10
    words[:, 4] = rng.integers(1, 1_000, count)
    records = words.view(np.uint8)
    records[:, 64:96] = keys[senders]
    records[:, 96:128] = keys[rng.integers(0, len(keys), count)]
    for start in range(0, count, BATCH_MAX):
        part = slice(start, start + BATCH_MAX)
        messages = np.zeros((len(records[part]), 160), np.uint8)
        messages[:, 32:] = records[part, :128]
        chosen = senders[part]
        records[part, 128:] = insecure_sign(seeds[chosen], keys[chosen], messages)
    return records


def empty(pool: Mempool) -> None:
    """Let everything go, so that memory is used a second time."""
    pool.drop(np.flatnonzero(pool.rows.rank).astype(np.uint32), PoolReason.POOL_FULL, now_ms=0)
    assert len(pool) == 0, "nothing waits"


def select_only(pool: Mempool, state: State, limits: PayloadLimits) -> None:
    """Select, and look that the payload is full."""
    found = select(pool, state, height=1, limits=limits)
    assert len(found.records) == min(limits.transactions, pool.ready_count), "all are good"


def rate_row(stage: str, count: int, spans: list[int]) -> dict[str, Any]:
    """Return transactions per second over repeats."""
    rates = [count * 1e9 / span for span in spans]
    return {
        "stage": stage,
        "tx_per_s": round(statistics.median(rates)),
        "min": round(min(rates)),
        "max": round(max(rates)),
    }


def time_row(stage: str, work: Callable[[], None], repeat: int) -> dict[str, Any]:
    """Return milliseconds over repeats."""
    work()
    spans = []
    for _ in range(repeat):
        begin = time.perf_counter_ns()
        work()
        spans.append((time.perf_counter_ns() - begin) / 1e6)
    return {
        "stage": stage,
        "ms": round(statistics.median(spans), 1),
        "min": round(min(spans), 1),
        "max": round(max(spans), 1),
    }


if __name__ == "__main__":
    main()
