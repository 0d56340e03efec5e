"""What `bench/pool.py` promises to whoever types it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import pool

SMALL = ["--pending", "300", "--accounts", "40", "--batch", "70", "--block", "50", "--threads", "1"]


def test_rows_say_what_was_measured(tmp_path: Path) -> None:
    """Every stage has a row with its figures, and the machine stands beside them."""
    path = tmp_path / "rows.json"
    result = CliRunner().invoke(pool.main, [*SMALL, "--repeat", "2", "--json", str(path)])
    assert result.exit_code == 0, result.output
    written = json.loads(path.read_text())
    rows = {row["stage"]: row for row in written["rows"]}
    assert list(rows) == [
        "admit, untouched",
        "admit",
        "admit, verified",
        "select",
        "get_payload",
        "follow",
    ]
    for stage in ("admit", "admit, verified"):
        assert 0 < rows[stage]["min"] <= rows[stage]["tx_per_s"] <= rows[stage]["max"]
    assert rows["select"]["min"] <= rows["select"]["ms"] <= rows["select"]["max"]
    assert rows["follow"]["included"] == 50
    assert written["machine"]["cpu"]
    assert all(stage in result.output for stage in rows)


@pytest.mark.parametrize("arguments", [["--pending", "0"], ["--batch", "x"], ["--repeat", "0"]])
def test_senseless_arguments_exit_with_2(arguments: list[str]) -> None:
    """Nothing is measured for arguments that make no sense."""
    assert CliRunner().invoke(pool.main, arguments).exit_code == 2
