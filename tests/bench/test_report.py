"""Claims about the comparison of two benchmark runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench import report

REPOSITORY = Path(report.__file__).resolve().parent.parent


def row(rates: tuple[float, float, float], **changes: Any) -> dict[str, Any]:
    """Return one measurement with tx_per_s (min, median, max)."""
    low, middle, high = rates
    standard = {
        "workload": "uniform",
        "trace": None,
        "arm": "cpu",
        "threads": 1,
        "accounts": 1_000_000,
        "transactions": 100_000,
        "tx_per_s": {"median": middle, "min": low, "max": high},
        "stage_ns_per_tx": {"execute": 8.5},
        "state_hash": "aa",
        "receipts_hash": "bb",
        "match": True,
        "machine": {"cpu": "some"},
    }
    return {**standard, **changes}


def compare(tmp_path: Path, before: Any, after: Any) -> Result:
    """Run the command on two runs, written as they are if they are text."""
    paths = []
    for name, content in (("before.json", before), ("after.json", after)):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        paths.append(str(path))
    return CliRunner(env={"COLUMNS": "200"}).invoke(report.main, paths)


def test_ratio_and_spreads_stand_side_by_side(tmp_path: Path) -> None:
    """A pair is printed with both spreads and the ratio of the medians, after over before."""
    result = compare(tmp_path, [row((90, 100, 110))], [row((100, 150, 160))])
    assert result.exit_code == 0
    for text in ("100 (90 to 110)", "150 (100 to 160)", "1.50x", "within noise"):
        assert text in result.output


def test_slower_beyond_the_noise_fails(tmp_path: Path) -> None:
    """A row whose best repeat is below the worst repeat before makes the status 1."""
    result = compare(tmp_path, [row((90, 100, 110))], [row((70, 80, 89))])
    assert result.exit_code == 1
    assert "slower" in result.output


def test_slower_within_the_noise_passes(tmp_path: Path) -> None:
    """Spreads that touch are noise, whatever the medians say."""
    assert compare(tmp_path, [row((90, 100, 110))], [row((10, 20, 90))]).exit_code == 0


def test_faster_beyond_the_noise_is_named(tmp_path: Path) -> None:
    """A row whose worst repeat is above the best one before is called faster."""
    result = compare(tmp_path, [row((90, 100, 110))], [row((111, 120, 130))])
    assert result.exit_code == 0
    assert "faster" in result.output


def test_wrong_results_are_never_fast(tmp_path: Path) -> None:
    """A row that did not match its reference fails the comparison, however fast it is."""
    result = compare(tmp_path, [row((90, 100, 110))], [row((500, 500, 500), match=False)])
    assert result.exit_code == 1
    assert "WRONG RESULT" in result.output


def test_other_hashes_are_named(tmp_path: Path) -> None:
    """A change of what blocks come to is shown beside the verdict on speed, and is no failure."""
    result = compare(tmp_path, [row((90, 100, 110))], [row((90, 100, 110), state_hash="cc")])
    assert result.exit_code == 0
    assert "within noise, other hashes" in result.output


def test_rows_pair_by_their_key_and_not_by_position(tmp_path: Path) -> None:
    """Order does not matter, and rows that only one run has are counted, not compared."""
    slow, fast = row((9, 10, 11), arm="serial"), row((900, 1000, 1100))
    result = compare(tmp_path, [slow, fast], [fast, slow, row((1, 1, 1), threads=2)])
    assert result.exit_code == 0
    assert result.output.count("1.00x") == 2
    assert "1 of 3 rows stand only in" in result.output


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not a run"),
        ("[]", "holds no measurement"),
        ([{"workload": "uniform"}], "missing required field"),
        ([row((100, 90, 110))], "min <= median <= max"),
        ([row((0, 0, 0))], "0 < min"),
        ([row((1, 1, 1)), row((2, 2, 2))], "measures the same thing twice"),
        ([row((1, 1, 1), accounts=7)], "nothing to compare"),
        ([row((1, 1, 1), signatures="verify")], "rates differ anyway"),
    ],
)
def test_unusable_files_are_refused_in_one_sentence(
    tmp_path: Path, content: Any, reason: str
) -> None:
    """A file that is no run, or has nothing in common with the other, gives status 2 and why."""
    result = compare(tmp_path, content, [row((1, 1, 1))])
    assert result.exit_code == 2
    assert reason in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A path that cannot be read gives status 2 and the path."""
    result = CliRunner().invoke(report.main, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert result.exit_code == 2
    assert str(tmp_path / "a") in result.output


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        # -S and -I: a Python without site-packages, as on a machine before `make venv`.
        (["-S", "-I"], "make venv"),
        (["-O"], "python -O"),
    ],
)
def test_wrong_python_is_told_what_to_type(flags: list[str], wanted: str) -> None:
    """Without dependencies, or with assertions off, the script says so and leaves with status 2."""
    script = str(REPOSITORY / "bench" / "report.py")
    done = subprocess.run(
        [sys.executable, *flags, script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr
