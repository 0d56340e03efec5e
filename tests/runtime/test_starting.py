"""Before a program has begun: no assertions, no start; Ctrl-C ends it without a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from consensus.home import VALIDATOR_NAME, Home
from tests.campaign.process import REPOSITORY, surroundings

KILL = "    os.kill(os.getpid(), signal.SIGINT)"
HEEDED = "signal.signal(signal.SIGINT, signal.default_int_handler)"
"""whoever runs the tests may ignore Ctrl-C, as a shell does for what runs behind it"""
INTERRUPTED = """
import os, signal
{before}
from runtime.starting import loading
with loading():
    os.kill(os.getpid(), signal.SIGINT)
    print("loaded", flush=True)
try:
    os.kill(os.getpid(), signal.SIGINT)
    print("ignored")
except KeyboardInterrupt:
    print("interrupted")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the repository."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "module", ["engine", "consensus", "tests.sim", "tests.campaign", "tests.vectors"]
)
def test_nothing_runs_without_assertions(module: str) -> None:
    """`python -O` is refused with what to do: a simulator without assertions would find nothing."""
    done = run("-O", "-m", module)
    assert (done.returncode, "process.optimized" in done.stderr) == (2, True)


def test_ctrl_c_while_modules_are_imported_ends_the_process_as_the_system_does() -> None:
    """There is no traceback and nothing after it; where Ctrl-C is ignored it stays so."""
    done = run("-c", INTERRUPTED.format(before=HEEDED))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    done = run("-c", INTERRUPTED.format(before=ignored))
    assert (done.returncode, done.stdout) == (os.EX_OK, "loaded\nignored\n")


def test_ctrl_c_is_an_exception_again_when_everything_is_loaded() -> None:
    """Commands clean up after themselves and say that they were stopped."""
    done = run("-c", INTERRUPTED.format(before=HEEDED).replace(KILL, "    pass", 1))
    assert (done.returncode, done.stdout) == (os.EX_OK, "loaded\ninterrupted\n")


IMPORTED_LATE = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "consensus.process":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
from consensus.cli.main import main
sys.exit(main(["run", "--home", {home!r}]))
"""


def test_ctrl_c_while_a_node_imports_the_rest_ends_it_as_the_system_does(tmp_path: Path) -> None:
    """What `run` alone needs is imported late: nothing has begun by then either."""
    Home(folder=tmp_path).keys.add(VALIDATOR_NAME, bytes(32), None)
    done = run("-c", IMPORTED_LATE.format(home=str(tmp_path)))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
