"""`python -m tests.sim`: what it prints and how it exits."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.sim import mutants
from tests.sim.__main__ import command, main
from tests.sim.world import World


def invoke(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, list(arguments))


def test_one_seed_prints_its_trace_hash() -> None:
    """One line, the same each time; --trace prints the events before it."""
    first, second, long = invoke("13"), invoke("13"), invoke("13", "--trace")
    assert first.exit_code == second.exit_code == long.exit_code == 0
    assert re.fullmatch(r"trace [0-9a-f]{32} events \d+\n", first.output)
    assert first.output == second.output
    assert long.output.endswith(first.output)
    assert len(long.output.splitlines()) > int(first.output.split()[3])


def test_a_range_is_half_open(tmp_path: Path) -> None:
    """--seeds A:B runs A <= seed < B and writes commit, seeds, events and duration."""
    path = tmp_path / "rows.json"
    result = invoke("--seeds", "12:15", "--json", str(path))
    assert result.exit_code == 0, result.output
    rows = json.loads(path.read_text())
    assert (rows["first_seed"], rows["seeds"], rows["violation"]) == (12, 3, None)
    assert rows["commit"]
    assert rows["events"] > 0
    assert rows["duration_s"] > 0


def test_time_ends_a_campaign() -> None:
    """--minutes 0 runs nothing and is no error."""
    result = invoke("--minutes", "0")
    assert result.exit_code == 0
    assert "seeds 0 " in result.output


def test_mutants_are_listed_by_name_only() -> None:
    """One name a line and nothing else."""
    assert invoke("--list-mutants").output.splitlines() == mutants.names()


def test_all_mutants_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--mutant all says for each what it broke; one that survives makes it exit with 1."""
    path = tmp_path / "rows.json"
    monkeypatch.setattr(mutants, "names", lambda: ["sync-after-send", "reproposal-refused"])
    result = invoke("--mutant", "all", "--seeds", "12:13", "--json", str(path))
    assert result.exit_code == 1
    assert [row["is_caught"] for row in json.loads(path.read_text())] == [True, False]
    assert "survived" in result.output


@pytest.mark.parametrize("arguments", [["0"], ["--seeds", "0:3"]])
def test_a_violation_exits_with_1(arguments: list[str]) -> None:
    """The line says invariant and seed; a shrunk trace follows."""
    result = invoke(*arguments, "--mutant", "sync-after-send")
    assert result.exit_code == 1
    assert re.search(r"^violation I5 seed 0$", result.output, flags=re.MULTILINE)
    assert "shrunk: Scenario(" in result.output
    assert "synced" in result.output or "deliver" in result.output or "answer" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "5"], "no range"),
        (["--seeds", "8:5"], "no range"),
        (["--mutant", "nonsense"], "none of"),
        (["--scenario", "nonsense"], "rotations"),
        (["seed"], "not a valid integer"),
    ],
)
def test_bad_arguments_exit_with_2(arguments: list[str], words: str) -> None:
    """Arguments that make no sense are explained."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_a_crash_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that is no violation, a crash of the core say, is told apart by the exit status."""

    def crash(self: World) -> None:
        raise KeyError("a bug of the core")

    monkeypatch.setattr(World, "run", crash)
    monkeypatch.setattr("sys.argv", ["sim", "1"])
    with pytest.raises(SystemExit) as left:
        command()
    assert left.value.code == 2
    assert "a bug of the core" in capsys.readouterr().err


def test_worlds_by_name(tmp_path: Path) -> None:
    """--scenario runs a world written by hand and says what it cost."""
    path = tmp_path / "row.json"
    result = invoke("--scenario", "down", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert json.loads(path.read_text())["height"] >= 12
    assert "messages_per_view" in result.output
