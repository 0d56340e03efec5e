"""What `bench/kernels.py` promises to whoever types it."""

import json
from pathlib import Path

from click.testing import CliRunner

from bench import kernels

SMALL = ["--accounts", "500,600", "--transactions", "300", "--repeat", "2"]


def test_each_kernel_has_a_row(tmp_path: Path) -> None:
    """Every kernel is measured at every size; only sizes that have a bound are judged."""
    path = tmp_path / "rows.json"
    result = CliRunner().invoke(kernels.main, [*SMALL, "--json", str(path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    rows = json.loads(path.read_text())
    assert {row["kernel"] for row in rows} == set(kernels.BOUNDS_NS)
    assert [row["accounts"] for row in rows] == [0, 0, *[500] * 3, *[600] * 3]
    assert [row["reached"] is None for row in rows] == [row["accounts"] > 0 for row in rows]
    for row in rows:
        assert 0 < row["ns"]["min"] <= row["ns"]["median"] <= row["ns"]["max"]
        assert row["kernel"] in result.output


def test_sizes_are_numbers() -> None:
    """A size that is no number, or too small, exits with 2 and a sentence."""
    for text in ("many", "1"):
        result = CliRunner().invoke(kernels.main, ["--accounts", text])
        assert result.exit_code == 2
        assert "--accounts" in result.output
