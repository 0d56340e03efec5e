"""What goes wrong in a network, and when: the words of the command line as a schedule.

    kill, kill_executor, restart   1@20s            validator 1, 20 s after the load began
    pause                          2@30s:10s        for 10 s
    partition                      0,1/2,3@50s:10s  everybody stands on one side
    delay, loss                    100ms  5%        all the time, or 100ms@10s:20s

Times are integers with ms, s or m. A schedule is a list of acts in order of time; what links do is
one state (`LinkState`), and every change of it is an act with the whole new state.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.errors import ExplainedError

AT_MS_MAX = 24 * 3_600_000
DELAY_MS_MAX = 60_000
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000}
_TIME = re.compile(r"([0-9]{1,9})(ms|s|m)")
_NUMBER = re.compile(r"[0-9]{1,4}")
_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]))?%")

Deed = Literal["kill", "kill_executor", "restart", "pause", "resume", "links"]
ORDER: tuple[Deed, ...] = ("resume", "restart", "links", "pause", "kill_executor", "kill")
"""Which of two acts at the same time comes first."""


class FaultError(ExplainedError):
    """A fault that cannot be read or makes no sense. Codes begin with `fault.`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkState:
    """What relays do with every message between two validators."""

    delay_ms: int = 0
    """each way"""
    loss_permille: int = 0
    groups: tuple[tuple[int, ...], ...] = ()
    """nothing passes from one to another; empty: no partition"""

    def as_json(self) -> dict[str, object]:
        """Return what a relay is told."""
        groups = [list(group) for group in self.groups]
        return {"delay_ms": self.delay_ms, "loss_permille": self.loss_permille, "groups": groups}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One thing that is done to the network."""

    at_ms: int
    """after the load began"""
    deed: Deed
    validator: int = -1
    """-1 for links"""
    links: LinkState = LinkState()
    """what holds from now on; of the deed `links` alone"""

    def __str__(self) -> str:
        """Say it for a log."""
        if self.deed != "links":
            return f"{self.deed.replace('_', ' ')} {self.validator}"
        sides = "/".join(",".join(map(str, group)) for group in self.links.groups)
        parted = f", partition {sides}" if sides else ""
        return f"links: {self.links.delay_ms} ms, {self.links.loss_permille / 10} % lost{parted}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All that shall go wrong."""

    acts: tuple[Act, ...] = ()
    """in the order of time"""
    links_at_start: LinkState = LinkState()
    needs_relays: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """A change of links for a while."""

    start_ms: int
    stop_ms: int
    """AT_MS_MAX: to the end"""
    change: LinkState


def parse_faults(
    *,
    count: int,
    kill: Sequence[str] = (),
    kill_executor: Sequence[str] = (),
    restart: Sequence[str] = (),
    pause: Sequence[str] = (),
    partition: Sequence[str] = (),
    delay: Sequence[str] = (),
    loss: Sequence[str] = (),
) -> Faults:
    """Return the schedule of `count` validators; raises FaultError."""
    acts = []
    named: tuple[tuple[Deed, Sequence[str]], ...] = (
        ("kill", kill), ("kill_executor", kill_executor), ("restart", restart)
    )  # fmt: skip
    for deed, texts in named:
        for text in texts:
            who, at_ms, for_ms = _split(text)
            if at_ms is None or for_ms is not None:
                raise _wrong(text, f"it is written as 1@20s: {deed.replace('_', '-')} has a time")
            acts.append(Act(at_ms=at_ms, deed=deed, validator=_validator(who, text, count)))
    for text in pause:
        who, at_ms, for_ms = _split(text)
        if at_ms is None or for_ms is None:
            raise _wrong(text, "it is written as 2@30s:10s, the time and for how long")
        number = _validator(who, text, count)
        acts.append(Act(at_ms=at_ms, deed="pause", validator=number))
        acts.append(Act(at_ms=at_ms + for_ms, deed="resume", validator=number))
    windows = [
        *(_window(text, LinkState(groups=_groups(text, count)), "0,1/2,3@50s:10s", is_timed=True)
          for text in partition),
        *(_window(text, LinkState(delay_ms=_delay_ms(text)), "100ms or 100ms@10s:20s")
          for text in delay),
        *(_window(text, LinkState(loss_permille=_permille(text)), "5% or 5%@10s:20s")
          for text in loss),
    ]  # fmt: skip
    links = _link_acts(windows)
    acts += links[1:]
    acts.sort(key=lambda act: (act.at_ms, ORDER.index(act.deed), act.validator))
    return Faults(acts=tuple(acts), links_at_start=links[0].links, needs_relays=bool(windows))


def parse_offsets(texts: Iterable[str], count: int) -> dict[int, int]:
    """Return validator -> ms from `1:2000` or `1:-2000`; raises FaultError."""
    found = {}
    for text in texts:
        who, _, offset = text.partition(":")
        if re.fullmatch(r"[+-]?[0-9]{1,8}", offset) is None:
            raise _wrong(text, "a clock's offset is written as 1:2000 or 1:-2000, in ms")
        found[_validator(who, text, count)] = int(offset)
    return found


def _split(text: str) -> tuple[str, int | None, int | None]:
    """Return what stands before @, the time after it, and for how long."""
    what, at, times = text.partition("@")
    if not at:
        return what, None, None
    start, colon, length = times.partition(":")
    return what, _time_ms(start, text), _time_ms(length, text) if colon else None


def _time_ms(part: str, text: str) -> int:
    match = _TIME.fullmatch(part)
    if match is None:
        raise _wrong(text, f"{part!r} is no time: write 500ms, 20s or 2m")
    value = int(match[1]) * _UNITS_MS[match[2]]
    if value > AT_MS_MAX:
        raise _wrong(text, f"{part!r} is longer than a day")
    return value


def _validator(part: str, text: str, count: int) -> int:
    if _NUMBER.fullmatch(part) is None or int(part) >= count:
        raise _wrong(text, f"{part!r} is none of the validators 0 to {count - 1}")
    return int(part)


def _groups(text: str, count: int) -> tuple[tuple[int, ...], ...]:
    sides = _split(text)[0].split("/")
    groups = tuple(tuple(_validator(part, text, count) for part in s.split(",")) for s in sides)
    if sorted(itertools.chain(*groups)) != list(range(count)) or len(groups) < 2:
        raise _wrong(text, "a partition names each validator once, on two sides or more")
    return groups


def _delay_ms(text: str) -> int:
    value = _time_ms(_split(text)[0], text)
    if value > DELAY_MS_MAX:
        raise _wrong(text, f"a message may be delayed by {DELAY_MS_MAX} ms at most")
    return value


def _permille(text: str) -> int:
    match = _PERCENT.fullmatch(_split(text)[0])
    value = 10 * int(match[1]) + int(match[2] or 0) if match is not None else 1_001
    if value > 1_000:
        raise _wrong(text, "a loss is written as 5% or 0.5%, up to 100%")
    return value


def _window(text: str, change: LinkState, form: str, *, is_timed: bool = False) -> _Window:
    _, at_ms, for_ms = _split(text)
    if (at_ms is None) != (for_ms is None) or (is_timed and at_ms is None):
        raise _wrong(text, f"it is written as {form}")
    if at_ms is None or for_ms is None:
        return _Window(start_ms=0, stop_ms=AT_MS_MAX, change=change)
    return _Window(start_ms=at_ms, stop_ms=at_ms + for_ms, change=change)


def _link_acts(windows: Sequence[_Window]) -> list[Act]:
    """Return every state of the links, the first one at 0."""
    times = {0} | {time for window in windows for time in (window.start_ms, window.stop_ms)}
    acts: list[Act] = []
    for at_ms in sorted(times - {AT_MS_MAX}):
        open_ones = [w.change for w in windows if w.start_ms <= at_ms < w.stop_ms]
        parted = [change.groups for change in open_ones if change.groups]
        if len(parted) > 1:
            raise _wrong("--partition", f"two partitions hold at {at_ms} ms; let one end first")
        links = LinkState(
            delay_ms=sum(change.delay_ms for change in open_ones),
            loss_permille=min(1_000, sum(change.loss_permille for change in open_ones)),
            groups=parted[0] if parted else (),
        )
        if not acts or acts[-1].links != links:
            acts.append(Act(at_ms=at_ms, deed="links", links=links))
    return acts


def _wrong(text: str, why: str) -> FaultError:
    return FaultError(
        "fault.form",
        what=f"{text!r} is no fault that a network can be given",
        where="the command line",
        why=why,
        what_to_do="compare it with python bench/devnet.py --help",
    )
