"""What `bench/gpu.py` promises: steps in order, within their time, and what is kept of them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import gpu
from bench.gpu import FILE, TESTS, Step, result, run_all, slug
from bench.machine import REPOSITORY
from bench.workloads import WORKLOADS
from kernels.backend import DeviceUnavailable, open_backend

WRITES = f"import json, pathlib; pathlib.Path({FILE!r}).write_text(json.dumps([1, 2])); print('x')"
GOOD = Step(name="good", arguments=("-c", WRITES), seconds=60)
QUIET = Step(name="quiet", arguments=("-c", "print('well')"), seconds=60, has_rows=False)
WITHOUT_ROWS = Step(name="without", arguments=("-c", "print('none')"), seconds=60)
BAD = Step(name="bad", arguments=("-c", WRITES + "; raise SystemExit('no')"), seconds=60)
ENDLESS = Step(name="endless", arguments=("-c", "while True: pass"), seconds=1)


def test_steps_run_in_order_until_one_fails(tmp_path: Path) -> None:
    """Rows and last lines of what ran are kept; what comes after a failure is not begun."""
    done = run_all((QUIET, GOOD, BAD, GOOD), tmp_path)
    assert [(name, item.is_well) for name, item in done.items()] == [
        ("quiet", True), ("good", True), ("bad", False),
    ]  # fmt: skip
    kept = json.loads(json.dumps(result("NVIDIA H100 80GB HBM3", done, "2026-01-02")))
    assert kept["rows"] == {"good": [1, 2]}
    assert kept["steps"]["quiet"]["last_line"] == "well"
    assert kept["machine"]["device"] == kept["hardware"] == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize("step", [WITHOUT_ROWS, ENDLESS], ids=lambda step: step.name)
def test_steps_that_fail(step: Step, tmp_path: Path) -> None:
    """A step without rows, and one that takes longer than it may, has failed."""
    assert not run_all((step,), tmp_path)[step.name].is_well


def test_hardware_names_a_folder() -> None:
    """Names of devices become names of folders."""
    assert slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_the_steps_fit_and_name_what_exists() -> None:
    """All steps together stay below eight minutes, and their scripts are there."""
    assert sum(step.seconds for step in gpu.STEPS) <= gpu.SECONDS_MAX < 480
    for step in gpu.STEPS:
        script = step.arguments[0]
        assert script == "-m" or (REPOSITORY / script).is_file()


def test_the_workloads_exist() -> None:
    """The benchmark of blocks is asked for workloads that there are."""
    arguments = next(step.arguments for step in gpu.STEPS if step.name == "lanes")
    assert set(arguments[arguments.index("--workload") + 1].split(",")) <= set(WORKLOADS)


def test_no_device_exits_with_3() -> None:
    """Without a device nothing is run and nothing is written."""
    try:
        open_backend("gpu").close()
    except DeviceUnavailable:
        done = CliRunner().invoke(gpu.main, [])
        assert done.exit_code == 3
        assert "GPU" in done.output
    else:
        pytest.skip("this machine has a device")


def test_all_tests_that_need_a_device_are_run() -> None:
    """The mark `gpu` stands in that folder alone: collecting others takes packages of a node."""
    mark = "pytest.mark." + "gpu"
    tests = REPOSITORY / "tests"
    marked = {path for path in tests.rglob("test_*.py") if mark in path.read_text()}
    assert marked
    assert all(path.is_relative_to(REPOSITORY / TESTS) for path in marked)
