"""A smaller world that breaks the same promise: fewer faults, fewer adversaries, quieter links."""

from collections.abc import Iterator
from dataclasses import replace

from tests.sim.scenario import Links, Scenario
from tests.sim.violation import Violation
from tests.sim.world import World

RUNS_MAX = 60
QUIET = Links(loss_permille=0, duplicate_permille=0, delay_max_ms=20, transfer_ms=20)


def breaks(scenario: Scenario, mutant: str | None, invariant: str) -> Violation | None:
    """Return how a scenario breaks an invariant, or None."""
    try:
        World(scenario, mutant).run()
    except Violation as found:
        return found if found.invariant == invariant else None
    return None


def smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Yield scenarios with one thing less."""
    for at in range(len(scenario.faults)):
        yield replace(scenario, faults=scenario.faults[:at] + scenario.faults[at + 1 :])
    if scenario.links != QUIET:
        yield replace(scenario, links=QUIET)
        if scenario.links.loss_permille:
            yield replace(scenario, links=replace(scenario.links, loss_permille=0))
    for at, strategy in enumerate(scenario.strategies):
        if strategy != "silent":
            quieter = (*scenario.strategies[:at], "silent", *scenario.strategies[at + 1 :])
            yield replace(scenario, strategies=quieter)
    if scenario.load != "idle":
        yield replace(scenario, load="idle")


def shrink(scenario: Scenario, mutant: str | None, found: Violation) -> tuple[Scenario, Violation]:
    """Return the smallest scenario found within RUNS_MAX runs, and how it breaks."""
    runs, is_smaller = 0, True
    while is_smaller:
        is_smaller = False
        for candidate in smaller(scenario):
            if runs >= RUNS_MAX:
                return scenario, found
            runs += 1
            again = breaks(candidate, mutant, found.invariant)
            if again is not None:
                scenario, found, is_smaller = candidate, again, True
                break
    return scenario, found
