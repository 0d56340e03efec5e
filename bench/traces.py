"""Traces of real payments, and seeded twins of them for machines that do not have the files.

A trace is who pays whom and how much, in order, as integers. A twin is made from published
statistics of its trace (accounts, the shares of the busiest senders and recipients, how often they
come again shortly after, the amounts) and stands in when the file is absent; whoever prints
a figure says which of the two it is of. Read `workloads` next: it turns either into payloads.
"""

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.layout import U64

I64 = NDArray[np.int64]

ROWS_MAX = 1 << 27
"""Rows of a trace; beyond, columns and payloads would not fit the memory of a usual host."""
AMOUNT_COLUMNS = ("amount", "amount_gwei", "value_gwei", "value")
"""Names under which a trace may hold its amounts; the first that is there counts."""


class TraceError(Exception):
    """A trace that cannot be replayed; the message says which file, why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Payments in order, between accounts numbered from 0 without gaps."""

    name: str
    origin: str
    """`file` or `twin`"""
    source: I64
    """(n,) int64 in [0, account_count)"""
    target: I64
    """(n,) int64 in [0, account_count)"""
    amount: U64
    """(n,) uint64, base units"""
    account_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a twin is made from: measured on the trace, integers only."""

    file: str
    rows: int
    senders: tuple[tuple[int, int], ...]
    """(rank, transactions sent) of senders by rank; linear in between, the last pair ends them"""
    recipients: tuple[tuple[int, int], ...]
    """the same for recipients"""
    shared: int
    """accounts that both send and receive"""
    is_hub_shared: bool
    """whether the busiest recipients are the busiest senders (else the least busy are shared)"""
    burst: int
    """transactions of one account that come close together"""
    span: int
    """rows over which such a burst spreads"""
    amounts: tuple[int, ...]
    """17 quantiles of the amounts, base units; the last is that of 99 %, not the maximum"""


WETH = Profile(
    file="weth_transfers.parquet",
    rows=124_389,
    senders=(
        *enumerate((28318, 12407, 8065, 7921, 7052, 2509, 2160, 1780, 1471)),
        *((12, 779), (16, 619), (24, 424), (32, 326), (48, 211), (64, 141), (96, 93), (128, 60)),
        *((192, 42), (256, 31), (384, 20), (512, 15), (768, 10), (1024, 8), (1536, 5), (2048, 3)),
        *((3072, 2), (3365, 1), (5197, 1)),
    ),
    recipients=(
        *enumerate((23478, 12989, 8505, 7369, 7028, 6133, 3415, 1946, 1486)),
        *((12, 817), (16, 742), (24, 446), (32, 362), (48, 271), (64, 195), (96, 131), (128, 80)),
        *((192, 48), (256, 32), (384, 20), (512, 13), (768, 8), (1024, 5), (1536, 3), (2048, 2)),
        *((2145, 1), (3413, 1)),
    ),
    shared=2412,
    is_hub_shared=True,
    burst=5,
    span=1000,
    amounts=(
        *(0, 20580000, 75169377, 138880000, 214125000, 399363200, 881320440, 1688460000),
        *(2571263346, 5000000000, 8000000000, 17982431459, 26338580000, 40000000000),
        *(40000000000, 40000000000, 104145105000),
    ),
)

ETHEREUM = Profile(
    file="ethereum_blocks.parquet",
    rows=24_342,
    senders=(
        *enumerate((1408, 1329, 577, 413, 209, 75, 71, 70, 58)),
        *((12, 47), (16, 41), (24, 30), (32, 24), (48, 16), (64, 11), (96, 7), (128, 5)),
        *((192, 4), (256, 3), (384, 2), (815, 1), (17457, 1)),
    ),
    recipients=(
        *enumerate((1248, 1214, 1197, 1064, 997, 606, 540, 459, 450)),
        *((12, 255), (16, 134), (24, 61), (32, 47), (48, 30), (64, 22), (96, 14), (128, 11)),
        *((192, 7), (256, 6), (384, 4), (512, 3), (768, 2), (980, 1), (9802, 1)),
    ),
    shared=227,
    is_hub_shared=False,
    burst=5,
    span=1000,
    amounts=(
        *(0, 0, 0, 0, 0, 0, 235134, 1161137, 3160000, 12976108, 40393941, 102348321),
        *(122962366, 165962067, 320000000, 978105900, 37441472500),
    ),
)

PROFILES = {"weth": WETH, "ethereum": ETHEREUM}


def traces_folder(root: Path) -> Path | None:
    """Return the folder of the traces: `$TOS_SHARED/traces`, then `../shared/traces` of `root`."""
    named = os.environ.get("TOS_SHARED")
    for shared in ([Path(named)] if named else []) + [root.parent / "shared"]:
        if (shared / "traces").is_dir():
            return shared / "traces"
    return None


def load_trace(path: Path, name: str) -> Trace:
    """Read a trace: Parquet with `source`, `target` and one of AMOUNT_COLUMNS, all integers >= 0.

    Accounts are numbered anew, without gaps. Raises TraceError.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        amount_name = next((item for item in AMOUNT_COLUMNS if item in names), None)
        missing = [item for item in ("source", "target") if item not in names]
        if missing or amount_name is None:
            wanted = ", ".join(missing or ["one of " + ", ".join(AMOUNT_COLUMNS)])
            raise TraceError(f"{path} lacks column {wanted}; it has {', '.join(names)}")
        if not 1 <= file.metadata.num_rows <= ROWS_MAX:
            raise TraceError(f"{path} has {file.metadata.num_rows} rows, not 1..{ROWS_MAX}")
        for item in ("source", "target", amount_name):
            kind = file.schema_arrow.field(item).type
            if not pyarrow.types.is_integer(kind):
                raise TraceError(f"{path}: column {item} holds {kind}, not integers")
        table = file.read(columns=["source", "target", amount_name])
        fields = [
            table.column(item).cast(pyarrow.uint64()).to_numpy()
            for item in ("source", "target", amount_name)
        ]
    except (OSError, pyarrow.ArrowException) as error:
        raise TraceError(f"{path} cannot be read as a trace: {error}") from error
    if any(field.dtype != np.uint64 for field in fields):
        raise TraceError(f"{path} has empty cells; every row needs source, target and amount")
    return _numbered(name, "file", *fields)


def head(trace: Trace, rows: int) -> Trace:
    """Return the first `rows` payments alone, their accounts numbered anew."""
    fields = trace.source[:rows], trace.target[:rows], trace.amount[:rows]
    return _numbered(trace.name, trace.origin, *fields)


def _numbered(
    name: str, origin: str, source: NDArray[Any], target: NDArray[Any], amount: U64
) -> Trace:
    numbers, dense = np.unique(np.concatenate([source, target]), return_inverse=True)
    dense = dense.astype(np.int64)
    return Trace(
        name=name, origin=origin, source=dense[: len(source)], target=dense[len(source) :],
        amount=amount, account_count=len(numbers),
    )  # fmt: skip


def twin(name: str, seed: int) -> Trace:
    """Return the seeded twin of the trace `name` (a key of PROFILES)."""
    profile = PROFILES[name]
    rng = np.random.Generator(np.random.PCG64([seed, len(name)]))
    senders, recipients = _counts(profile.senders, profile), _counts(profile.recipients, profile)
    source = _order(rng, senders, profile)
    rank = _order(rng, recipients, profile)
    first_shared = 0 if profile.is_hub_shared else len(recipients) - profile.shared
    is_shared = (rank >= first_shared) & (rank < first_shared + profile.shared)
    others = len(senders) + np.where(rank < first_shared, rank, rank - profile.shared)
    first_number = 0 if profile.is_hub_shared else len(senders) - profile.shared
    return Trace(
        name=name, origin="twin", source=source,
        target=np.where(is_shared, rank - first_shared + first_number, others),
        amount=_amounts(rng, profile),
        account_count=len(senders) + len(recipients) - profile.shared,
    )  # fmt: skip


def _counts(pairs: tuple[tuple[int, int], ...], profile: Profile) -> I64:
    """Return transactions per rank: linear between the pairs, then made to sum to the rows."""
    counts = np.ones(pairs[-1][0], np.int64)
    for (start, high), (stop, low) in pairwise(pairs):
        steps = np.arange(stop - start)
        counts[start:stop] = high - (high - low) * steps // (stop - start)
    head = sum(1 for index, (rank, _) in enumerate(pairs) if index == rank)
    surplus = int(counts.sum()) - profile.rows
    # What linear pieces add to a convex curve is taken back in the middle, a unit per rank a turn.
    while surplus:
        step = 1 if surplus > 0 else -1
        ranks = head + np.flatnonzero(counts[head:] > (2 if step > 0 else 1))
        ranks = ranks[: abs(surplus)]
        assert ranks.size, "a profile whose middle cannot absorb the difference"
        counts[ranks] -= step
        surplus -= step * ranks.size
    return counts


def _order(rng: np.random.Generator, counts: I64, profile: Profile) -> I64:
    """Return ranks in row order, each as often as `counts` says, in bursts over the rows."""
    ranks = np.repeat(np.arange(len(counts)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    burst = (np.arange(profile.rows) - first) // profile.burst
    starts = rng.integers(0, profile.rows, profile.rows)
    at = starts[first + burst] + rng.integers(0, profile.span, profile.rows)
    return ranks[np.argsort(at, kind="stable")]


def _amounts(rng: np.random.Generator, profile: Profile) -> U64:
    """Return amounts between neighbouring quantiles, each interval as likely as the next."""
    quantiles = np.array(profile.amounts, np.uint64)
    interval = rng.integers(0, len(quantiles) - 1, profile.rows)
    width = quantiles[interval + 1] - quantiles[interval]
    # 20 bits of position: a width stays below 2^44 here, so the product stays below 2^64.
    position = rng.integers(0, 1 << 20, profile.rows, dtype=np.uint64)
    return quantiles[interval] + (width * position >> np.uint64(20))
