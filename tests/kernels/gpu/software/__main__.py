"""Run a script, or a module with -m, on the software device.

    python -m tests.kernels.gpu.software [--schedule late|early|random] [--seed N] [--interleaved]
        SCRIPT ARGS... | -m MODULE ARGS...

The exit status is the script's; 3 where there can be no software device.
"""

import argparse
import runpy
import sys
from functools import partial
from pathlib import Path

from tests.kernels.gpu.software.install import SCHEDULES, install, missing
from tests.kernels.gpu.software.modules import build_module

EXIT_NO_DEVICE = 3


def main(arguments: list[str]) -> int:
    """Install the device, then become the script."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernels.gpu.software",
        description="Run a script, or a module with -m, on a device of software.",
    )
    parser.add_argument("--schedule", choices=SCHEDULES, default="late", help="of streams")
    parser.add_argument("--seed", type=int, default=1, help="of orders; 0: ascending threads")
    parser.add_argument(
        "--let-frees-wait", action="store_true", help="of memory in use, as on a GPU; else an error"
    )
    parser.add_argument(
        "--interleaved", action="store_true", help="switch threads at any access of memory"
    )
    parser.add_argument("-m", dest="is_module", action="store_true", help="SCRIPT is a module")
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS")
    given = parser.parse_args(arguments)
    why = missing()
    if why:
        print(f"no software device: {why}", file=sys.stderr)  # noqa: T201 - there is no terminal yet
        return EXIT_NO_DEVICE
    build = partial(build_module, interleaved=given.interleaved)
    device = install(given.schedule, given.seed, build)
    device.let_frees_wait(given.let_frees_wait)
    sys.argv = [given.script, *given.arguments]
    if given.is_module:
        runpy.run_module(given.script, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(given.script).resolve().parent))
        runpy.run_path(given.script, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
