"""The device's whole path, Numba's host side included, on the software device.

A process gets its driver once, so each file of claims is run by a pytest of its own. The files of
`simulated/` run here too, but for what they say of the simulator itself: compiled kernels, real
streams, work that is late.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SEED
from tests.kernels.gpu.software.install import SCHEDULES, missing

REPOSITORY = Path(__file__).resolve().parents[4]
SOFTWARE, SIMULATED = "tests/kernels/gpu/software", "tests/kernels/gpu/simulated"
SECONDS_MAX = 600
LANE_BLOCKS = "1000"
"""Random blocks of long lanes where time is no matter."""
OF_THE_SIMULATOR = frozenset({"sim_bench"})
"""Files that say how a simulator differs from a device."""

needs_packages = pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")


def run(*arguments: str, schedule: str = "late", **environment: str) -> tuple[int, str]:
    """Run a script on the software device; returns its exit status and what it printed.

    arguments: options of the device may come before the script.
    """
    options = ("--schedule", schedule, "--seed", str(SEED))
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.gpu.software", *options, *arguments],
        cwd=REPOSITORY, env=dict(os.environ, TOS_TEST_SEED=str(SEED), **environment),
        capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def run_claims(
    *arguments: str, schedule: str, options: tuple[str, ...] = (), **environment: str
) -> None:
    """Run pytest on the software device, and assert that all passed and none was left out."""
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    status, printed = run(*options, *command, schedule=schedule, **environment)
    assert status == 0, printed[-12_000:]
    assert re.search(r"\d+ passed", printed)
    assert "skipped" not in printed


@needs_packages
def test_the_device_itself() -> None:
    """The software device orders, checks and fails as it should."""
    run_claims(f"{SOFTWARE}/soft_driver.py", schedule="late")


@needs_packages
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks(schedule: str) -> None:
    """Blocks come to the same as on the CPU, whenever streams do their work."""
    run_claims(f"{SOFTWARE}/soft_blocks.py", f"{SOFTWARE}/soft_announced.py", schedule=schedule)


@needs_packages
def test_blocks_with_threads_that_are_switched() -> None:
    """The same where a kernel's threads are switched at any access of memory, not only in order."""
    run_claims(f"{SOFTWARE}/soft_blocks.py", schedule="random", options=("--interleaved",))


@needs_packages
@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--interleaved",)], ids=["in order", "interleaved"])
def test_many_random_lanes(options: tuple[str, ...]) -> None:
    """Long lanes come to the same in many more blocks, in any order of threads."""
    claims = (f"{SOFTWARE}/soft_blocks.py", "-k", "random_lanes")
    run_claims(*claims, schedule="random", options=options, TOS_LANE_BLOCKS=LANE_BLOCKS)


@needs_packages
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_failures(schedule: str) -> None:
    """A call that fails, at whichever place, leaves the block to the CPU."""
    run_claims(f"{SOFTWARE}/soft_failures.py", f"{SOFTWARE}/soft_memory.py", schedule=schedule)


LOST = """
import numpy as np
from tests.kernels.gpu.software import soft_failures
from tests.kernels.gpu.software.install import installed

rng = np.random.default_rng(1)
fail = installed().fail
print(soft_failures.blocks_that_fail(
    rng, lambda _: fail("run", after=1, code=soft_failures.LAUNCH_FAILED)
))
"""


@needs_packages
def test_a_lost_device_is_one_message(tmp_path: Path) -> None:
    """What it still holds is told by nobody, to the end of the process."""
    script = tmp_path / "script.py"
    script.write_text(LOST)
    status, printed = run(str(script))
    assert status == 0, printed
    assert printed.count("the device is not used any more") == 1
    assert "Traceback" not in printed
    assert "Exception ignored" not in printed


@needs_packages
@pytest.mark.parametrize("schedule", ["late", "random"])
def test_signatures(schedule: str) -> None:
    """Batches have the verdicts of their rows, whenever streams do their work."""
    run_claims(f"{SOFTWARE}/soft_signatures.py", schedule=schedule)


@needs_packages
@pytest.mark.parametrize("schedule", ["late", "random"])
def test_claims_of_the_simulator(schedule: str) -> None:
    """What holds in the simulator holds for compiled kernels on streams."""
    files = sorted((REPOSITORY / SIMULATED).glob("sim_*.py"))
    names = [str(path) for path in files if path.stem not in OF_THE_SIMULATOR]
    assert len(names) >= len(files) - len(OF_THE_SIMULATOR) > 0
    run_claims(*names, schedule=schedule)


@needs_packages
@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_claims_of_a_device(schedule: str) -> None:
    """What `make gpu` tests on a GPU passes here, as it is, with fewer random blocks."""
    name = "tests/kernels/gpu/test_device.py"
    run_claims("-m", "gpu", name, schedule=schedule, TOS_GPU_BLOCKS="6")


@needs_packages
def test_a_benchmark_names_the_device() -> None:
    """A benchmark runs on it, agrees with the CPU, and says what it ran on."""
    sizes = ("--accounts", "2000", "--transactions", "500", "--blocks", "2", "--repeat", "1")
    status, printed = run("bench/lanes.py", "--gpu", "--workload", "uniform", "--check", *sizes)
    assert status == 0, printed
    assert "software device (no GPU)" in printed
    assert "all arms match it" in printed


@needs_packages
def test_the_exit_status_is_the_script_s(tmp_path: Path) -> None:
    """A script sees its own arguments, and its exit status comes out."""
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.argv[1:])\nsys.exit(7)\n")
    status, printed = run(str(script), "--seed", "x")
    assert status == 7
    assert "['--seed', 'x']" in printed


@pytest.mark.skipif(not missing(), reason="this Python has what the software device needs")
def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """Without the packages for devices nothing is run, and a sentence says why."""
    script = tmp_path / "script.py"
    script.write_text("raise AssertionError\n")
    status, printed = run(str(script))
    assert status == 3
    assert "no software device" in printed
