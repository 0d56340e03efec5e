"""Planted bugs are found, and what is found is told so that a person can go on."""

import pytest

from tests.sim import campaign, mutants
from tests.sim.scenario import draw
from tests.sim.shrink import shrink, smaller
from tests.sim.violation import NAMES, Violation
from tests.sim.world import World

SEEDS_MAX = 500
QUICK = (
    ("quorum-minus-one", {"I3", "I8"}),
    ("double-notarize", {"I4"}),
    ("journal-amnesia", {"I4"}),
    ("sync-after-send", {"I5"}),
    ("certificates-not-journalled", {"I5"}),
    ("epoch-missing", {"I8"}),
    ("votes-unweighted", {"I3", "I8"}),
    ("safe-above-head", {"I7"}),
    ("payload-not-durable", {"I10"}),
    ("evidence-forgotten", {"I9"}),
)


def test_there_are_enough() -> None:
    """At least fourteen bugs are planted, and each has a name of its own."""
    assert len(mutants.names()) >= 14
    assert all(mutants.make(name).name == name for name in mutants.names())


@pytest.mark.parametrize(("name", "invariants"), QUICK)
def test_mutants_are_found_at_once(name: str, invariants: set[str]) -> None:
    """The crude bugs break the promise that they are about within a few seeds."""
    done = campaign.run(0, 30, mutant=name)
    assert done.violation is not None
    assert done.violation["invariant"] in invariants


@pytest.mark.slow
@pytest.mark.parametrize("name", mutants.names())
def test_every_mutant_is_found(name: str) -> None:
    """Every planted bug is found within 500 seeds."""
    done = campaign.run(0, SEEDS_MAX, mutant=name, jobs=2)
    assert done.violation is not None
    assert done.violation["invariant"] in NAMES


def test_replaced_functions_are_put_back() -> None:
    """A bug that is planted by replacing a function of the core ends with its world."""
    assert campaign.run(0, 30, mutant="evidence-forgotten").violation is not None
    assert campaign.run(12, 14).violation is None


def test_a_violation_shrinks() -> None:
    """The smaller world breaks the same promise with fewer faults or adversaries."""
    seed = next(s for s in range(200) if draw(s).faults and draw(s).byzantine)
    with pytest.raises(Violation) as caught:
        World(draw(seed), "sync-after-send").run()
    small, found = shrink(draw(seed), "sync-after-send", caught.value)
    assert found.invariant == caught.value.invariant
    assert small.faults == ()
    assert len(list(smaller(small))) < len(list(smaller(draw(seed))))
