"""W3: an observer signs nothing until the chain, not the clock alone, says that it may."""

from consensus.core import journal
from consensus.core.finality import count_for_observer
from consensus.core.types import Epoch, Kind, Request, Vote, VotesAnswer, Want
from tests.consensus.lone import WALL_MS, Disk, Lone
from tests.consensus.net import Net, make_chain, set_hash
from tests.consensus.test_journal import own_votes
from tests.consensus.test_voting import follower

NOTARIZE, NULLIFY, FINALIZE = Kind.NOTARIZE, Kind.NULLIFY, Kind.FINALIZE


def test_an_observer_signs_nothing() -> None:
    """W3: it follows the chain to finality without a vote of its own."""
    lone = Lone(own=follower().own, disk=Disk(journal.observer_journal(WALL_MS)))
    assert lone.replica.is_observer
    propose = lone.propose(1, lone.header(1), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    lone.wait(1_000)
    assert lone.votes() == []
    assert lone.replica.final_height == 1


def test_an_observer_votes_again_after_two_later_boundaries() -> None:
    """W3: the mark is removed, durably, by the second boundary later than it + drift."""
    net = Net(make_chain([1] * 4, heights_per_epoch=3, drift_ms=100))
    node = net.nodes[3]
    node.journal = list(journal.observer_journal(10_000))
    node.boot()
    net.run(400)
    assert node.replica.is_observer
    net.run(5_000)
    assert not node.replica.is_observer
    assert journal.replay(tuple(node.journal)).observer_since_ms is None
    assert any(isinstance(m, Vote) and m.signer == 3 for m in node.sent)


def catch_up_with_a_clock_that_is_behind(heights_per_epoch: int) -> tuple[int, Net]:
    """Run a net, wipe node 3 with an observer's mark of 1970, run on; return its epoch before."""
    chain = make_chain([1] * 4, heights_per_epoch=heights_per_epoch, drift_ms=100)
    net = Net(chain)
    net.run(5_000)
    node = net.nodes[3]
    signed = node.replica.epoch
    assert any(isinstance(m, Vote) and m.epoch == signed for m in node.sent)
    net.cut_off.add(3)  # what it signed last is known to nobody
    net.run(5_100)
    net.cut_off.clear()
    node.journal = list(journal.observer_journal(0))
    node.finalized, node.boundaries, node.sent = {}, {}, []
    node.executed, node.executor_final = {}, (0, chain.genesis_hash)
    node.boot()
    return signed, net


def test_a_clock_that_is_behind_does_not_shorten_the_observation() -> None:
    """W3: without a store old boundaries seem late; two count from where a quorum says it is."""
    signed, net = catch_up_with_a_clock_that_is_behind(15)
    node, until_ms = net.nodes[3], net.now_ms + 10_000
    while node.replica.is_observer and net.now_ms < until_ms:
        assert not [v for m in node.sent for v in own_votes(m) if v.signer == 3]
        net.run(net.now_ms + 50)
    assert not node.replica.is_observer
    net.run(net.now_ms + 1_000)
    own = [v for m in node.sent for v in own_votes(m) if v.signer == 3]
    assert min(vote.epoch for vote in own) >= signed + 2
    assert journal.replay(tuple(node.journal)).observer_since_ms is None


def observer(mark: bytes | None = None, powers: list[int] | None = None) -> Lone:
    """Return validator 0 as an observer, without an answer yet."""
    disk = Disk((journal.cut_record(0, 0), mark or journal.observer_record(0)))
    return Lone(powers, own=0, asks=True, disk=disk, heights_per_epoch=1, drift_ms=1)


def place_of(lone: Lone) -> int | None:
    """Return the place that is durable."""
    return journal.replay(tuple(lone.disk.journal)).observer_place


def test_a_place_needs_a_quorum_of_the_others() -> None:
    """W3: answers of q power beside the own one, of members, about the epoch, each once."""
    lone = observer()
    about = VotesAnswer(epoch=lone.epoch.number, signer=0, votes=())
    other = VotesAnswer(epoch=Epoch(1), signer=0, votes=())
    of_another = VotesAnswer(epoch=lone.epoch.number, signer=1, votes=())
    said = ((about, 1), (about, 1), (about, 0), (about, 9), (other, 2), (of_another, 3), (about, 2))
    for answer, peer in said:
        lone.hear(answer, peer)
        assert place_of(lone) is None
    lone.hear(about, 3)
    assert place_of(lone) == 0
    assert lone.replica.is_observer


def test_who_lacks_a_place_asks_and_does_not_answer() -> None:
    """W3: in every epoch and at every retransmission, until it knows; then it answers too."""
    lone = observer()
    question = Request(want=Want.VOTES_OF, epoch=lone.epoch.number, first=0)
    assert lone.sent.count(question) == 1
    lone.wait(1_000)
    asked = lone.sent.count(question)
    assert asked > 2
    about_one = Request(want=Want.VOTES_OF, epoch=lone.epoch.number, first=1)
    assert not [m for m in lone.hear(about_one, 1) if isinstance(m, VotesAnswer)]
    for peer in (1, 2, 3):
        lone.hear(VotesAnswer(epoch=lone.epoch.number, signer=0, votes=()), peer)
    lone.wait(1_000)
    assert lone.sent.count(question) == asked
    assert [m for m in lone.hear(about_one, 1) if isinstance(m, VotesAnswer)]


def test_a_place_survives_and_boundaries_before_it_do_not_count() -> None:
    """W3, W4: after a restart the mark and its place hold; only epochs from there on count."""
    net = Net(make_chain([1] * 4, heights_per_epoch=3, drift_ms=100))
    net.run(3_000)
    node = net.nodes[3]
    place = node.replica.epoch
    assert place > 3
    node.journal = [journal.cut_record(place, 0), journal.observer_record(0, place)]
    node.boot()
    assert node.replica.is_observer
    while node.replica.epoch < place + 2:
        assert node.replica.is_observer
        node.boot()
        net.run(net.now_ms + 20)
    assert not node.replica.is_observer
    node.journal = [journal.cut_record(place + 2, 0), journal.observer_record(0, place)]
    node.boot()
    assert not node.replica.is_observer, "both boundaries are in the store"
    net.run(net.now_ms + 5)
    assert node.replica.epoch == place + 2
    assert journal.replay(tuple(node.journal)).observer_since_ms is None, "removed durably"


def test_a_boundary_within_the_drift_does_not_count() -> None:
    """W3: it is later than mark + drift, by a millisecond at least."""
    net = Net(make_chain([1] * 4, heights_per_epoch=3, drift_ms=100))
    net.run(3_000)
    state = net.nodes[3].replica._st
    boundary = net.nodes[3].boundaries[max(net.nodes[3].boundaries)]
    for distance_ms, counted in ((99, 0), (100, 0), (101, 1)):
        state.observer_since_ms = boundary.header.timestamp_ms - distance_ms
        state.observer_place = 0
        state.observer_boundaries = 0
        count_for_observer(state, boundary)
        assert state.observer_boundaries == counted


def test_boundaries_count_from_the_mark_on() -> None:
    """W3: with a place, too, a boundary whose time is not later than mark + drift is none."""
    net = Net(make_chain([1] * 4, heights_per_epoch=3, drift_ms=100))
    node = net.nodes[3]
    since_ms = 10_000 + 3_000  # three seconds from now on, by the clock of this world
    node.journal = list(journal.observer_journal(since_ms))
    node.boot()
    while node.replica.is_observer:
        net.run(net.now_ms + 50)
    late = [
        boundary
        for boundary in node.boundaries.values()
        if boundary.header.timestamp_ms > since_ms + 100
    ]
    assert len(late) == 2
    assert len(node.boundaries) > 5


def test_answers_of_one_epoch_give_no_place_in_the_next() -> None:
    """W3: a quorum is one of answers about the same epoch."""
    lone = observer()
    for peer in (1, 2):
        lone.hear(VotesAnswer(epoch=lone.epoch.number, signer=0, votes=()), peer)
    wanted = set_hash(lone.chain.validators[1])
    propose = lone.propose(1, lone.header(1, next_validator_set_hash=wanted), 0)
    lone.hear(propose)
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    assert lone.replica.epoch == 1
    for peer, place in ((3, None), (2, None), (1, 1)):
        lone.hear(VotesAnswer(epoch=lone.replica.epoch, signer=0, votes=()), peer)
        assert place_of(lone) == place


def test_nobody_says_that_it_is_in_an_epoch_that_is_over() -> None:
    """W3: while only the executor is awaited to name the next set, VOTES_OF is not answered."""
    lone = Lone(own=0, heights_per_epoch=1)
    question = Request(want=Want.VOTES_OF, epoch=lone.epoch.number, first=1)
    assert [m for m in lone.hear(question, 1) if isinstance(m, VotesAnswer)]
    wanted = set_hash(lone.chain.validators[1])
    propose = lone.propose(1, lone.header(1, next_validator_set_hash=wanted), 0)
    lone.hear(propose)
    lone.replica._st.next_set = None
    lone.answers = False
    lone.hear(lone.certificate(FINALIZE, 1, propose.proposal))
    assert lone.replica.final_height == 1
    assert lone.replica.epoch == 0
    assert not [m for m in lone.hear(question, 1) if isinstance(m, VotesAnswer)]
