"""Who pays whom in a benchmark: replayed traces, and patterns made to hurt.

Everything here is account numbers, amounts and order, from a seed, in integers: the same arguments
give the same `state_hash` on every machine. Read `blocks` next: it turns payments into payloads.

    weth, ethereum   real traffic (a file, or its twin)
    uniform          everybody pays everybody, the worst for caches
    zipf             the k-th account with a share like 1/k, on both sides
    hot-recipient    everybody pays one account
    hot-sender       half of all payments come from one account: one long lane
    two-accounts     two accounts pay each other: nothing but two long lanes
"""

from dataclasses import dataclass, field

import numpy as np

from bench.traces import I64, PROFILES, Trace
from kernels.integers import sum_exact
from kernels.layout import U8, U64

SYNTHETIC = ("uniform", "zipf", "hot-recipient", "hot-sender", "two-accounts")
WORKLOADS = (*PROFILES, *SYNTHETIC)

FEE = 10
"""base units, of every transaction"""
FEE_MINIMUM = 1
ACCOUNT_MINIMUM = 100
"""base units"""
IDLE_BALANCE = 1_000_000
"""base units on top of what an account spends"""
RARE = 1000
"""One transaction in so many fails, one in so many pays a new account (synthetic workloads)."""
BEYOND_MEANS = 1 << 62
"""base units; no account ever has as much, since the supply stays below it"""
SUPPLY_MAX = 1 << 62
ACCOUNTS_MAX = 1 << 28
TRANSACTIONS_MAX = 1 << 27
"""Most payments of one workload, blocks together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """Payments in order, cut into blocks; accounts numbered from 0, new ones from `accounts` on."""

    name: str
    origin: str
    """`file`, `twin` or `none`"""
    source: I64
    """(n,) int64 in [0, accounts)"""
    target: I64
    """(n,) int64 in [0, accounts + created)"""
    amount: U64
    """(n,) uint64, base units; BEYOND_MEANS where the payment is to fail"""
    accounts: int
    """accounts of the opening state"""
    created: int
    """most accounts that the payments can create"""
    per_block: int
    """transactions of each block"""
    notes: tuple[str, ...] = field(default=())
    """what a reader of the figures must know"""

    @property
    def block_count(self) -> int:
        """Return how many blocks the payments fill, all of them full."""
        return len(self.source) // self.per_block


class WorkloadError(Exception):
    """Arguments that give no workload; the message says which and why."""


def replay(
    trace: Trace, *, accounts: int, per_block: int, blocks: int | None, seed: int
) -> Payments:
    """Cut a trace into blocks; its accounts are scattered over a state of at least `accounts`."""
    notes: list[str] = []
    if trace.origin == "twin":
        notes.append(f"{trace.name}: the trace is not here; a seeded twin with its shape stands in")
    rows = len(trace.source)
    if per_block > rows:
        notes.append(f"{trace.name}: one block of {rows} transactions, all there are")
        per_block = rows
    fills = rows // per_block
    if blocks is not None and blocks > fills:
        notes.append(f"{trace.name}: {fills} blocks, not {blocks}; the trace fills no more")
    count = min(blocks or fills, fills) * per_block
    if trace.account_count > accounts:
        notes.append(f"{trace.name}: accounts raised from {accounts} to {trace.account_count}")
        accounts = trace.account_count
    _check_size(accounts, count)
    amount, shift = _fitting(trace.amount[:count], accounts)
    if shift:
        notes.append(f"{trace.name}: amounts divided by 2^{shift}, so that the supply fits")
    scatter = _rng(seed, trace.name).permutation(accounts)[: trace.account_count]
    return Payments(
        name=trace.name, origin=trace.origin, source=scatter[trace.source[:count]],
        target=scatter[trace.target[:count]], amount=amount, accounts=accounts, created=0,
        per_block=per_block, notes=tuple(notes),
    )  # fmt: skip


def synthetic(name: str, *, accounts: int, per_block: int, blocks: int, seed: int) -> Payments:
    """Make the payments of one of SYNTHETIC; see RARE for what is unusual in them."""
    count = per_block * blocks
    _check_size(accounts, count)
    if accounts < 2:
        raise WorkloadError(f"{name} needs at least 2 accounts")
    rng = _rng(seed, name)
    source, target = _pattern(name, rng, accounts, count)
    created = 0
    if name in ("uniform", "zipf", "hot-sender"):
        is_new = rng.integers(0, RARE, count) == 0
        created = int(is_new.sum())
        target[is_new] = accounts + np.arange(created)
    amount = rng.integers(1, 2001, count, dtype=np.uint64)
    amount[rng.integers(0, RARE, count) == 0] = BEYOND_MEANS
    return Payments(
        name=name, origin="none", source=source, target=target, amount=amount, accounts=accounts,
        created=created, per_block=per_block,
    )  # fmt: skip


def opening_balances(payments: Payments) -> U64:
    """Return (accounts,) uint64: the reserve, something idle, and all that will be spent."""
    balances = np.full(payments.accounts, ACCOUNT_MINIMUM + IDLE_BALANCE, np.uint64)
    is_meant = payments.amount != BEYOND_MEANS
    cost = np.where(is_meant, payments.amount, np.uint64(0)) + np.uint64(FEE)
    np.add.at(balances, payments.source, cost)
    assert sum_exact(balances) <= SUPPLY_MAX
    return balances


def nonces(source: I64) -> U64:
    """Return (n,) uint64: how often each row's sender has sent before, in row order."""
    order = np.argsort(source, kind="stable")
    grouped = source[order]
    is_first = np.ones(len(grouped), bool)
    is_first[1:] = grouped[1:] != grouped[:-1]
    starts = np.maximum.accumulate(np.where(is_first, np.arange(len(grouped)), 0))
    answer = np.empty(len(grouped), np.uint64)
    answer[order] = (np.arange(len(grouped)) - starts).astype(np.uint64)
    return answer


def account_keys(numbers: U64, seed: int) -> U8:
    """Return (n, 32) uint8: 32 bytes per account number that nobody has a signing key for.

    SplitMix64 over 4 number + word; a bijection, so that different numbers have different keys.
    """
    counters: U64 = np.add.outer(numbers << np.uint64(2), np.arange(4, dtype=np.uint64))
    mixed: U64 = (counters + np.uint64(seed)) * np.uint64(0x9E37_79B9_7F4A_7C15)
    for shift, factor in ((30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed.astype("<u8").view(np.uint8).reshape(len(numbers), 32)


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, *name.encode()]))


def _check_size(accounts: int, count: int) -> None:
    if not 1 <= accounts <= ACCOUNTS_MAX:
        raise WorkloadError(f"accounts must be 1..{ACCOUNTS_MAX}, not {accounts}")
    if not 1 <= count <= TRANSACTIONS_MAX:
        raise WorkloadError(f"transactions x blocks must be 1..{TRANSACTIONS_MAX}, not {count}")


def _fitting(amount: U64, accounts: int) -> tuple[U64, int]:
    """Halve amounts until everything opening balances add up to fits SUPPLY_MAX."""
    room = SUPPLY_MAX - accounts * (ACCOUNT_MINIMUM + IDLE_BALANCE) - len(amount) * FEE
    total, shift = sum_exact(amount), 0
    while total >> shift > room:
        shift += 1
    return amount >> np.uint64(shift), shift


def _pattern(name: str, rng: np.random.Generator, accounts: int, count: int) -> tuple[I64, I64]:
    source = rng.integers(0, accounts, count)
    target = rng.integers(0, accounts, count)
    if name == "zipf":
        scatter = rng.permutation(accounts)
        return scatter[_zipf(rng, accounts, count)], scatter[_zipf(rng, accounts, count)]
    if name == "hot-recipient":
        target[:] = accounts // 2
    elif name == "hot-sender":
        source[rng.integers(0, 2, count) == 0] = accounts // 2
    elif name == "two-accounts":
        source[:] = np.arange(count) & 1
        target[:] = 1 - source
    else:
        assert name == "uniform"
    return source, target


def _zipf(rng: np.random.Generator, accounts: int, count: int) -> I64:
    """Return ranks with a share like 1 / (rank + 1): octaves equally likely, uniform within.

    Integers only, so that no machine's logarithm decides who is paid.
    """
    octave = rng.integers(0, accounts.bit_length(), count)
    low = np.int64(1) << octave
    width = np.minimum(low, accounts + 1 - low)
    ranks: I64 = low + rng.integers(0, 1 << 62, count) % width - 1
    return ranks
