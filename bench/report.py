"""Compare two runs of a benchmark: `python bench/report.py BEFORE.json AFTER.json`.

A run is the JSON list that `bench/lanes.py --json` writes, one object per measurement. A change
counts as slower only if even its best repeat is below the worst one before: machines are noisy.
Exit status: 0 nothing is slower, 1 something is, 2 the files cannot be compared.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

FILE_BYTES_MAX = 64 << 20
"""Far above any run; a larger file is something else."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions per second over the repeats of one measurement."""

    median: float
    min: float
    max: float

    def __post_init__(self) -> None:
        """Refuse what no measurement gives."""
        if not 0 < self.min <= self.median <= self.max:
            raise ValueError("tx_per_s needs 0 < min <= median <= max")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement; what else stands in its object is not compared."""

    workload: str
    arm: str
    threads: int
    accounts: int
    transactions: int
    tx_per_s: Spread
    state_hash: str
    receipts_hash: str
    match: bool
    signatures: str = ""
    """whether blocks verified them: not part of the key, but two runs must agree"""

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """Return what two rows must share to be compared."""
        return self.workload, self.arm, self.threads, self.accounts, self.transactions


Key = tuple[str, str, int, int, int]


class UnusableRun(Exception):
    """A file is not a run of the benchmark, or two runs have nothing in common."""


def load_run(path: Path) -> dict[Key, Row]:
    """Return the rows of a run by their key; raise `UnusableRun` if the file is no run."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise UnusableRun(f"{path}: larger than {FILE_BYTES_MAX} bytes, so not a run")
        rows = msgspec.json.decode(path.read_bytes(), type=list[Row])
    except OSError as error:
        raise UnusableRun(f"{path}: cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnusableRun(f"{path}: not a run of bench/lanes.py: {error}") from error
    if not rows:
        raise UnusableRun(f"{path}: holds no measurement")
    keyed = {row.key: row for row in rows}
    if len(keyed) != len(rows):
        raise UnusableRun(f"{path}: measures the same thing twice")
    return keyed


def is_slower(before: Row, after: Row) -> bool:
    """Say whether a row got slower beyond the spread of both runs."""
    return after.tx_per_s.max < before.tx_per_s.min


def compare(before: dict[Key, Row], after: dict[Key, Row]) -> list[tuple[Row, Row]]:
    """Pair the rows that both runs have, in the order of the second; raise if there is none."""
    pairs = [(before[key], row) for key, row in after.items() if key in before]
    if not pairs:
        raise UnusableRun(
            "the two runs share no (workload, arm, threads, accounts, transactions),"
            " so there is nothing to compare"
        )
    for old, new in pairs:
        if old.signatures != new.signatures:
            raise UnusableRun(
                f"{new.workload}: signatures are {old.signatures or 'not named'!r} in the first"
                f" run and {new.signatures or 'not named'!r} in the second, so rates differ anyway"
            )
    return pairs


def _rate(row: Row) -> str:
    spread = row.tx_per_s
    return f"{spread.median:,.0f} ({spread.min:,.0f} to {spread.max:,.0f})"


def _verdict(before: Row, after: Row) -> Text:
    if not after.match:
        return Text("WRONG RESULT", style="bold red")
    old, new = ((row.state_hash, row.receipts_hash) for row in (before, after))
    note = "" if old == new else ", other hashes"
    if is_slower(before, after):
        return Text("slower" + note, style="red")
    if is_slower(after, before):
        return Text("faster" + note, style="green")
    return Text("within noise" + note, style="dim")


def table(pairs: list[tuple[Row, Row]]) -> Table:
    """Lay the pairs out for a terminal."""
    result = Table(title="transactions per second: median (min to max)")
    for name in ("workload", "arm"):
        result.add_column(name, overflow="fold")
    for name in ("threads", "accounts", "transactions", "before", "after", "ratio"):
        result.add_column(name, justify="right")
    result.add_column("verdict")
    for before, after in pairs:
        ratio = after.tx_per_s.median / before.tx_per_s.median
        counts = (f"{n:,}" for n in (after.threads, after.accounts, after.transactions))
        rates = (_rate(before), _rate(after), f"{ratio:.2f}x")
        result.add_row(after.workload, after.arm, *counts, *rates, _verdict(before, after))
    return result


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
def main(before: Path, after: Path) -> None:
    """Compare the runs BEFORE and AFTER, two files of bench/lanes.py --json."""
    try:
        old, new = load_run(before), load_run(after)
        pairs = compare(old, new)
    except UnusableRun as error:
        click.echo(f"report.py: {error}", err=True)
        sys.exit(2)
    console = Console()
    console.print(table(pairs))
    for name, count in ((before, len(old)), (after, len(new))):
        if count > len(pairs):
            console.print(f"{count - len(pairs)} of {count} rows stand only in {name}")
    sys.exit(1 if any(is_slower(*pair) or not pair[1].match for pair in pairs) else 0)


if __name__ == "__main__":
    main()
