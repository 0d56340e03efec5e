"""What `bench.workloads` and `bench.traces` promise about payments, keys and balances."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from bench.machine import REPOSITORY
from bench.traces import PROFILES, Trace, TraceError, head, load_trace, traces_folder, twin
from bench.workloads import (
    ACCOUNT_MINIMUM,
    BEYOND_MEANS,
    FEE,
    IDLE_BALANCE,
    SUPPLY_MAX,
    SYNTHETIC,
    WorkloadError,
    account_keys,
    nonces,
    opening_balances,
    replay,
    synthetic,
)


def small_trace(amount: list[int]) -> Trace:
    """Return a trace of four accounts that pay in a circle."""
    rows = len(amount)
    return Trace(
        name="circle",
        origin="file",
        source=np.arange(rows) % 4,
        target=(np.arange(rows) + 1) % 4,
        amount=np.array(amount, np.uint64),
        account_count=4,
    )


@pytest.mark.parametrize("name", SYNTHETIC)
def test_synthetic_is_the_same_for_the_same_seed(name: str) -> None:
    """Payments follow from the arguments, stay inside the accounts, and fill whole blocks."""
    first = synthetic(name, accounts=1000, per_block=2000, blocks=2, seed=5)
    again = synthetic(name, accounts=1000, per_block=2000, blocks=2, seed=5)
    other = synthetic(name, accounts=1000, per_block=2000, blocks=2, seed=6)
    assert np.array_equal(first.source, again.source)
    assert np.array_equal(first.target, again.target)
    assert np.array_equal(first.amount, again.amount)
    assert not np.array_equal(first.amount, other.amount)
    assert first.block_count == 2
    assert first.source.min() >= 0
    assert first.source.max() < 1000
    assert first.target.max() < 1000 + first.created
    assert (first.amount == BEYOND_MEANS).any(), "some payments are to fail"


def test_patterns_are_what_their_names_say() -> None:
    """Hot workloads are hot on the side they name; zipf gives its first account a large share."""
    arguments = {"accounts": 1000, "per_block": 4000, "blocks": 1, "seed": 3}
    assert len(np.unique(synthetic("hot-recipient", **arguments).target)) == 1
    hot = synthetic("hot-sender", **arguments)
    assert 1800 < np.bincount(hot.source).max() < 2200
    both = synthetic("two-accounts", **arguments)
    assert set(both.source.tolist()) == set(both.target.tolist()) == {0, 1}
    assert (both.source != both.target).all()
    zipf = synthetic("zipf", **arguments)
    counts = np.sort(np.bincount(zipf.source, minlength=1000))[::-1]
    assert 300 < counts[0] < 500, "one account in ten octaves"
    assert counts[0] > 1.5 * counts[1]


@pytest.mark.parametrize("accounts", [2, 3, 1023, 1024, 1025])
def test_zipf_reaches_every_account_number_and_no_other(accounts: int) -> None:
    """Ranks end exactly at the account count, also beside powers of two."""
    payments = synthetic("zipf", accounts=accounts, per_block=60_000, blocks=1, seed=1)
    assert payments.source.min() == 0
    assert payments.source.max() == accounts - 1
    assert len(np.unique(payments.source)) == accounts


def test_opening_balances_cover_what_is_spent() -> None:
    """Each account opens with its reserve, its idle balance, its amounts and its fees."""
    trace = small_trace([5, 6, 7, 8, 9, 10, 11, 12])
    payments = replay(trace, accounts=10, per_block=4, blocks=None, seed=1)
    balances = opening_balances(payments)
    idle = ACCOUNT_MINIMUM + IDLE_BALANCE
    spent = np.sort(balances - np.uint64(idle))[::-1].tolist()
    assert (
        spent == [8 + 12 + 2 * FEE, 7 + 11 + 2 * FEE, 6 + 10 + 2 * FEE, 5 + 9 + 2 * FEE] + [0] * 6
    )


def test_amounts_that_nobody_could_hold_are_scaled() -> None:
    """A trace with amounts near 2^64 is halved until the supply fits, and says so."""
    payments = replay(small_trace([2**64 - 1] * 8), accounts=4, per_block=8, blocks=1, seed=1)
    assert sum(map(int, opening_balances(payments))) <= SUPPLY_MAX
    assert any("divided" in note for note in payments.notes)


def test_replay_cuts_whole_blocks_and_raises_accounts() -> None:
    """Blocks are those that the trace fills; too few accounts are raised, with a note."""
    trace = small_trace([1] * 10)
    payments = replay(trace, accounts=2, per_block=4, blocks=None, seed=1)
    assert (payments.block_count, len(payments.source), payments.accounts) == (2, 8, 4)
    assert any("raised" in note for note in payments.notes)
    short = replay(trace, accounts=4, per_block=100, blocks=3, seed=1)
    assert (short.block_count, short.per_block) == (1, 10)
    assert len(short.notes) == 2


def test_head_numbers_accounts_anew() -> None:
    """The head of a trace has as many accounts as its rows name."""
    part = head(small_trace([1, 2, 3, 4]), 2)
    assert part.account_count == 3
    assert part.source.tolist() == [0, 1]
    assert part.target.tolist() == [1, 2]


def test_nonces_count_each_sender_in_row_order() -> None:
    """A row's nonce is how many rows of its sender stand before it; checked against a loop."""
    source = np.random.default_rng(11).integers(0, 7, 200)
    seen: dict[int, int] = {}
    expected = []
    for number in source.tolist():
        expected.append(seen.get(number, 0))
        seen[number] = seen.get(number, 0) + 1
    assert nonces(source).tolist() == expected


def test_account_keys_are_distinct_and_depend_on_the_seed() -> None:
    """32 bytes per number, none twice, others for another seed."""
    numbers = np.arange(50_000, dtype=np.uint64)
    keys = account_keys(numbers, 1)
    assert keys.shape == (50_000, 32)
    assert len(np.unique(keys.view("V32"))) == 50_000
    assert not np.array_equal(keys, account_keys(numbers, 99))


def test_sizes_out_of_range_are_refused() -> None:
    """Nonsense is refused before memory is asked for."""
    for arguments in ({"accounts": 1}, {"accounts": 2**40}, {"per_block": 2**40}):
        with pytest.raises(WorkloadError):
            synthetic(
                "uniform", **{"accounts": 9, "per_block": 9, "blocks": 1, "seed": 1} | arguments
            )


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_twin_has_the_shape_that_was_measured(name: str) -> None:
    """A twin has its profile's rows, accounts, busiest sender and busiest recipient exactly."""
    profile, trace = PROFILES[name], twin(name, seed=2)
    assert len(trace.source) == len(trace.target) == len(trace.amount) == profile.rows
    sent, received = np.bincount(trace.source), np.bincount(trace.target)
    assert np.count_nonzero(sent) == profile.senders[-1][0]
    assert np.count_nonzero(received) == profile.recipients[-1][0]
    assert sent.max() == profile.senders[0][1]
    assert received.max() == profile.recipients[0][1]
    numbers = np.union1d(trace.source, trace.target)
    assert len(numbers) == trace.account_count == numbers[-1] + 1


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_twin_is_close_to_its_trace(name: str) -> None:
    """A twin has the accounts of the real trace, and its lanes per block within 10 %."""
    folder = traces_folder(REPOSITORY)
    if folder is None or not (folder / PROFILES[name].file).is_file():
        pytest.skip(f"no trace {PROFILES[name].file}: set TOS_SHARED to the folder above traces/")
    real, made = load_trace(folder / PROFILES[name].file, name), twin(name, seed=1)
    assert made.account_count == real.account_count
    assert len(made.source) == len(real.source)
    for rows in (1000, 10_000):
        for side in ("source", "target"):
            wanted, got = (_distinct(getattr(trace, side), rows) for trace in (real, made))
            assert abs(got - wanted) <= wanted * (0.2 if rows == 1000 else 0.1), (side, rows)


def _distinct(numbers: np.ndarray, rows: int) -> float:
    parts = [numbers[start : start + rows] for start in range(0, len(numbers) - rows + 1, rows)]
    return sum(len(np.unique(part)) for part in parts) / len(parts)


def write(path: Path, **columns: object) -> Path:
    """Write a Parquet file of these columns."""
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_load_trace_numbers_accounts_densely(tmp_path: Path) -> None:
    """Account numbers of a file may have gaps; amounts are kept."""
    path = write(
        tmp_path / "t.parquet",
        source=[900, 7],
        target=[7, 2**40],
        amount=np.array([1, 2**63], np.uint64),
    )
    trace = load_trace(path, "mine")
    assert trace.source.tolist() == [1, 0]
    assert trace.target.tolist() == [0, 2]
    assert trace.amount.tolist() == [1, 2**63]
    assert trace.account_count == 3


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"source": [1], "amount": [1]}, "lacks column target"),
        ({"source": [1], "target": [2]}, "lacks column one of amount"),
        ({"source": [-1], "target": [2], "amount": [1]}, "cannot be read"),
        ({"source": [1], "target": [2], "amount": [0.5]}, "holds double, not integers"),
        ({"source": [1, None], "target": [2, 3], "amount": [1, 1]}, "empty cells"),
        ({"source": ["0xab"], "target": [2], "amount": [1]}, "holds string, not integers"),
    ],
)
def test_unusable_traces_are_refused(
    tmp_path: Path, columns: dict[str, object], words: str
) -> None:
    """A file that is no trace is refused in words that name the column."""
    path = write(tmp_path / "t.parquet", **columns)
    with pytest.raises(TraceError, match=words):
        load_trace(path, "mine")


def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path) -> None:
    """Bytes that are no Parquet give a TraceError, not a traceback of the reader."""
    path = tmp_path / "t.parquet"
    path.write_bytes(b"source,target,amount\n1,2,3\n")
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(path, "mine")
