"""Every kernel of the device in Numba's simulator, which has to be chosen before Numba is imported.

So each file of `simulated/` is run by a pytest of its own, in a process with the simulator.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import SEED

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = Path(__file__).with_name("simulated")
SECONDS_MAX = 300
FILES = sorted(FOLDER.glob("sim_*.py"))
LONGEST = ("sim_accounts", "sim_failures", "sim_lanes")
"""begin first, so that none of them runs alone at the end"""
PROCESSES_MAX = 4


def run_in_simulator(path: Path, environment: dict[str, str]) -> str:
    """Run pytest on a file; returns what it printed, and fails if it failed."""
    # Bodies wrap on purpose, which compiled code does without a word.
    wrapping = "ignore:overflow encountered:RuntimeWarning"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", wrapping]
    done = subprocess.run(
        [*command, str(path)], cwd=REPOSITORY, env=environment, capture_output=True, text=True,
        timeout=SECONDS_MAX, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    return done.stdout


@pytest.fixture(scope="module")
def printed(request: pytest.FixtureRequest) -> Iterator[dict[Path, Future[str]]]:
    """Return what each chosen file's run prints; as many run at a time as there are cores."""
    chosen = {item.name for item in request.session.items if item.parent is request.node}
    files = [path for path in FILES if f"{test_in_the_simulator.__name__}[{path.stem}]" in chosen]
    files.sort(key=lambda path: path.stem not in LONGEST)
    # Made here, not by the threads: pytest changes its own environment from test to test.
    environment = dict(
        os.environ, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1", TOS_TEST_SEED=str(SEED)
    )
    with ThreadPoolExecutor(min(PROCESSES_MAX, len(os.sched_getaffinity(0)))) as pool:
        try:
            yield {path: pool.submit(run_in_simulator, path, environment) for path in files}
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_in_the_simulator(path: Path, printed: dict[Path, Future[str]]) -> None:
    """All claims of the file hold in the simulator, and none of them is left out."""
    text = printed[path].result()
    assert re.search(r"\d+ passed", text)
    assert "skipped" not in text


def test_all_files_are_found() -> None:
    """There is a file for each part of the device's work."""
    assert {path.stem for path in FILES} >= {
        "sim_accounts", "sim_bench", "sim_failures", "sim_grid", "sim_hashes", "sim_lanes",
        "sim_prefix", "sim_service", "sim_signatures", "sim_tree", "sim_uploads",
    }  # fmt: skip
