"""bench/consensus_sim.py: its figures are those of the protocol, and its outputs are written."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import consensus_sim


def test_good_case_takes_two_and_three_delays() -> None:
    """Without pacing and execution a block takes 2 delays and its finality 3, disk syncs aside."""
    row = consensus_sim.measure(consensus_sim.CASES[0], 30)
    assert 2 <= row["block_interval"]["median"] < 2.5
    assert 3 <= row["finality"]["median"] < 3.5


def test_figures_are_the_same_twice() -> None:
    """Time is virtual: a second run gives the same row."""
    first, second = (consensus_sim.measure(consensus_sim.CASES[4], 12) for _ in range(2))
    assert first == second


def test_every_case_is_printed_written_and_drawn(tmp_path: Path) -> None:
    """The command prints all cases; JSON has machine and commit; the picture is one."""
    pytest.importorskip("matplotlib", reason="the extra [bench] is not installed")
    rows_file, picture = tmp_path / "rows.json", tmp_path / "picture.svg"
    result = CliRunner().invoke(
        consensus_sim.main,
        ["--heights", "10", "--json", str(rows_file), "--plot", str(picture)],
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(rows_file.read_text())
    assert [row["case"] for row in rows] == [case.name for case in consensus_sim.CASES]
    for row in rows:
        assert row["case"] in result.output
        assert row["machine"]["commit"]
        assert row["heights"] >= 10
    assert picture.read_text().startswith("<?xml")


def test_bad_arguments_are_explained() -> None:
    """Arguments that make no sense exit with 2 and a sentence."""
    result = CliRunner().invoke(consensus_sim.main, ["--plot", "picture.txt"])
    assert result.exit_code == 2
    assert "must end in" in result.output
