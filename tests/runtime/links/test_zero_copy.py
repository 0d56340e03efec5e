"""What takes back frames without a copy is there before threads send any."""

import subprocess
import sys

import pytest

from bench.machine import REPOSITORY

OPEN = """
import sys, threading
import zmq
from zmq.utils import garbage
from runtime.links import sockets
from tests.runtime.links.harness import LIMITS

context = zmq.Context()
assert not garbage.gc.is_alive(), "nothing was sent yet"
if sys.argv[1] == "router":
    opened = sockets.open_router(context, LIMITS)
else:
    opened = sockets.open_dealer(context, LIMITS, "tcp://127.0.0.1:9")
assert garbage.gc.is_alive()
assert garbage.gc._push is not None and garbage.gc._push_mutex
"""


@pytest.mark.parametrize("kind", ["router", "dealer"])
def test_opening_a_link_prepares_it(kind: str) -> None:
    """Both kinds of socket set it up, once, in the thread that opens them."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, kind],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
