"""Many seeds, in one process or several, until one breaks, the range ends or time is up."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.sim.scenario import draw
from tests.sim.violation import Violation
from tests.sim.world import Outcome, World

SEEDS_MAX = 10**9
"""of a campaign that only time ends"""


@dataclass(slots=True, kw_only=True)
class Campaign:
    """What a row of seeds came to."""

    mutant: str | None = None
    first: int = 0
    seeds: int = 0
    events: int = 0
    simulated_ms: int = 0
    heights: int = 0
    views: int = 0
    messages: int = 0
    duration_s: float = 0
    processor_s: float = 0
    """summed over processes"""
    violation: dict[str, Any] | None = None
    scenarios: dict[str, int] = field(default_factory=dict)
    """how many seeds had a property"""

    def add(self, outcome: Outcome, processor_s: float) -> None:
        """Count one seed."""
        self.seeds += 1
        self.events += outcome.events
        self.simulated_ms += outcome.simulated_ms
        self.heights += outcome.height
        self.views += outcome.views
        self.messages += outcome.messages
        self.processor_s += processor_s
        for name in traits(outcome.seed):
            self.scenarios[name] = self.scenarios.get(name, 0) + 1

    def rows(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        rate = int(self.events / self.processor_s) if self.processor_s else 0
        return {
            "mutant": self.mutant,
            "first_seed": self.first,
            "seeds": self.seeds,
            "events": self.events,
            "simulated_s": self.simulated_ms // 1000,
            "heights": self.heights,
            "views": self.views,
            "messages": self.messages,
            "duration_s": round(self.duration_s, 1),
            "processor_s": round(self.processor_s, 1),
            "events_per_s_per_core": rate,
            "violation": self.violation,
            "scenarios": dict(sorted(self.scenarios.items())),
        }


def traits(seed: int) -> list[str]:
    """Return what a seed's scenario has: sizes, strategies, kinds of faults."""
    scenario = draw(seed)
    size = len(scenario.sets[0])
    found = [f"validators {size}", f"load {scenario.load}"]
    found += [f"adversary {strategy}" for strategy in set(scenario.strategies)]
    found += [f"fault {kind}" for kind in {fault.kind for fault in scenario.faults}]
    if scenario.links.loss_permille:
        found.append("loss")
    if len(set(scenario.sets)) > 1:
        found.append("changing sets")
    return sorted(found)


Result = tuple[Outcome | None, dict[str, Any] | None, float]


def run_seed(task: tuple[int, str | None]) -> Result:
    """Run one seed in this process; answers an outcome or a violation, and processor seconds."""
    seed, mutant = task
    begun_s = time.process_time()
    try:
        outcome = World(draw(seed), mutant).run()
    except Violation as found:
        broken = {
            "invariant": found.invariant,
            "seed": found.seed,
            "at_ms": found.at_ms,
            "text": found.text,
        }
        return None, broken, time.process_time() - begun_s
    return outcome, None, time.process_time() - begun_s


def tasks(first: int, end: int, mutant: str | None, until_s: float) -> Iterator[tuple[int, Any]]:
    """Yield seeds until the range or the time ends."""
    for seed in range(first, end):
        if time.monotonic() >= until_s:
            return
        yield seed, mutant


def run(
    first: int,
    end: int,
    *,
    mutant: str | None = None,
    minutes: float | None = None,
    jobs: int = 1,
    tell: Callable[[Campaign], None] | None = None,
) -> Campaign:
    """Run seeds first <= seed < end, at most `minutes`; stops at the first violation."""
    campaign = Campaign(mutant=mutant, first=first)
    begun_s = time.monotonic()
    until_s = begun_s + (60 * minutes if minutes is not None else float("inf"))
    wanted = tasks(first, end, mutant, until_s)
    if jobs == 1:
        _collect(campaign, map(run_seed, wanted), begun_s, tell)
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            _collect(campaign, _ordered(pool, wanted, 4 * jobs), begun_s, tell)
    return campaign


def _ordered(pool: Any, wanted: Iterator[tuple[int, Any]], ahead: int) -> Iterator[Result]:
    """Yield results in the order of seeds, with a bounded number of seeds under way."""
    under_way = []
    for task in wanted:
        under_way.append(pool.apply_async(run_seed, (task,)))
        if len(under_way) >= ahead:
            yield under_way.pop(0).get()
    for result in under_way:
        yield result.get()


def _collect(
    campaign: Campaign,
    results: Iterator[Result],
    begun_s: float,
    tell: Callable[[Campaign], None] | None,
) -> None:
    for outcome, broken, processor_s in results:
        if outcome is None:
            campaign.seeds += 1
            campaign.processor_s += processor_s
            campaign.violation = broken
        else:
            campaign.add(outcome, processor_s)
        campaign.duration_s = time.monotonic() - begun_s
        if tell is not None:
            tell(campaign)
        if broken is not None:
            return
