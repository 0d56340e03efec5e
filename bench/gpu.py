"""Everything that needs a GPU, in one call of under eight minutes: `make gpu`.

First the tests marked `gpu`, whose failure ends it: a figure of a device that computes something
else is worth nothing. Then `bench/lanes.py --gpu` and `bench/ed25519.py --gpu`. What they print is
shown; their rows, the tests' last line and the machine go to results/<hardware>/<date>.json beside
this file, and a plot to the same name. Exit status: 0 all well, 1 something failed or took too
long, 3 there is no device.
"""

import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click

from bench import machine
from bench.lanes import EXIT_NO_DEVICE, device_name
from bench.plot import plot
from kernels.backend import DeviceUnavailable

RESULTS = Path(__file__).resolve().with_name("results")
SECONDS_MAX = 470
"""of the whole: less than the longest call that a lent machine takes"""
STEP_SECONDS_MIN = 10
"""A step with less time left is not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One program of the whole."""

    name: str
    arguments: tuple[str, ...]
    """after the name of the interpreter; FILE stands for the file of rows"""
    seconds: int
    has_rows: bool = True


TESTS = "tests/kernels/gpu"
"""where all tests marked `gpu` stand: others need packages that no kernel does"""
FILE = "{file}"
STEPS = (
    Step(
        name="tests",
        arguments=("-m", "pytest", "-q", "-m", "gpu", TESTS),
        seconds=180,
        has_rows=False,
    ),
    Step(
        name="lanes",
        arguments=(
            *("bench/lanes.py", "--gpu", "--workload", "uniform,hot-sender", "--json", FILE),
            *("--accounts", "1000000", "--transactions", "1000000", "--blocks", "2"),
            *("--repeat", "3"),
        ),
        seconds=220,
    ),
    Step(
        name="ed25519",
        arguments=("bench/ed25519.py", "--gpu", "--repeat", "3", "--json", FILE),
        seconds=70,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a step ended."""

    is_well: bool
    last_line: str
    seconds: int
    rows: Any


def run_step(step: Step, folder: Path, seconds: int) -> Done:
    """Run a step for at most so many seconds; what it prints is shown as it comes."""
    file = folder / f"{step.name}.json"
    command = [item.replace(FILE, str(file)) for item in step.arguments]
    start, last_line = time.monotonic(), ""
    with subprocess.Popen(
        ["timeout", str(seconds), sys.executable, *command], cwd=machine.REPOSITORY,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None, "it was asked for"
        for line in process.stdout:
            click.echo(line, nl=False)
            last_line = line.strip() or last_line
    rows = json.loads(file.read_text()) if file.exists() else None
    is_well = process.returncode == 0 and (rows is not None or not step.has_rows)
    taken = round(time.monotonic() - start)
    return Done(is_well=is_well, last_line=last_line, seconds=taken, rows=rows)


def slug(name: str) -> str:
    """Return a name of hardware as the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def run_all(steps: tuple[Step, ...], folder: Path) -> dict[str, Done]:
    """Run the steps within SECONDS_MAX; the first that fails is the last."""
    done: dict[str, Done] = {}
    end = time.monotonic() + SECONDS_MAX
    for step in steps:
        left = int(end - time.monotonic())
        if left < STEP_SECONDS_MIN:
            done[step.name] = Done(
                is_well=False, last_line="no time was left", seconds=0, rows=None
            )
            break
        click.echo(f"\n== {step.name}")
        done[step.name] = run_step(step, folder, min(step.seconds, left))
        if not done[step.name].is_well:
            break
    return done


def result(device: str, done: dict[str, Done], date: str) -> dict[str, Any]:
    """Return what is kept: figures of a step that failed are none."""
    return {
        "hardware": device,
        "date": date,
        "machine": machine.describe(machine.REPOSITORY, device),
        "steps": {
            name: {"is_well": item.is_well, "last_line": item.last_line, "seconds": item.seconds}
            for name, item in done.items()
        },
        "rows": {name: item.rows for name, item in done.items() if item.is_well and item.rows},
    }


@click.command()
def main() -> None:
    """Run every test and benchmark that needs a GPU and keep the figures."""
    try:
        device = device_name()
    except DeviceUnavailable as error:
        click.echo(f"gpu.py: {error}", err=True)
        sys.exit(EXIT_NO_DEVICE)
    with tempfile.TemporaryDirectory() as folder:
        done = run_all(STEPS, Path(folder))
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    kept = RESULTS / slug(device)
    kept.mkdir(parents=True, exist_ok=True)
    file = kept / f"{date}.json"
    file.write_text(json.dumps(result(device, done, date), indent=1) + "\n")
    lanes = done.get("lanes")
    if lanes is not None and lanes.is_well:
        plot(lanes.rows, file.with_suffix(".png"))
    for name, item in done.items():
        word = "ok" if item.is_well else "FAILED"
        click.echo(f"{word:7}{name} ({item.seconds} s): {item.last_line}")
    click.echo(f"kept in {file.relative_to(machine.REPOSITORY)}")
    sys.exit(0 if len(done) == len(STEPS) and all(item.is_well for item in done.values()) else 1)


if __name__ == "__main__":
    main()
