"""What `bench/lanes.py` promises to whoever types it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from bench import arms, lanes, plot, table
from bench.machine import REPOSITORY
from bench.report import load_run
from bench.workloads import WORKLOADS
from kernels.backend import DeviceUnavailable, open_backend

SMALL = ["--accounts", "500", "--transactions", "300", "--blocks", "2", "--repeat", "2"]
QUICK = [*SMALL, "--threads", "1"]
LEAST = [*QUICK, "--accounts", "100", "--transactions", "60"]
"""for what the oracle, which is slow, has to do again"""


def invoke(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(lanes.main, list(arguments))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows that a run wrote."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def test_every_workload_runs_and_matches_the_oracle(tmp_path: Path) -> None:
    """All arms agree with each other and with the oracle on every workload."""
    path = tmp_path / "rows.json"
    result = invoke("--workload", "all", "--check", "--json", str(path), *LEAST)
    assert result.exit_code == 0, result.output
    rows = rows_of(path)
    assert [row["workload"] for row in rows[::2]] == list(WORKLOADS)
    assert [row["arm"] for row in rows] == ["serial", "cpu"] * len(WORKLOADS)
    assert all(row["match"] for row in rows)
    for serial, other in zip(rows[::2], rows[1::2], strict=True):
        assert serial["state_hash"] == other["state_hash"]
        assert serial["receipts_hash"] == other["receipts_hash"]


def test_rows_say_what_was_measured(tmp_path: Path) -> None:
    """A row has every field of the format, ordered figures, and `bench/report.py` reads it."""
    path = tmp_path / "rows.json"
    assert invoke("--workload", "uniform", "--json", str(path), *QUICK).exit_code == 0
    for row in rows_of(path):
        assert (row["accounts"], row["transactions"], row["trace"]) == (500, 300, "none")
        rate = row["tx_per_s"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert set(row["stage_ns_per_tx"]) == set(arms.STAGES)
        assert len(bytes.fromhex(row["state_hash"])) == 32
        assert row["resident_bytes_per_account"] > 64
        assert row["commit_bytes_per_block"] > 400
        assert row["peak_memory_bytes"] > 0
        assert row["payload_bytes_per_block"] > 300 * 182
        assert row["machine"]["cores"] >= 1
    assert len(load_run(path)) == 2


def test_signatures_are_verified_when_asked(tmp_path: Path) -> None:
    """With `--signatures verify` the stage costs something, and the arms still match."""
    path = tmp_path / "rows.json"
    result = invoke(
        "--workload", "uniform", "--signatures", "verify", "--check", "--json", str(path), *LEAST
    )
    assert result.exit_code == 0, result.output
    for row in rows_of(path):
        assert row["signatures"] == "verify"
        assert row["stage_ns_per_tx"]["verify"] > 1000


def test_any_parquet_trace_is_replayed(tmp_path: Path) -> None:
    """`--trace` alone runs that file, with the blocks it fills and its own account count."""
    source = np.arange(1000, dtype=np.uint32) % 700
    columns = {
        "source": source,
        "target": source[::-1],
        "amount": np.arange(1000, dtype=np.uint64),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "mine.parquet")
    path = tmp_path / "rows.json"
    result = invoke(
        "--trace", str(tmp_path / "mine.parquet"), "--accounts", "10", "--transactions", "300",
        "--threads", "2", "--repeat", "1", "--check", "--json", str(path),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "raised from 10 to 700" in result.output
    row = rows_of(path)[0]
    assert (row["workload"], row["trace"], row["blocks"]) == ("mine", "file", 3)


def test_a_twin_stands_in_for_a_missing_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the file a twin runs, and the output says so."""
    monkeypatch.setattr(lanes, "traces_folder", lambda _: None)
    path = tmp_path / "rows.json"
    result = invoke("--workload", "ethereum", "--json", str(path), *QUICK)
    assert result.exit_code == 0, result.output
    assert "twin with its shape stands in" in result.output
    assert rows_of(path)[0]["trace"] == "twin"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workload", "wet"], "none of weth"),
        (["--threads", "0"], "must be 1.."),
        (["--threads", "two"], "no list of numbers"),
        (["--accounts", "1"], "--accounts"),
        (["--accounts", str(2**40)], "accounts must be"),
        (["--transactions", str(2**30), "--workload", "uniform"], "transactions x blocks"),
        (["--trace", "nowhere.parquet"], "does not exist"),
        (["--json", "nowhere/rows.json"], "create it first"),
        (["--plot", "picture.txt"], "must end in"),
        (["--signatures", "some"], "verified"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_arguments_are_explained(arguments: list[str], words: str) -> None:
    """Arguments that make no sense exit with 2 and a sentence, never a traceback."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_a_missing_device_exits_with_3() -> None:
    """`--gpu` without a device says what is missing and what to do, before anything is run."""
    try:
        open_backend("gpu").close()
    except DeviceUnavailable:
        result = invoke("--gpu", *QUICK)
        assert result.exit_code == lanes.EXIT_NO_DEVICE
        assert "without --gpu" in result.output
    else:
        pytest.skip("this machine has a device")


def test_a_difference_between_arms_exits_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm with another state hash is named, together with the block."""

    def run_wrong(arm: arms.Arm, *rest: Any, **options: Any) -> arms.ArmRun:
        run = arms.run_arm(arm, *rest, **options)
        if arm.backend == "serial":
            return run
        wrong = replace(run.blocks[1], state_hash=bytes(32))
        return replace(run, blocks=(run.blocks[0], wrong))

    monkeypatch.setattr(lanes, "run_arm", run_wrong)
    result = invoke("--workload", "uniform", *QUICK)
    assert result.exit_code == lanes.EXIT_MISMATCH
    assert "state_hash of block 2 differs" in result.output


def test_the_script_runs_by_its_path(tmp_path: Path) -> None:
    """`python bench/lanes.py` works from any folder and prints plain lines without a terminal."""
    run = subprocess.run(
        [sys.executable, str(REPOSITORY / "bench/lanes.py"), "--workload", "two-accounts", *QUICK],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "two-accounts" in run.stdout
    assert "\x1b" not in run.stdout + run.stderr


def test_plots_are_drawn(tmp_path: Path) -> None:
    """`--plot` writes a picture of all workloads and arms."""
    pytest.importorskip("matplotlib", reason="the extra [bench] is not installed")
    path = tmp_path / "picture.svg"
    result = invoke("--workload", "uniform,two-accounts", "--plot", str(path), *QUICK)
    assert result.exit_code == 0, result.output
    assert path.read_text().startswith("<?xml")


def test_a_missing_matplotlib_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, `--plot` says what to install, before anything is run."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(plot.PlotUnavailable, match=r"\[bench\]"):
        plot.require_matplotlib()
    result = invoke("--plot", "picture.png", *QUICK)
    assert result.exit_code == 2
    assert "[bench]" in result.output


def test_labels_name_the_threads_of_the_cpu_arm_only() -> None:
    """Serial and gpu have one form each."""
    named = [table.label({"arm": arm, "threads": 2}) for arm in ("serial", "cpu", "gpu")]
    assert named == ["serial", "cpu x2", "gpu"]
