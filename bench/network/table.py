"""The network as people see it: a table that is drawn again while it runs, and the report."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.network.processes import Validator
from bench.network.watch import Watch

LINE_EVERY_S = 5
STAGES_SHOWN = 4
NS_PER_S = 1_000_000_000
RATE_WINDOW_NS = 5 * NS_PER_S
MIB = 2**20


class Screen:
    """Draws the table on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        """Draw on a console."""
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._told_s = -LINE_EVERY_S

    def __enter__(self) -> "Screen":
        """Begin to draw."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last picture."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def draw(
        self, watch: Watch, validators: Sequence[Validator], second: int, now_ns: int, load: str
    ) -> None:
        """Show the state of the moment."""
        rate = final_rate(watch, now_ns)
        if self._live is not None:
            self._live.update(picture(watch, validators, f"{second} s  {load}", rate), refresh=True)
        elif second - self._told_s >= LINE_EVERY_S:
            self._told_s = second
            heights = " ".join(shown_height(watch, item) for item in validators)
            self.say(f"{second:>4} s  final {heights}  {rate:,} tx/s  {load}")


def final_rate(watch: Watch, now_ns: int) -> int:
    """Return transactions per second that became final in the last seconds."""
    since_ns = now_ns - RATE_WINDOW_NS
    blocks = [block for block in watch.blocks()[-200:] if block.seen_ns >= since_ns]
    return sum(block.transaction_count for block in blocks) * NS_PER_S // RATE_WINDOW_NS


def shown_height(watch: Watch, validator: Validator) -> str:
    """Return the height of a validator, or what is wrong with it."""
    if not validator.is_running:
        return "down"
    height = str(watch.height(validator.number))
    return f"{height}(paused)" if validator.is_paused else height


def picture(watch: Watch, validators: Sequence[Validator], title: str, rate: int) -> Table:
    """Return the table of a moment."""
    blocks = watch.blocks()
    last = blocks[-1].transaction_count if blocks else 0
    table = Table(
        title=f"{title}  final {watch.highest}  {rate:,} tx/s  last block {last:,}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for name in ("validator", "final", "executor", "epoch", "view", "changes", "missed", "peers"):
        table.add_column(name, justify="right")
    table.add_column("stages, ms")
    for item in validators:
        table.add_row(*_row(watch, item))
    return table


def _row(watch: Watch, item: Validator) -> list[str]:
    status, trouble = watch.status(item.number), watch.trouble(item.number)
    name = f"{item.number}"
    if not item.is_running:
        return [name, "down"]
    if item.is_paused:
        return [name, "paused"]
    if not status:
        return [name, "starting"]
    peers = status["peers"]
    stages = list(status["stage_ms"].items())[:STAGES_SHOWN]
    return [
        name,
        str(status["finalized"]["height"]),
        str(status["executor"]["finalized_height"]) if not trouble else "?",
        str(status["epoch"]),
        str(status["view"]),
        str(status["view_changes"]),
        str(status["missed_votes"]),
        f"{sum(peer['votes'] for peer in peers)}/{len(peers)}",
        "  ".join(f"{stage} {ms}" for stage, ms in stages),
    ]


def show_report(console: Console, values: dict[str, Any]) -> None:
    """Print what a run came to."""
    rates, finality = values["tx_per_s"], values["finality_ms"]
    console.print(
        f"{values['heights_final']} heights final in {values['window_s']} s, "
        f"{values['tx_final']:,} transactions; blocks {values['block_interval_ms']} ms apart"
    )
    if values["load"] is not None:
        console.print(
            f"tx/s offered {rates['offered']:,}, accepted {rates['accepted']:,}, "
            f"final {values['tx_per_s_final']:,}; ms from intended send to finality "
            + ", ".join(f"{name} {ms:,}" for name, ms in finality.items())
        )
    if values["lone"] is not None:
        lone = values["lone"]
        console.print(
            f"a lone transaction is final after {lone['median_ms']} ms (median of "
            f"{lone['count']}, {lone['min_ms']} to {lone['max_ms']})"
        )
    console.print(_processes(values["validators"]))
    replay, oracle = values["replay"], values["oracle"]
    for name, found in (("serial arm", replay), ("oracle", oracle)):
        if found is not None:
            console.print(
                f"replay by the {name}: {found['height']} heights, {found['transactions']:,} "
                f"transactions, {found['signatures']:,} signatures: "
                + (found["difference"] or "equal")
            )
    console.print(
        f"state hashes of validators {'equal' if values['state_hash_equal'] else 'DIFFER'} at "
        f"{values['heights_compared']} heights; double votes {values['double_votes']}"
    )
    for text in values["violations"]:
        console.print(f"VIOLATED: {text}", style="bold red", markup=False)


def _processes(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in (
        *("validator", "role", "final", "view changes", "missed votes", "lives"),
        *("CPU % consensus", "executor", "MiB consensus", "executor", "MiB on disk"),
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row["number"]),
            row["role"],
            str(row["height"]),
            str(row["view_changes"]),
            str(row["missed_votes"]),
            str(row["starts"]),
            *(str(row["cpu_percent"][name]) for name in ("consensus", "executor")),
            *(f"{row['peak_bytes'][name] // MIB:,}" for name in ("consensus", "executor")),
            f"{row['disk_bytes'] // MIB:,}",
        )
    return table
