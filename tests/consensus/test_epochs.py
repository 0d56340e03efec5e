"""H1 to H3: sets that change, boundaries that admit only re-proposals, epochs that never mix."""

import pytest
from nacl.signing import SigningKey

from consensus.core import events as ev
from consensus.core.epochs import InvalidSet, hash_set
from consensus.core.types import (
    Final,
    Hash32,
    Header,
    Kind,
    Propose,
    PublicKey,
    Validator,
    Vote,
    Want,
)
from runtime.keypair import MIXED_KEY, KeyPair
from tests.consensus.crypto import RealCrypto
from tests.consensus.lone import Lone
from tests.consensus.net import FakeCrypto, Net, key_of, make_chain, set_hash

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


def validators(*indexes: int) -> tuple[Validator, ...]:
    """Return a set of these validators with power 1."""
    return tuple(Validator(public_key=key_of(i), power=1) for i in sorted(indexes))


@pytest.mark.parametrize(
    "members",
    [
        (),
        validators(*range(1025)),
        validators(1, 2)[::-1],
        (*validators(1), *validators(1)),
        (Validator(public_key=key_of(1), power=0),),
        tuple(Validator(public_key=key_of(i), power=2**62) for i in (1, 2)),
    ],
    ids=["empty", "1025", "unsorted", "twice", "no power", "too much power"],
)
def test_what_makes_no_set_is_refused(members: tuple[Validator, ...]) -> None:
    """P1: empty, too many, unsorted, a key twice, powers out of range."""
    with pytest.raises(InvalidSet):
        hash_set(FakeCrypto(), members)


def test_keys_of_a_set_are_public_keys() -> None:
    """P1: a key that is in no prime-order subgroup makes no set, whoever names it."""
    crypto = RealCrypto(SigningKey(bytes(32)))
    good = Validator(public_key=PublicKey(KeyPair.of(bytes(32)).public_key), power=1)
    bad = Validator(public_key=PublicKey(MIXED_KEY), power=1)
    hash_set(crypto, (good,))
    with pytest.raises(InvalidSet, match=MIXED_KEY.hex()):
        hash_set(crypto, tuple(sorted((good, bad), key=lambda one: one.public_key)))


def test_twenty_rotations_with_half_of_the_set_replaced() -> None:
    """H1, H2: sets overlap by half from epoch to epoch; every node follows to the same chain."""
    chain = make_chain([1] * 4, heights_per_epoch=3)
    net = Net(chain, count=8)
    for epoch in range(2, 40):
        first = 2 * (epoch - 1)
        net.schedule[epoch] = validators(*((first + i) % 8 for i in range(4)))
    net.run(12_000)
    epochs = [node.replica.epoch for node in net.nodes]
    assert min(epochs) >= 20
    reference = net.nodes[0].finalized
    for node in net.nodes:
        shared = reference.keys() & node.finalized.keys()
        assert len(shared) > 55
        assert all(reference[h].block_hash == node.finalized[h].block_hash for h in shared)
        assert not node.alarms
        assert not node.penalties
    for height, block in reference.items():
        wanted = bytes(32)
        if height % 3 == 0:
            wanted = set_hash(net.validators(block.header.epoch + 1))
        assert block.header.next_validator_set_hash == wanted


def at_boundary(own: int) -> tuple[Lone, Propose]:
    """Return a replica with the boundary block of epoch 0 (L = 1) notarized in view 1."""
    chain = make_chain([1] * 4, heights_per_epoch=1)
    lone = Lone(own=own, chain=chain)
    wanted = set_hash(chain.validators[1])
    propose = lone.propose(1, lone.header(1, next_validator_set_hash=wanted), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(NOTARIZE, 1, propose.proposal))
    return lone, propose


def other_leader() -> int:
    """Return a validator that leads neither view 1 nor view 2 of an epoch of one height."""
    lone = Lone(chain=make_chain([1] * 4, heights_per_epoch=1))
    return next(i for i in range(4) if i not in (lone.leader(1), lone.leader(2)))


def test_a_wrong_next_set_is_refused() -> None:
    """V1: a boundary header names the set that the own executor says."""
    chain = make_chain([1] * 4, heights_per_epoch=1)
    lone = Lone(own=other_leader(), chain=chain)
    lone.hear(lone.propose(1, lone.header(1, next_validator_set_hash=Hash32(b"x" * 32)), 0))
    assert lone.votes() == [(NULLIFY, 1)]


def test_behind_a_boundary_only_reproposals_are_voted_for() -> None:
    """H2: a new block on a boundary that is not final is hopeless, the boundary again is right."""
    lone, propose = at_boundary(other_leader())
    lone.hear(lone.propose(2, lone.header(2, propose.header), 1))
    assert (NULLIFY, 2) in lone.votes()
    lone, propose = at_boundary(other_leader())
    lone.hear(lone.propose(2, propose.header, 1))
    assert (NOTARIZE, 2) in lone.votes()


def test_the_next_epoch_begins_at_view_1_with_an_empty_journal() -> None:
    """H2, W4: the boundary record is durable, in one write with the cut of the journal."""
    lone, propose = at_boundary(other_leader())
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    assert (lone.replica.epoch, lone.replica.view) == (1, 1)
    (boundary,) = lone.disk.boundaries
    assert boundary.block_hash == lone.hash(propose.header)
    assert boundary.validators == lone.chain.validators[1]
    (write,) = [p for p in lone.seen(ev.Persist) if p.boundary is not None]
    assert write.cut is not None
    assert len(lone.disk.journal) == 1
    again = Lone(own=lone.own, chain=lone.chain, disk=lone.disk)
    assert (again.replica.epoch, again.replica.view) == (1, 1)
    assert again.replica.final_height == 1


def test_an_executor_that_names_another_set_stops_the_epoch() -> None:
    """H2: what a quorum made final wins over the own executor, loudly."""
    net = Net(make_chain([1] * 4, heights_per_epoch=2))
    net.nodes[0].schedule = {2: validators(0, 1)}
    net.run(2_000)
    assert all(node.replica.epoch > 5 for node in net.nodes[1:])
    assert net.nodes[0].replica.epoch == 1
    codes = {alarm.code for alarm in net.nodes[0].alarms}
    assert codes == {ev.AlarmCode.WRONG_VALIDATOR_SET}


def test_old_epochs_are_answered_and_never_counted() -> None:
    """H3: votes of an older epoch get its boundary from the store and change nothing."""
    lone, propose = at_boundary(other_leader())
    old = [lone.vote(NULLIFY, 1, Hash32(bytes(32)), i) for i in range(4) if i != lone.own]
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    for sender, vote in enumerate(old):
        lone.hear(vote, sender + 1)
    assert lone.replica.view == 1
    answers = [a for a in lone.seen(ev.AnswerFromStore) if a.request.want == Want.BOUNDARY]
    assert {a.request.epoch for a in answers} == {0}


def test_a_vote_is_worth_nothing_in_another_epoch() -> None:
    """I8: the same words under another epoch's number do not verify."""
    lone, propose = at_boundary(other_leader())
    old = lone.vote(NULLIFY, 1, Hash32(bytes(32)), (lone.own + 1) % 4)
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    replayed = Vote(
        kind=old.kind,
        epoch=lone.replica.epoch,
        view=old.view,
        pid=old.pid,
        signer=old.signer,
        signature=old.signature,
    )
    lone.hear(replayed)
    assert len(lone.seen(ev.Penalize)) == 1


def test_a_joiner_follows_from_genesis() -> None:
    """Q1: a validator of a later epoch that starts late executes everything, then votes."""
    chain = make_chain([1] * 4, heights_per_epoch=4)
    net = Net(chain, count=5)
    for epoch in range(2, 60):
        net.schedule[epoch] = validators(1, 2, 3, 4) if epoch > 8 else validators(0, 1, 2, 3)
    net.nodes[4].is_up = False
    net.run(1_000)
    net.nodes[4].boot()
    net.run(6_000)
    heights = net.heights()
    assert heights[4] > max(heights) - 3
    assert any(isinstance(m, Vote) and m.epoch > 8 for m in net.nodes[4].sent)


def test_a_boundary_of_another_chain_is_refused() -> None:
    """I8: a finalization under the keys of strangers moves nothing."""
    lone = Lone(own=0)
    stranger = Lone(own=0, chain=make_chain([1] * 5))
    header: Header = stranger.header(1)
    certificate = stranger.certificate(FINALIZE, 1, stranger.proposal(1, header, 0))
    lone.hear(Final(header=header, certificate=certificate))
    assert lone.replica.final_height == 0
    assert len(lone.seen(ev.Penalize)) == 1


def test_keys_ascend() -> None:
    """The keys of this folder's worlds stand in the order of their indexes."""
    keys = [key_of(i) for i in range(300)]
    assert keys == sorted(keys)
    assert all(len(key) == 32 for key in keys)
    assert PublicKey(keys[0]) in {v.public_key for v in validators(0)}
