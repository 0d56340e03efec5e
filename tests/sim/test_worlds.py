"""Whole worlds: seeds without a violation, worlds written by hand, the small scope, figures."""

import gc
import os
import subprocess
import sys
from dataclasses import replace
from types import FunctionType, ModuleType

import pytest

from bench.machine import REPOSITORY
from consensus.core.types import Kind
from tests.sim import campaign, exhaustive, scenarios
from tests.sim.keys import Signer
from tests.sim.scenario import draw
from tests.sim.world import World

SLOW_SEEDS = 500
NOT_OF_A_REPLICA = (type, ModuleType, FunctionType, Signer)


def test_fifty_seeds_hold() -> None:
    """No invariant breaks in 50 seeds, and they are hostile: every kind of trouble is in them."""
    done = campaign.run(0, 50)
    assert done.violation is None, done.violation
    assert done.seeds == 50
    for name in ("fault power", "fault partition", "fault mute", "loss", "changing sets"):
        assert done.scenarios[name] > 3, name


@pytest.mark.slow
def test_five_hundred_seeds_hold() -> None:
    """No invariant breaks in 500 more seeds."""
    done = campaign.run(50, 50 + SLOW_SEEDS, jobs=2)
    assert done.violation is None, done.violation
    assert done.seeds == SLOW_SEEDS


def test_a_leader_whose_clock_was_set_back_waits() -> None:
    """Seed 6635: a parent from what is the future now; the own vote obeys drift like any other."""
    World(draw(6635)).run()


def test_a_seed_is_the_same_in_every_process() -> None:
    """The trace of a seed does not depend on the process, nor on Python's hash seed."""
    outputs = []
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-m", "tests.sim", "13"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )  # fmt: skip
        outputs.append(run.stdout)
    here = World(draw(13)).run()
    assert outputs == [f"trace {here.trace} events {here.events}\n"] * 2
    assert World(draw(12)).run().trace != here.trace


def test_twenty_epochs_with_half_of_the_set_replaced() -> None:
    """Epochs of two heights go by, nobody of the first set is needed in the end."""
    world = World(scenarios.rotations())
    assert world.run().height >= 2 * 21
    first, last = world.scenario.powers(0), world.scenario.powers(20)
    assert first.keys() != last.keys()
    headers = [world.checks.headers[found] for found in world.checks.final[1:]]
    assert len({header.validator_set_id for header in headers}) > 3


def test_a_jailed_validator_counts_no_more() -> None:
    """A set goes on without the validator that left it, however that one goes on talking."""
    world = World(scenarios.jailed())
    assert world.run().height >= 15
    assert 4 not in world.scenario.powers(2)
    assert max(epoch for epoch, _ in world.adversary.entered()) >= 4


def test_a_joiner_catches_up_and_votes() -> None:
    """A node that starts three epochs late reaches the tip and votes in the set that it joins."""
    world = World(scenarios.joiner())
    assert world.run().height >= 20
    assert any(node == 4 for node, _, _, _ in world.checks.votes_in_order())


def reachable(root: object) -> int:
    """Count the objects that hang on a replica, keys and code aside."""
    seen, waiting = {id(root)}, [root]
    while waiting:
        for item in gc.get_referents(waiting.pop()):
            if id(item) not in seen and not isinstance(item, NOT_OF_A_REPLICA):
                seen.add(id(item))
                waiting.append(item)
    return len(seen)


def test_a_replica_does_not_grow() -> None:
    """What a replica holds after 1,000 heights is what it holds after 250, whatever it calls it."""
    sizes = []
    for heights in (250, 1000):
        world = World(
            scenarios.quiet(4, (scenarios.equal(range(4)),), heights_max=heights, load="idle")
        )
        world.run()
        replicas = [node.replica for node in world.nodes]
        sizes.append(max(reachable(replica) for replica in replicas))
    assert sizes[1] < 1.5 * sizes[0], sizes


def test_old_epochs_and_other_chains_change_nothing() -> None:
    """What two sevenths repeat under present names leads to no certificate and no false blame."""
    assert World(scenarios.replayed()).run().height >= 16


@pytest.mark.parametrize("nodes", [4, 7, 10])
def test_boundaries_become_final_with_a_third_down(nodes: int) -> None:
    """With as many nodes down as a third allows, epoch after epoch ends."""
    assert World(scenarios.down(nodes)).run().height >= 12


def test_a_boundary_block_is_proposed_again() -> None:
    """A boundary block that is notarized and not final admits only re-proposals (H2), and ends."""
    world = scenarios.BoundaryWorld()
    outcome = world.run()
    assert outcome.height >= 8
    assert world.reproposals > 0
    boundary = world.checks.headers[world.checks.final[3]]
    assert boundary.next_validator_set_hash == world.checks.arithmetic.epoch(1).set_id


@pytest.mark.slow
def test_real_cryptography() -> None:
    """The same holds with Ed25519 and BLAKE3, through a power cut of all nodes."""
    assert World(scenarios.real()).run().height >= 10


def test_certificates_hold_nowhere_else() -> None:
    """I8: a certificate of one epoch, kind or chain fails under every other name."""
    world = World(scenarios.rotations(2))
    world.run()
    found = [b.certificate for b in world.nodes[0].store.blocks.values() if b.certificate]
    arithmetic = world.checks.arithmetic
    other = World(scenarios.quiet(13, world.scenario.sets, seed=2)).checks.arithmetic
    for certificate in found:
        assert arithmetic.is_certificate(certificate)
        assert not other.is_certificate(certificate)
        for kind in set(Kind) - {certificate.kind}:
            assert not arithmetic.is_certificate(replace(certificate, kind=kind))


def test_every_schedule_of_one_view_holds() -> None:
    """The small scope to depth 1: every menu of the first view, one Byzantine of four."""
    lines: list[str] = []
    done = exhaustive.run(10, depth_max=1, tell=lines.append)
    assert done["depth_complete"] == 1
    assert done["runs"] == len(exhaustive.MENU)
    assert done["states"] > 30
    assert lines


def test_a_hundred_validators_finalize() -> None:
    """A hundred honest validators: messages per view stay within a small multiple of n squared."""
    outcome = World(scenarios.hundred(3)).run()
    assert outcome.height >= 3
    assert outcome.messages < 8 * 100**2 * (outcome.views + 1)
    assert outcome.message_bytes > 0
