"""Kernels are compiled and loaded before a node is ready, not while it owes others an answer.

The first start of another version, or on another processor, finds nothing compiled. A process of
its own does it, so that what a device needs there is given back, and of several nodes on a machine
one compiles and the others wait for it.
"""

import subprocess
import sys
import time

from kernels import warm
from kernels.backend import Backend
from runtime.logs import Logger
from runtime.tied import tied_command

NS_PER_MS = 1_000_000


def compile_kernels(log: Logger) -> None:
    """Return when everything is compiled, at once where it is; ended by an exception, end it too.

    What could not be compiled ahead is compiled when it is first called, or fails there.
    """
    if warm.is_warm():
        return
    log.info("compiling kernels", why="not done yet for this version and processor")
    start_ns = time.monotonic_ns()
    command = tied_command([sys.executable, "-m", "kernels.warm"])
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            code = process.wait()
        finally:
            process.kill()
    ms = (time.monotonic_ns() - start_ns) // NS_PER_MS
    if code:
        log.warning("kernels were not compiled ahead", code=code, ms=ms)
    else:
        log.info("kernels are compiled", ms=ms)


def load_kernels(backend: Backend) -> None:
    """Call everything once with made-up work: a process loads a kernel when it first calls it.

    That is 0.2 s, which the first transactions and the first block would wait for. What a device
    runs was loaded when it was opened.
    """
    warm.exercise_marks()
    warm.exercise_pool()
    warm.exercise_sorting()
    if backend.name != "gpu":
        warm.exercise(backend)
