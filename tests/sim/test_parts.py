"""The parts of the simulator: disks that forget, keys that stay secret, executors, scenarios."""

import random

import pytest

from consensus.core.epochs import open_epoch
from consensus.core.events import GetPayload, NewPayload, PayloadBuilt, PayloadJudged, Verdict
from consensus.core.safety import Rules
from consensus.core.types import Epoch, Hash32, Header, Height, Kind, PublicKey, View
from tests.sim import ledger
from tests.sim.arithmetic import execute_serially
from tests.sim.disk import File, frame, records
from tests.sim.executor import Executor
from tests.sim.keys import Keyring, RealKeyring, Signer
from tests.sim.scenario import draw
from tests.sim.scenarios import equal, quiet, rotations
from tests.sim.world import World


def test_a_power_cut_loses_what_was_not_synced(seed: int) -> None:
    """Synced records survive, of the others a prefix; a torn record is never read."""
    rng = random.Random(seed)
    torn = 0
    for _ in range(200):
        file, written = File(), [rng.randbytes(rng.randint(0, 40)) for _ in range(6)]
        for record in written[:3]:
            file.append(frame(record))
        file.sync()
        for record in written[3:]:
            file.append(frame(record))
        file.cut_power(rng)
        found = records(file.content())
        assert found == written[: len(found)]
        assert len(found) >= 3
        torn += sum(map(len, map(frame, found))) != len(file.content())
    assert torn > 20


def test_a_dead_process_loses_nothing_that_it_wrote() -> None:
    """What was written and not synced is there for the next process."""
    file = File()
    file.append(frame(b"written"))
    assert records(file.content()) == [b"written"]


@pytest.mark.parametrize("kind", [Keyring, RealKeyring])
def test_signatures_hold_for_one_key_and_one_message(kind: type[Keyring]) -> None:
    """Another key, another message or another bit is refused, by both kinds of cryptography."""
    keyring = kind(1, 2)
    mine, other = keyring.public_keys
    signer = Signer(keyring, mine)
    made = signer.sign(b"message")
    assert signer.verify(mine, b"message", made)
    assert not signer.verify(other, b"message", made)
    assert not signer.verify(mine, b"massage", made)
    assert not signer.verify(mine, b"message", type(made)(bytes([made[0] ^ 1]) + made[1:]))


def test_forgotten_signatures_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verification does not depend on what the keyring remembers."""
    monkeypatch.setattr("tests.sim.keys.MADE_MAX", 0)
    keyring = Keyring(1, 2)
    made = keyring.sign(keyring.public_keys[0], b"message")
    assert keyring.verify(keyring.public_keys[0], b"message", made)
    assert not keyring.verify(keyring.public_keys[1], b"message", made)
    assert not keyring.verify(b"nobody", b"message", made)


def test_the_serial_execution_of_the_checks_agrees(seed: int) -> None:
    """The two ways to execute a payload, written apart, come to the same hashes."""
    rng, balances, state = random.Random(seed), list(ledger.OPENING_STATE), ledger.OPENING_STATE
    statuses = set()
    for _ in range(50):
        rows = [(rng.randrange(8), rng.randrange(8), rng.randrange(1500)) for _ in range(9)]
        payload = b"".join(bytes((a, b, c & 255, c >> 8)) for a, b, c in rows)
        result = ledger.execute(state, payload)
        state = result.state
        assert execute_serially(balances, payload) == (result.state_hash, result.receipts_hash)
        assert tuple(balances) == state
        assert sum(state) == ledger.ACCOUNTS * ledger.OPENING
        statuses.add(result.receipts_hash)
    assert len(statuses) > 10


def built(executor: Executor, payload: bytes) -> tuple[NewPayload, bytes]:
    """Build a block on genesis; answers the call that judges it."""
    zero = Hash32(executor.schedule.genesis_hash)
    request = GetPayload(
        parent_hash=zero, height=Height(1), payload_bytes_max=64, transactions_max=16,
        objects_max=8, timestamp_ms=1, fee_recipient=PublicKey(bytes(32)), wait_ms=0,
    )  # fmt: skip
    answer, made = executor.build(request, payload)
    assert isinstance(answer, PayloadBuilt)
    header = Header(
        version=1, chain_id=7, epoch=Epoch(0), height=Height(1), parent_hash=zero,
        timestamp_ms=1, proposer=PublicKey(bytes(32)), fee_recipient=PublicKey(bytes(32)),
        validator_set_id=zero, payload_commitment=answer.payload_commitment,
        payload_bytes=answer.payload_bytes, transaction_count=answer.transaction_count,
        transactions_root=answer.transactions_root, state_hash=answer.state_hash,
        receipts_hash=answer.receipts_hash,
    )  # fmt: skip
    return NewPayload(block_hash=Hash32(b"b" * 32), header=header), made


def test_valid_means_durable() -> None:
    """What was VALID outlives a restart of the executor; with the planted bug it does not."""
    for forgets in (False, True):
        executor = World(quiet(4, (equal(range(4)),))).nodes[0].executor
        executor.forgets_to_sync = forgets
        request, payload = built(executor, bytes((0, 1, 5, 0)))
        assert executor.answer(request, payload) == PayloadJudged(verdict=Verdict.VALID)
        executor.restart()
        assert (executor.bytes_of(request.block_hash) == payload) is not forgets


def test_wrong_results_are_invalid() -> None:
    """A broken executor answers INVALID for what others find right."""
    executor = World(quiet(4, (equal(range(4)),))).nodes[0].executor
    request, payload = built(executor, bytes((0, 1, 5, 0)))
    executor.is_wrong = True
    answer = executor.answer(request, payload)
    assert isinstance(answer, PayloadJudged)
    assert answer.verdict == Verdict.INVALID


def test_faulty_power_stays_below_a_third() -> None:
    """In every epoch of every scenario, Byzantine and lasting faults together; and it gets near."""
    near = 0
    for seed in range(300):
        scenario = draw(seed)
        bad = set(scenario.byzantine)
        bad |= {n for fault in scenario.faults if fault.is_for_ever for n in fault.nodes}
        for epoch in range(len(scenario.sets)):
            powers = scenario.powers(epoch)
            faulty = sum(power for node, power in powers.items() if node in bad)
            assert 3 * faulty < sum(powers.values())
            near += 10 * faulty > 3 * sum(powers.values())
        assert scenario == draw(seed)
    assert near > 100


def test_arithmetic_agrees_with_the_core() -> None:
    """Set ids, signed bytes, quorums and leaders, written apart, are those of the core."""
    world = World(rotations())
    signer = world.nodes[0].signer
    for epoch in range(4):
        facts = world.checks.arithmetic.epoch(epoch)
        context = open_epoch(
            chain=world.chain, crypto=signer, rules=Rules(), number=epoch,
            validators=world.schedule.validators(epoch), seed=world.chain.genesis_hash,
        )  # fmt: skip
        assert context.set_id == facts.set_id
        assert list(context.keys) == facts.keys
        for power in range(facts.total + 1):
            assert facts.is_quorum(power) == (power >= context.quorum)
        for view in range(1, 50):
            leader = context.leader(signer, world.chain.genesis_hash, View(view))
            mine = world.checks.arithmetic.leader(epoch, view, world.chain.genesis_hash)
            assert facts.nodes[leader] == mine
        for kind in Kind:
            pid = world.chain.genesis_hash
            assert context.vote_message(kind, View(3), pid) == facts.message(kind, 3, pid)
