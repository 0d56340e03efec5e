"""Transactions per second, stage by stage, of every arm: `python bench/lanes.py --help`.

The serial arm always runs first; the others must give its statuses and hashes, bit for bit, or the
program exits with 1. Figures are medians over repeats, with the spread beside them. Where
signatures are verified, no key is kept, unlike in a node (`known_keys`). What is run
stands in `workloads`, how it is timed in `arms`, what the oracle says in `check`.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import check, machine, table
from bench.arms import Arm, ArmRun, first_difference, run_arm
from bench.blocks import Workload, build
from bench.plot import SUFFIXES, PlotUnavailable, plot, require_matplotlib
from bench.traces import PROFILES, Trace, TraceError, head, load_trace, traces_folder, twin
from bench.workloads import WORKLOADS, Payments, WorkloadError, replay, synthetic
from kernels.backend import DeviceUnavailable, open_backend
from kernels.pool import THREADS_MAX

BLOCKS = 5
"""Blocks of a synthetic workload unless `--blocks` says otherwise."""
WIDTH = 132
"""Columns of the tables where no terminal says how wide it is."""
ACCOUNT_BYTES = 300
"""Of memory for each account, rounded up: record, key, tree, index, opening balance."""
TRANSACTION_BYTES = 600
"""Of memory for each transaction of all blocks: columns, packed columns, payload."""
EXIT_MISMATCH = 1
EXIT_NO_DEVICE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The command line, read and checked."""

    workloads: list[str]
    trace: Path | None
    accounts: int
    transactions: int
    blocks: int | None
    arms: list[Arm]
    is_signed: bool
    repeat: int
    seed: int
    is_checked: bool
    directory: Path


def read_workloads(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    """Read a comma list of names, or `all`; no name twice."""
    if value is None:
        return None
    names = [item.strip() for item in value.split(",")]
    if names == ["all"]:
        return list(WORKLOADS)
    for name in names:
        if name not in WORKLOADS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(WORKLOADS)}, all")
    return list(dict.fromkeys(names))


def read_threads(_: click.Context, __: click.Parameter, value: str | None) -> list[int]:
    """Read a comma list of thread counts; without one, 1 and all cores."""
    if value is None:
        return sorted({1, len(os.sched_getaffinity(0))})
    try:
        counts = [int(item) for item in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 1,2") from error
    if not all(1 <= count <= THREADS_MAX for count in counts):
        raise click.BadParameter(f"each must be 1..{THREADS_MAX}")
    return list(dict.fromkeys(counts))


def read_output(_: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that could not be written in the end."""
    if value is not None and not value.absolute().parent.is_dir():
        raise click.BadParameter(f"{value.absolute().parent} is no folder; create it first")
    if value is not None and parameter.name == "plot_file" and value.suffix not in SUFFIXES:
        raise click.BadParameter(f"{value} must end in one of {', '.join(SUFFIXES)}")
    return value


@click.command(context_settings={"max_content_width": 100})
@click.option("--gpu", is_flag=True, help="Also run on the GPU; exits with 3 if there is none.")
@click.option(
    "--workload", "workloads", callback=read_workloads, metavar="NAME,...",
    help=f"{', '.join(WORKLOADS)}, or all. Default: weth,uniform, or only --trace.",
)  # fmt: skip
@click.option(
    "--trace", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE.parquet",
    help="Replay this file: integer columns source, target, and amount or amount_gwei.",
)  # fmt: skip
@click.option(
    "--accounts", type=click.IntRange(2), default=1_000_000, show_default=True,
    help="Fill the state up to so many; raised to what a trace has.",
)  # fmt: skip
@click.option(
    "--transactions", type=click.IntRange(1), default=100_000, show_default=True,
    help="Transactions per block.",
)  # fmt: skip
@click.option(
    "--blocks", type=click.IntRange(1),
    help=f"Blocks per repeat. Default: {BLOCKS}; of a trace, all that it fills.",
)  # fmt: skip
@click.option(
    "--threads", callback=read_threads, metavar="N,...",
    help="Threads of the cpu arm, one arm for each. Default: 1 and all cores.",
)  # fmt: skip
@click.option(
    "--signatures", type=click.Choice(["verified", "verify"]), default="verified",
    show_default=True,
    help="verified: before the block, so none is looked at; verify: every one, in the block.",
)  # fmt: skip
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63), default=1, show_default=True)
@click.option("--check", "is_checked", is_flag=True, help="Compare all arms with the oracle, too.")
@click.option(
    "--directory", type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(), help="Where blocks are committed to (a file without a name). Default: here.",
)  # fmt: skip
@click.option(
    "--json", "json_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=read_output, help="Write all rows; bench/report.py compares two such files.",
)  # fmt: skip
@click.option(
    "--plot", "plot_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=read_output, help="Draw throughput and stages (.png, .svg, .pdf).",
)  # fmt: skip
def main(
    gpu: bool,
    workloads: list[str] | None,
    threads: list[int],
    signatures: str,
    json_file: Path | None,
    plot_file: Path | None,
    **rest: Any,
) -> None:
    """Execute blocks on every arm and print transactions per second, stage by stage.

    Exits with 1 if two arms differ in a status or a hash, 2 for arguments that make no sense, 3 if
    --gpu finds no device.
    """
    arms = [Arm(backend="serial", threads=1)]
    arms += [Arm(backend="cpu", threads=count) for count in threads]
    arms += [Arm(backend="gpu", threads=1)] if gpu else []
    if workloads is None:
        workloads = [] if rest["trace"] else ["weth", "uniform"]
    settings = Settings(
        workloads=workloads, arms=arms, is_signed=signatures == "verify", **rest
    )  # fmt: skip
    try:
        if plot_file is not None:
            require_matplotlib()
        device = device_name() if gpu else None
        rows, is_match = run(settings, device)
    except DeviceUnavailable as error:
        click.echo(f"lanes.py: --gpu: {error}; without --gpu, only the CPU arms run", err=True)
        sys.exit(EXIT_NO_DEVICE)
    except (PlotUnavailable, TraceError, WorkloadError) as error:
        raise click.UsageError(str(error)) from error
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")
    if plot_file is not None:
        plot(rows, plot_file)
    sys.exit(0 if is_match else EXIT_MISMATCH)


def device_name() -> str:
    """Return what the device calls itself; raises DeviceUnavailable."""
    backend = open_backend("gpu")
    from kernels.gpu.backend import GpuBackend  # needs Numba's part for devices

    assert isinstance(backend, GpuBackend), "the name says which backend it is"
    name = backend.device.name
    backend.close()
    return name


def run(settings: Settings, device: str | None = None) -> tuple[list[dict[str, Any]], bool]:
    """Run every workload; answers the rows of JSON and whether all arms agree.

    device: the name of the accelerator, if an arm uses one.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    described = machine.describe(settings.directory, device)
    console.print(machine.describe_text(described), highlight=False)
    rows: list[dict[str, Any]] = []
    is_match = True
    for name, trace in _sources(settings):
        payments = _payments(name, trace, settings, cut=False)
        for note in payments.notes:
            console.print(f"[yellow]note:[/yellow] {note}", highlight=False)
        _check_memory(payments, described["memory_bytes"])
        runs, workload = _timed(payments, settings)
        differences = [first_difference(runs[0], item) for item in runs]
        if settings.is_checked:
            matches = _checked(console, name, trace, settings, runs, workload)
            differences = [
                difference if is_equal else difference or "the oracle gives another result"
                for difference, is_equal in zip(differences, matches, strict=True)
            ]
        of_workload = [
            table.row(
                item, workload, is_match=difference is None, machine=described,
                signatures="verify" if settings.is_signed else "verified",
            )
            for item, difference in zip(runs, differences, strict=True)
        ]  # fmt: skip
        table.print_rows(console, of_workload)
        if any("device" in item for item in of_workload):
            from bench.device import print_figures  # needs Numba's part for devices

            print_figures(console, of_workload)
        for item, difference in zip(runs, differences, strict=True):
            if difference is not None:
                is_match = False
                console.print(f"[bold red]{item.arm.label} does not match:[/bold red] {difference}")
        rows += of_workload
    return rows, is_match


def _sources(settings: Settings) -> list[tuple[str, Trace | None]]:
    """Return each workload's name, with its trace (a file, or its twin) if it replays one."""
    folder = traces_folder(machine.REPOSITORY)
    sources: list[tuple[str, Trace | None]] = []
    for name in settings.workloads:
        if name not in PROFILES:
            sources.append((name, None))
            continue
        path = folder / PROFILES[name].file if folder is not None else None
        is_there = path is not None and path.is_file()
        trace = load_trace(path, name) if path and is_there else twin(name, settings.seed)
        sources.append((name, trace))
    if settings.trace is not None:
        name = settings.trace.stem
        if name in settings.workloads:
            name += " (--trace)"
        sources.append((name, load_trace(settings.trace, name)))
    return sources


def _payments(name: str, trace: Trace | None, settings: Settings, *, cut: bool) -> Payments:
    """Make the payments of a workload; `cut`: its small copy, for judging signatures."""
    accounts = check.COPY_ACCOUNTS if cut else settings.accounts
    per_block = check.COPY_TRANSACTIONS if cut else settings.transactions
    accounts, per_block = min(accounts, settings.accounts), min(per_block, settings.transactions)
    blocks = check.CHECK_BLOCKS if cut else settings.blocks
    if trace is None:
        return synthetic(
            name, accounts=accounts, per_block=per_block, blocks=blocks or BLOCKS,
            seed=settings.seed,
        )  # fmt: skip
    if cut:
        trace = head(trace, per_block * check.CHECK_BLOCKS)
    return replay(
        trace, accounts=accounts, per_block=per_block, blocks=blocks, seed=settings.seed
    )  # fmt: skip


def _check_memory(payments: Payments, memory_bytes: int) -> None:
    """Refuse what this machine would only end for taking all its memory."""
    needed = payments.accounts * ACCOUNT_BYTES + len(payments.source) * TRANSACTION_BYTES
    if 0 < memory_bytes < needed:
        raise WorkloadError(
            f"{payments.name} needs about {needed / 2**30:.1f} GiB and this machine has "
            f"{memory_bytes / 2**30:.1f}; lower --accounts, --transactions or --blocks"
        )


def _timed(payments: Payments, settings: Settings) -> tuple[list[ArmRun], Workload]:
    """Build the payloads and time all arms on them, one after another."""
    with _bar() as bar:
        task = bar.add_task(f"{payments.name}: payloads", total=None)
        _tell(bar, f"{payments.name}: making payloads")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, refresh=True)

        workload = build(
            payments, seed=settings.seed, is_signed=settings.is_signed, progress=show
        )  # fmt: skip
        runs = []
        for arm in settings.arms:
            text = f"{payments.name}: {arm.label}"
            _tell(bar, f"{text} (the first run after a change compiles kernels: about a minute)")
            bar.reset(task, total=settings.repeat + 1, description=text)
            bar.refresh()
            runs.append(
                run_arm(
                    arm, workload, repeat=settings.repeat, is_signed=settings.is_signed,
                    directory=settings.directory, step=_stepper(bar, task),
                )
            )  # fmt: skip
    return runs, workload


def _stepper(bar: Progress, task: Any) -> Callable[[], None]:
    def step() -> None:
        bar.advance(task)
        bar.refresh()

    return step


def _checked(
    console: Console,
    name: str,
    trace: Trace | None,
    settings: Settings,
    runs: list[ArmRun],
    workload: Workload,
) -> list[bool]:
    """Compare each arm with the oracle: the first blocks, and signatures on a small copy."""
    blocks = min(check.CHECK_BLOCKS, len(workload.payloads))
    click.echo(f"{workload.payments.name}: the oracle executes the first blocks", err=True)
    matches = check.matches_first_blocks(runs, workload)
    text = f"the first {blocks} blocks whole" if blocks > 1 else "the first block whole"
    if settings.is_signed:
        copy = _payments(name, trace, settings, cut=True)
        signed = build(copy, seed=settings.seed, is_signed=True)
        copies = check.matches_copy(runs, signed, settings.directory)
        matches = [a and b for a, b in zip(matches, copies, strict=True)]
        text += f", and every signature of {len(copy.source)} transactions on a small copy"
    verdict = "all arms match it" if all(matches) else "[bold red]a difference[/bold red]"
    console.print(f"oracle: {verdict}; it executed {text}", highlight=False)
    return matches


def _bar() -> Progress:
    """Return a bar on a terminal's stderr, redrawn between passes only: it would disturb one."""
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(
        *columns, console=errors, auto_refresh=False, transient=True,
        disable=not errors.is_terminal,
    )  # fmt: skip


def _tell(bar: Progress, text: str) -> None:
    """Say in a plain line what a bar would show, where there is no terminal."""
    if bar.disable:
        click.echo(text, err=True)


if __name__ == "__main__":
    main()
