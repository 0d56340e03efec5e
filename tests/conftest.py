"""What all tests share: a printed seed for random ones, and the shared test data."""

import itertools
import os
import random
import zlib
from pathlib import Path

import hypothesis
import numpy as np
import pytest

SEED = int(os.environ.get("TOS_TEST_SEED") or random.SystemRandom().getrandbits(32))
"""Of every random test in this run; set `TOS_TEST_SEED` to repeat a run."""

# Processes that share the tests (`make test`) begin after this and have the same seed.
os.environ["TOS_TEST_SEED"] = str(SEED)

_folders = itertools.count()

hypothesis.settings.register_profile("tos", deadline=None, max_examples=50, print_blob=True)
hypothesis.settings.load_profile("tos")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what is needed to repeat the random tests, also under -q."""
    terminalreporter.write_line(f"random tests used TOS_TEST_SEED={SEED}")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of one test, printed if it fails; it does not depend on other tests."""
    own = zlib.crc32(f"{SEED} {request.node.nodeid}".encode())
    print(f"seed {own} (TOS_TEST_SEED={SEED})")  # noqa: T201
    return own


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """Return a generator of random numbers for one test."""
    return np.random.default_rng(seed)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty folder whose path is short: addresses of Unix sockets end at 107 bytes."""
    return tmp_path_factory.mktemp(str(next(_folders)), numbered=False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of test data that others made, or skip."""
    named = os.environ.get("TOS_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared data: {folder} is not a folder (set TOS_SHARED)")
    return folder
