"""The conduct of nodes in a network in memory: who gets what, who asks whom, who is banned."""

from collections import Counter

import numpy as np
import pytest

from engine.gossip import core
from engine.gossip.effects import Send
from engine.gossip.frames import HASHES_MAX, NOTHING, RECORDS_MAX, Kind, encode_frame
from engine.gossip.peer import GossipLimits, Peer
from kernels.layout import U8
from tests.engine.gossip.net import (
    FORGED,
    STEP_MS,
    UNFIT,
    Net,
    Node,
    hash_records,
    line,
    records_of,
)


def test_a_transaction_travels_down_a_line(rng: np.random.Generator) -> None:
    """What a user sends to A waits at C after B judged it, and nobody sends it back."""
    net, (a, b, c) = line(3)
    net.submit(a, records_of(rng, 7_000))
    net.run(1)
    assert a.pool.records == b.pool.records == c.pool.records
    assert len(b.pool.judged) == len(c.pool.judged) == 7_000
    pushes = Counter(key for key, send in net.sent if send.kind == Kind.PUSH)
    assert set(pushes) == {a.key, b.key}
    assert b.gossip.counts["records_duplicate"] == 0


def test_what_many_peers_send_is_judged_once(rng: np.random.Generator) -> None:
    """Twelve peers push the same transactions, before and after they were judged."""
    hub = Node(1)
    peers = [Node(number) for number in range(2, 14)]
    net = Net(hub, *peers)
    for peer in peers:
        net.join(hub, peer)
    records = records_of(rng, 500)
    frame = encode_frame(Kind.PUSH, records)
    for peer in peers[:6]:
        net.inject(peer, hub, frame)
    assert hub.gossip.waiting_count == 500
    net.judge(hub)
    for peer in peers[6:]:
        net.inject(peer, hub, frame)
    net.run(3)
    assert len(hub.pool.judged) == 500
    assert hub.gossip.counts["records_duplicate"] == 11 * 500
    assert len(hub.pool.records) == 500


def test_those_who_sent_or_announced_are_not_sent_it(rng: np.random.Generator) -> None:
    """A push goes to the peers that are not known to have it, and to each once."""
    hub, sender, teller, other = (Node(number) for number in range(1, 5))
    net = Net(hub, sender, teller, other)
    for peer in (sender, teller, other):
        net.join(hub, peer)
    records = records_of(rng, 10)
    net.inject(teller, hub, encode_frame(Kind.ANNOUNCE, hash_records(records)))
    net.inject(sender, hub, encode_frame(Kind.PUSH, records))
    net.judge(hub)
    pushed = [send.peer for key, send in net.sent if key == hub.key and send.kind == Kind.PUSH]
    assert pushed == [other.key]


def test_a_flood_of_bad_signatures_is_banned_and_honest_ones_flow(
    rng: np.random.Generator,
) -> None:
    """One bad signature bans its sender with all that waits; memory has its bound; others go on."""
    limits = GossipLimits(batch_records=1_000, waiting_records=2 * RECORDS_MAX)
    net, (a, b, c) = line(3, limits)
    bad = Node(9)
    net.nodes[bad.key] = bad
    net.join(bad, b)
    for _ in range(30):
        net.inject(bad, b, encode_frame(Kind.PUSH, records_of(rng, 2_000, FORGED)))
        assert b.gossip.waiting_count <= 4 * 2 * RECORDS_MAX
    assert b.gossip.counts["records_deferred"] > 0
    net.submit(a, records_of(rng, 300))
    net.run(2)
    assert [ban.peer for ban in b.bans] == [bad.key]
    assert "SIGNATURE" in b.bans[0].reason
    assert b.bans[0].until_ms == net.now_ms - STEP_MS + core.BAN_MS
    assert b.gossip.waiting_count == 0
    assert c.pool.records == b.pool.records == a.pool.records
    assert b.gossip.counts["records_offending"] <= 1_000
    assert b.gossip.counts["dropped_banned"] > 0
    assert a.bans == c.bans == []


def test_a_connection_that_is_full_for_a_moment_keeps_the_order(rng: np.random.Generator) -> None:
    """What it did not take is pushed again, all of it, without a question."""
    net, (a, b) = line(2)
    net.lost.add((a.key, b.key))
    net.submit(a, records_of(rng, 30_000))
    net.lost.clear()
    net.submit(a, records_of(rng, 10))
    net.run(7)
    assert list(b.pool.records) == list(a.pool.records)
    assert {send.kind for _, send in net.sent} <= {Kind.PUSH, Kind.ASK, Kind.INVENTORY}


def test_what_could_not_be_pushed_is_announced_and_fetched(rng: np.random.Generator) -> None:
    """A connection that takes nothing for a while costs a question later, and no transaction."""
    net, (a, b) = line(2)
    net.lost.add((a.key, b.key))
    net.submit(a, records_of(rng, 900))
    net.run(core.PUSHED_AGAIN_MS // STEP_MS + 3)
    assert not b.pool.records
    net.lost.clear()
    net.run(20)
    assert b.pool.records == a.pool.records
    kinds = Counter(send.kind for _, send in net.sent)
    assert kinds[Kind.ANNOUNCE] == kinds[Kind.WANT] == kinds[Kind.FOUND] == 1


def test_a_peer_that_comes_back_catches_up_by_inventory(rng: np.random.Generator) -> None:
    """A node that was away learns page by page of all that waits elsewhere, once."""
    net, (a, b) = line(2)
    net.submit(a, records_of(rng, 100))
    net.run(2)
    net.part(a, b)
    records = records_of(rng, HASHES_MAX + 4_000)
    missed = [name.tobytes() for name in hash_records(records)]
    net.submit(a, records)
    net.submit(b, records_of(rng, 50))
    net.run(2)
    b.restart()
    net.join(a, b)
    net.run(40)
    assert a.pool.records == b.pool.records
    assert [name for name in b.pool.records if name in missed] == missed
    assert len(b.pool.judged) == len(b.pool.records)
    assert a.gossip.counts["records_served"] == HASHES_MAX + 4_000
    assert b.gossip.counts["unanswered"] == 0


def asks(net: Net) -> int:
    """Count the questions for an inventory."""
    return sum(send.kind == Kind.ASK for _, send in net.sent)


@pytest.mark.parametrize("is_dialled_by_sender", [True, False])
def test_what_a_broken_connection_lost_comes_with_the_next_one(
    rng: np.random.Generator, is_dialled_by_sender: bool
) -> None:
    """A new session in the place of another one is asked about, once, by both of its sides."""
    net, (a, b) = line(2)
    before = asks(net)
    net.is_cut = True
    net.submit(a, records_of(rng, 50))
    net.run(2)
    net.is_cut = False
    net.run(10)
    assert (len(b.pool.records), asks(net)) == (0, before)
    net.renew(*((a, b) if is_dialled_by_sender else (b, a)))
    net.run(10)
    assert b.pool.records == a.pool.records
    assert asks(net) == before + 2


def test_a_question_that_a_broken_connection_lost_is_asked_again(rng: np.random.Generator) -> None:
    """Its answer never comes: after the time that it has, the new session is asked about."""
    net, (a, b) = line(2)
    net.run(2)
    peer = b.gossip._peers[a.key]
    peer.next_ask, peer.pages = 0, 0
    net.is_cut = True
    net.submit(a, records_of(rng, 50))
    net.run(2)
    assert peer.asked == 0
    net.is_cut = False
    net.renew(a, b)
    net.run(2)
    assert not b.pool.records
    net.run((core.ANSWER_MAX_MS + 1_000) // STEP_MS)
    assert b.pool.records == a.pool.records


def test_a_second_session_is_no_loss() -> None:
    """One that comes beside another, or ends, or stays, loses nothing; one that changes does."""
    peer = Peer(b"k", 0, GossipLimits(), 0)
    steps = [(b"", b""), (b"1", b""), (b"1", b"2"), (b"1", b"2"), (b"1", b""), (b"1", b"2")]
    assert not any(peer.has_new_session(names) for names in steps)
    assert peer.has_new_session((b"1", b"3"))
    assert not peer.has_new_session((b"1", b"3"))
    assert not peer.has_new_session((b"", b"3"))
    assert peer.has_new_session((b"4", b"3"))


def test_what_a_full_backlog_lost_comes_with_the_next_inventory(rng: np.random.Generator) -> None:
    """Dropped hashes are counted, and a regular inventory brings the transactions all the same."""
    net, (a, b) = line(2, GossipLimits(backlog_hashes=10))
    net.lost.add((a.key, b.key))
    net.submit(a, records_of(rng, 100))
    assert a.gossip.counts["dropped_backlog_full"] == 90
    net.run(2)
    net.lost.clear()
    net.run(core.INVENTORY_EVERY_MS // STEP_MS + 10)
    assert b.pool.records == a.pool.records


def test_what_was_refused_is_not_asked_for_again_for_a_while(rng: np.random.Generator) -> None:
    """A refusal holds for 10 s against announcements, costs the peer nothing, and then ends."""
    net, (a, b) = line(2)
    records = records_of(rng, 5, UNFIT)
    hashes = hash_records(records)
    for name, row in zip(hashes, records, strict=True):
        a.pool.records[name.tobytes()] = row.tobytes()
    announce = encode_frame(Kind.ANNOUNCE, hashes)
    for _ in range(3):
        net.inject(a, b, announce)
        net.run(3)
    assert (len(b.pool.judged), b.bans) == (5, [])
    net.run(12_000 // STEP_MS)
    net.inject(a, b, announce)
    net.run(3)
    assert len(b.pool.judged) == 10


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("garbage", "head"),
        ("twins", "twice"),
        ("unwanted", "not wanted"),
        ("standstill", "advance"),
    ],
)
def test_what_no_honest_node_does_bans_at_once(
    rng: np.random.Generator, what: str, reason: str
) -> None:
    """A malformed frame, twins, wrong answers: the sender is gone, and nothing was queued."""
    net, (a, b) = line(2)
    records = records_of(rng, 4)
    hashes = hash_records(records)
    if what == "unwanted":
        net.inject(b, a, encode_frame(Kind.ANNOUNCE, hashes[:3]))
        net.perform(a, a.gossip.tick(net.now_ms))
    if what == "standstill":
        net.lost.add((b.key, a.key))
        net.part(a, b)
        net.join(a, b)
        net.run(1)
    frames = {
        "garbage": b"\x01",
        "twins": encode_frame(Kind.PUSH, records[[0, 1, 0]]),
        "unwanted": encode_frame(Kind.FOUND, records[2:]),
        "standstill": encode_frame(Kind.INVENTORY, hashes[:0], 7),
    }
    net.inject(b, a, frames[what])
    assert [ban.peer for ban in a.bans] == [b.key]
    assert reason in a.bans[0].reason
    assert a.gossip.waiting_count == 0


@pytest.mark.parametrize("kind", [Kind.FOUND, Kind.INVENTORY, Kind.ASK])
def test_answers_that_nobody_waits_for_add_up(kind: Kind) -> None:
    """Five within a second are a ban; the same over minutes are none."""
    for pause_steps, is_banned in ((0, True), (30_000 // STEP_MS, False)):
        net, (a, b) = line(2)
        net.lost.add((a.key, b.key))
        items = np.empty((0, 192), np.uint8) if kind == Kind.FOUND else NOTHING
        for _ in range(7):
            if b.key in a.neighbours:
                net.inject(b, a, encode_frame(kind, items))
            net.run(pause_steps)
        assert bool(a.bans) == is_banned


def test_who_takes_the_place_of_a_peer_has_nothing_of_it(rng: np.random.Generator) -> None:
    """A newcomer is sent what the one before it had: else it would wait for an inventory."""
    hub, before, newcomer = (Node(number) for number in range(1, 4))
    net = Net(hub, before, newcomer)
    net.join(hub, before)
    records = records_of(rng, 10)
    net.inject(before, hub, encode_frame(Kind.PUSH, records))
    net.part(hub, before)
    net.join(hub, newcomer)
    net.submit(hub, records)
    pushed = [send.peer for key, send in net.sent if key == hub.key and send.kind == Kind.PUSH]
    assert pushed == [newcomer.key]


def test_an_inventory_without_an_end_bans(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that always name a next one end where no pool has so many."""
    monkeypatch.setattr(core, "PAGES_MAX", 3)
    net, (a, b) = line(2)
    records = records_of(rng, 1)
    net.submit(a, records)
    hashes = hash_records(records)
    net.lost.add((b.key, a.key))
    net.part(a, b)
    net.join(a, b)
    net.run(1)
    for place in (7, 8):
        net.inject(b, a, encode_frame(Kind.INVENTORY, hashes, place))
        net.run(1)
        assert a.bans == []
    net.inject(b, a, encode_frame(Kind.INVENTORY, hashes, 9))
    assert "more pages" in a.bans[0].reason


def test_a_question_without_an_answer_ends(rng: np.random.Generator) -> None:
    """A peer that announces and never answers delays no more than a question's time."""
    net, (a, b) = line(2)
    liar = Node(8)
    net.nodes[liar.key] = liar
    records = records_of(rng, 3)
    hashes = hash_records(records)
    net.join(a, liar)
    net.lost.add((liar.key, a.key))
    net.inject(liar, a, encode_frame(Kind.ANNOUNCE, hashes))
    net.run(1)
    for name, row in zip(hashes, records, strict=True):
        b.pool.records[name.tobytes()] = row.tobytes()
    net.inject(b, a, encode_frame(Kind.ANNOUNCE, hashes))
    net.run(2)
    assert not a.pool.records
    net.run((core.ANSWER_MAX_MS + core.INVENTORY_EVERY_MS * 8) // STEP_MS)
    assert len(a.pool.records) == 3
    assert a.gossip.counts["unanswered"] >= 1
    assert not a.bans


def late(net: Net, a: Node, b: Node, rng: np.random.Generator) -> tuple[U8, U8]:
    """Let A ask B for two transactions, get no answer in time, and ask for two others."""
    records = records_of(rng, 4)
    hashes = hash_records(records)
    net.lost.add((b.key, a.key))
    for start in (0, 2):
        net.inject(b, a, encode_frame(Kind.ANNOUNCE, hashes[start : start + 2]))
        net.run((core.ANSWER_MAX_MS if not start else 0) // STEP_MS + 2)
    asked = [send for key, send in net.sent if key == a.key and send.kind == Kind.WANT]
    assert [send.hashes.tobytes() for send in asked] == [hashes[:2].tobytes(), hashes[2:].tobytes()]
    return records, hashes


def test_an_answer_that_comes_late_is_taken(rng: np.random.Generator) -> None:
    """A slow peer that answers the question before the open one is no liar, and is of use."""
    net, (a, b) = line(2)
    records, hashes = late(net, a, b, rng)
    net.inject(b, a, encode_frame(Kind.FOUND, records[:2]))
    net.inject(b, a, encode_frame(Kind.FOUND, records[2:]))
    net.judge(a)
    assert a.bans == []
    assert list(a.pool.records) == [name.tobytes() for name in hashes]
    assert a.gossip.counts["unasked"] == 0


def test_a_late_answer_is_taken_once_and_others_ban(rng: np.random.Generator) -> None:
    """What was in none of the questions is a lie as ever; so is a second answer to one of them."""
    for frame in (slice(1, 3), slice(0, 2)):
        net, (a, b) = line(2)
        records, _ = late(net, a, b, rng)
        if frame.start == 0:
            net.inject(b, a, encode_frame(Kind.FOUND, records[:2]))
        net.inject(b, a, encode_frame(Kind.FOUND, records[frame]))
        assert [ban.peer for ban in a.bans] == [b.key]


def test_a_peer_that_answers_nothing_is_asked_a_few_times(rng: np.random.Generator) -> None:
    """Questions without an answer are remembered, a bounded number, and for a bounded time."""
    net, (a, b) = line(2)
    records = records_of(rng, 40)
    hashes = hash_records(records)
    net.lost.add((b.key, a.key))
    for number in range(20):
        net.inject(b, a, encode_frame(Kind.ANNOUNCE, hashes[2 * number : 2 * number + 2]))
        net.run(core.ANSWER_MAX_MS // STEP_MS + 2)
    asked = [send for key, send in net.sent if key == a.key and send.kind == Kind.WANT]
    most = 20 * core.ANSWER_MAX_MS // core.LATE_MAX_MS + 1
    assert len(asked) <= core.LATE_QUESTIONS_MAX * most
    net.run(core.LATE_MAX_MS // STEP_MS)
    before = len(asked)
    asked = [send for key, send in net.sent if key == a.key and send.kind == Kind.WANT]
    assert len(asked) > before


def test_a_new_session_owes_no_answers(rng: np.random.Generator) -> None:
    """What was asked for in a session that is over never comes: the peer is asked at once."""
    net, (a, b) = line(2)
    hashes = hash_records(records_of(rng, 2 * core.LATE_QUESTIONS_MAX + 2))
    net.lost.add((b.key, a.key))
    for number in range(core.LATE_QUESTIONS_MAX + 1):
        net.inject(b, a, encode_frame(Kind.ANNOUNCE, hashes[2 * number : 2 * number + 2]))
        net.run(core.ANSWER_MAX_MS // STEP_MS + 2)
    wants = [send for _, send in net.sent if send.kind == Kind.WANT]
    assert len(wants) == core.LATE_QUESTIONS_MAX
    net.renew(a, b)
    net.run(2)
    wants = [send for _, send in net.sent if send.kind == Kind.WANT]
    assert len(wants) == core.LATE_QUESTIONS_MAX + 1


def test_an_inventory_that_comes_late_is_no_lie(rng: np.random.Generator) -> None:
    """The page of a question that is over stands still for the open one: that goes on waiting."""
    net, (a, b) = line(2)
    records = records_of(rng, 1)
    net.submit(a, records)
    hashes = hash_records(records)
    net.lost.add((b.key, a.key))
    net.part(a, b)
    net.join(a, b)
    before = len(net.sent)
    asked: list[Send] = []
    for _ in range(2 * core.INVENTORY_EVERY_MS // STEP_MS):
        net.run(1)
        asked = [send for _, send in net.sent[before:] if send.kind == Kind.ASK]
        if len(asked) == 2:
            break
    assert [send.peer for send in asked] == [b.key, b.key]
    for following in (7, 7, 9):
        net.inject(b, a, encode_frame(Kind.INVENTORY, hashes[:1], following))
        net.run(1)
    assert a.bans == []
    net.inject(b, a, encode_frame(Kind.INVENTORY, hashes[:1], 9))
    assert [ban.peer for ban in a.bans] == [b.key]


def test_a_batch_that_could_not_be_judged_is_wanted_again(rng: np.random.Generator) -> None:
    """When the pool cannot judge, the records are counted as dropped and may come again."""
    net, (a, b) = line(2)
    frame = encode_frame(Kind.PUSH, records_of(rng, 20))
    net.inject(b, a, frame)
    batch = a.gossip.take_batch()
    assert batch is not None
    net.perform(a, a.gossip.judged(batch, None, net.now_ms))
    assert a.gossip.counts["dropped_not_judged"] == 20
    net.inject(b, a, frame)
    net.judge(a)
    assert len(a.pool.records) == 20


def test_more_than_there_is_room_for_is_fetched_in_order(rng: np.random.Generator) -> None:
    """A burst beyond the queue, and what is pushed behind it, are judged in their order."""
    net, (a, b) = line(2, GossipLimits(waiting_records=2 * RECORDS_MAX, batch_records=1_000))
    records = records_of(rng, 20_000)
    for number, row in zip(hash_records(records), records, strict=True):
        a.pool.records[number.tobytes()] = row.tobytes()
    for start in range(0, 20_000, 5_000):
        net.inject(a, b, encode_frame(Kind.PUSH, records[start : start + 5_000]))
    assert b.gossip.waiting_count == 2 * RECORDS_MAX
    net.judge(b)
    net.submit(a, records_of(rng, 10))
    net.run(10)
    assert list(b.pool.records) == list(a.pool.records)
    assert b.gossip.counts["records_deferred"] >= 20_000 - 2 * RECORDS_MAX


def test_every_peer_has_its_share_of_a_batch(rng: np.random.Generator) -> None:
    """A peer with a long queue does not keep the others waiting."""
    net, (a, b) = line(2, GossipLimits(batch_records=100))
    other = Node(7)
    net.nodes[other.key] = other
    net.join(a, other)
    net.inject(b, a, encode_frame(Kind.PUSH, records_of(rng, 5_000)))
    net.inject(other, a, encode_frame(Kind.PUSH, records_of(rng, 30)))
    batch = a.gossip.take_batch()
    assert batch is not None
    assert len(batch.records) == 100
    assert dict(batch.origins)[other.key] == 30
