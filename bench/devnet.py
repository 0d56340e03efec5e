"""A network of validators on this machine, under load and faults: `python bench/devnet.py --help`.

Each validator is a consensus process with its own executor process. Figures are those of a window
that begins with the first transfer. At the end all validators' chains are compared, the whole chain
is executed once more from genesis by the serial arm, signatures included, and its first heights by
the specification itself. Exit code 1: hashes differ, a validator signed twice, something final was
lost, or fewer heights than `--expect-heights` became final. The parts are in `network/`.
"""

import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
from rich.console import Console

from bench.network.faults import parse_faults, parse_offsets
from bench.network.homes import BASE_PORT
from bench.network.report import report
from bench.network.run import Options, run
from bench.network.table import Screen, show_report
from runtime.errors import ExplainedError

FOLDER_DEFAULT = Path("build/devnet")
WIDTH = 132
LIMITS = (
    *("--delta-ms", "--execute-max-ms", "--transfer-max-ms", "--block-interval-ms"),
    *("--idle-interval-ms", "--transactions-max", "--payload-bytes-max"),
)
"""Parameters of the chain that `network new` takes and this command passes on."""


def fault_options(command: Any) -> Any:
    """Add the flags of faults."""
    texts = {
        "--kill": "1@20s: kill -9 of validator 1; its executor goes with it",
        "--kill-executor": "2@15s: kill -9 of its executor alone",
        "--restart": "1@40s: start it again",
        "--pause": "2@30s:10s: let both of its processes stand still for 10 s",
        "--partition": "0,1/2,3@50s:10s: nothing passes between the sides",
        "--delay": "100ms or 100ms@10s:20s: every message, each way",
        "--loss": "5% or 5%@10s:20s: of all messages",
        "--clock-offset-ms": "1:2000: its clock is ahead",
    }
    for flag, text in reversed(texts.items()):
        command = click.option(flag, multiple=True, metavar="FAULT", help=text)(command)
    return command


def chain_options(command: Any) -> Any:
    """Add the parameters of the chain."""
    for flag in reversed(LIMITS):
        command = click.option(flag, type=click.IntRange(1), help="of the chain")(command)
    return command


@click.command(context_settings={"max_content_width": 100})
@click.option("--validators", type=click.IntRange(1, 32), default=4, show_default=True)
@click.option(
    "--duration", type=click.IntRange(0, 86_400), default=90, show_default=True,
    help="in seconds; 0: until Ctrl-C, which ends in the report, too",
)  # fmt: skip
@click.option(
    "--rate", type=click.IntRange(0, 10**6), default=5_000, show_default=True,
    help="transactions per second, open loop; 0: no load",
)  # fmt: skip
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER_DEFAULT,
    show_default=True,
    help="where everything is made; that of an earlier run is replaced",
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--expect-heights", type=click.IntRange(1), help="exit code 1 if fewer become final")
@click.option("--idle", is_flag=True, help="no load; time single transactions instead")
@click.option("--accounts", type=click.IntRange(2, 10**7), default=1_000, show_default=True)
@click.option("--batch", type=click.IntRange(1, 32_768), default=500, show_default=True)
@click.option(
    "--base-port", type=click.IntRange(1_024, 60_000), default=BASE_PORT, show_default=True
)
@click.option("--epoch-heights", type=click.IntRange(2), help="of the chain")
@click.option(
    "--schedule",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="validator sets by epoch, as of `network new`",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True)
@click.option("--replay/--no-replay", "replays", default=True, show_default=True)
@fault_options
@chain_options
def main(json_path: Path | None, expect_heights: int | None, **given: Any) -> None:
    """Run a network of validators with their executors, under load and faults, and judge it.

    Faults count from the beginning of the window and may be given several times.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        options = options_of(given)
        with Screen(console) as screen:
            found = run(options, screen)
        values = report(options, found, expect_heights)
    except ExplainedError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from error
    show_report(console, values)
    for note in values["notes"]:
        console.print(f"note: {note}", markup=False, highlight=False)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(values, indent=2) + "\n")
    raise SystemExit(1 if values["violations"] else 0)


def options_of(given: dict[str, Any]) -> Options:
    """Return what the command line asks for; raises FaultError."""
    count = given["validators"]
    flags: list[str] = []
    for flag in (*LIMITS, "--epoch-heights", "--schedule"):
        value = given[flag.removeprefix("--").replace("-", "_")]
        if value is not None:
            flags += [flag, str(value)]
    names = ("kill", "kill_executor", "restart", "pause", "partition", "delay", "loss")
    return Options(
        folder=given["home"].absolute(),
        validators=count,
        duration_s=given["duration"],
        rate=0 if given["idle"] else given["rate"],
        faults=parse_faults(count=count, **{name: given[name] for name in names}),
        offsets_ms=parse_offsets(given["clock_offset_ms"], count),
        accounts=given["accounts"],
        batch=given["batch"],
        base_port=given["base_port"],
        seed=given["seed"],
        has_lone=given["idle"],
        replays=given["replays"],
        network_flags=flags,
    )


def _interrupt(*_: int | FrameType | None) -> None:
    """Let SIGTERM be like Ctrl-C, so that processes are ended and the report is made."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
