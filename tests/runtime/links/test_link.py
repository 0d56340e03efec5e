"""Links on loopback: who hears whom, what is dropped, and what happens when one side goes away."""

import dataclasses

import pytest

from runtime.links import Link, LinkError
from runtime.links.limits import FRAME_COST_BYTES
from tests.runtime.links.harness import LIMITS, OPEN_LIMITS, Net, connect, pair

KEYS = [pair(number).public_key for number in range(5)]


def two(net: Net, *, curve: bool = False) -> tuple[Link, Link]:
    """Return links of nodes 1 and 2; 1 has dialled 2."""
    a = net.link(1, members=[2], curve=curve)
    b = net.link(2, members=[1], curve=curve)
    connect(net, a, KEYS[2], b.address)
    return a, b


@pytest.mark.parametrize("curve", [False, True])
def test_a_connection_carries_frames_both_ways(net: Net, curve: bool) -> None:
    """One dials, both send; each frame comes with the key of its sender."""
    a, b = two(net, curve=curve)
    assert a.send(KEYS[2], b"ping", net.now_ms())
    assert b.send(KEYS[1], b"pong", net.now_ms())
    net.run(lambda: bool(net.frames(a) and net.frames(b)))
    assert net.received[id(a)] == [(KEYS[2], b"pong")]
    assert net.received[id(b)] == [(KEYS[1], b"ping")]
    assert a.connected() == {KEYS[2]}
    assert b.connected() == {KEYS[1]}
    assert (a.counts["frames_out"], a.counts["bytes_in"]) == (1, 4)


@pytest.mark.parametrize("curve", [False, True])
def test_four_links_reach_each_other(net: Net, curve: bool) -> None:
    """In a mesh of four, everybody's frame reaches everybody once, whoever dialled whom."""
    links = [net.link(i, members=range(1, 5), curve=curve) for i in range(1, 5)]
    for i, link in enumerate(links, 1):
        link.set_peers({KEYS[j]: links[j - 1].address for j in range(1, 5) if j != i})
    net.run(
        lambda: all(
            link.can_send(KEYS[j]) for i, link in enumerate(links, 1) for j in range(1, 5) if j != i
        )
    )
    for i, link in enumerate(links, 1):
        for j in range(1, 5):
            if j != i:
                assert link.send(KEYS[j], b"from %d" % i, net.now_ms())
    net.run(lambda: all(len(net.frames(link)) == 3 for link in links))
    for i, link in enumerate(links, 1):
        expected = {(KEYS[j], b"from %d" % j) for j in range(1, 5) if j != i}
        assert set(net.received[id(link)]) == expected


def test_a_restarted_listener_is_proved_anew(net: Net) -> None:
    """A listener that comes back at its address has a new handshake, and traffic goes on."""
    a, b = two(net)
    b = net.restart(b, 2, members=[1])
    net.run(lambda: a.send(KEYS[2], b"again", net.now_ms()) and KEYS[1] in b.connected())
    net.run(lambda: b"again" in net.frames(b))


def test_a_restarted_dialler_is_proved_anew(net: Net) -> None:
    """A dialler that comes back replaces its session, and the listener's frames find it."""
    a, b = two(net)
    net.close_link(a)
    a = net.link(1, members=[2])
    connect(net, a, KEYS[2], b.address)
    assert b.send(KEYS[1], b"welcome", net.now_ms())
    net.run(lambda: net.frames(a) == [b"welcome"])
    assert b.connected() == {KEYS[1]}


def test_sessions_have_names(net: Net) -> None:
    """A name stays while a session does, and is another one where nobody saw it missing."""
    a, b = two(net)
    names = a.sessions()[KEYS[2]]
    assert names == b.sessions()[KEYS[1]][::-1]
    assert (bool(names[0]), names[1]) == (True, b"")
    b.set_peers({KEYS[1]: a.address})
    net.run(lambda: all(a.sessions()[KEYS[2]]) and all(b.sessions()[KEYS[1]]))
    assert a.sessions()[KEYS[2]][0] == names[0]
    assert a.sessions()[KEYS[2]] == b.sessions()[KEYS[1]][::-1]
    before = b.sessions()[KEYS[1]]
    net.close_link(a)
    a = net.link(1, members=[2])
    connect(net, a, KEYS[2], b.address)
    after = b.sessions()[KEYS[1]]
    assert after[1] not in (b"", before[1])
    assert a.sessions()[KEYS[2]][0] == after[1]


def test_who_falls_silent_is_forgotten(net: Net) -> None:
    """A listener ends a session on which nothing came for long; the dialler proves itself anew."""
    a, b = two(net)
    net.skip(6_000)
    net.turn([b])
    assert b.connected() == frozenset()
    assert b.counts["ended_silent"] == 1
    net.run(lambda: b.connected() == {KEYS[1]} and a.can_send(KEYS[2]))


def test_strangers_are_refused(net: Net) -> None:
    """On a link without a quota for strangers nobody but members proves anything."""
    a = net.link(3, members=[2])
    b = net.link(2, members=[1])
    a.set_peers({KEYS[2]: b.address})
    net.run(lambda: b.counts.get("refused_stranger", 0) > 1)
    assert not a.can_send(KEYS[2])
    assert not a.send(KEYS[2], b"vote", net.now_ms())
    assert a.counts["dropped_no_session"] == 1
    assert b.connected() == frozenset()


def test_strangers_have_small_quotas(net: Net) -> None:
    """Where strangers are let in their bytes are few, a member's are not."""
    b = net.link(2, members=[1], limits=OPEN_LIMITS)
    member = net.link(1, members=[2], limits=OPEN_LIMITS)
    stranger = net.link(3, members=[2], limits=OPEN_LIMITS)
    connect(net, member, KEYS[2], b.address)
    connect(net, stranger, KEYS[2], b.address)
    for link in (member, stranger):
        for _ in range(20):
            assert link.send(KEYS[2], bytes(100), net.now_ms())
    net.run(lambda: b.counts["frames_in"] + b.counts.get("dropped_quota", 0) == 40)
    senders = [key for key, _ in net.received[id(b)]]
    assert senders.count(KEYS[1]) == 20
    assert senders.count(KEYS[3]) == OPEN_LIMITS.stranger_burst_bytes // (100 + FRAME_COST_BYTES)


def test_strangers_leave_room_for_members(net: Net) -> None:
    """However many strangers come, only what is left beside the members is theirs."""
    limits = dataclasses.replace(OPEN_LIMITS, peers_max=2)
    b = net.link(2, members=[1], limits=limits)
    first, second, member = (net.link(i, members=[2], limits=limits) for i in (3, 4, 1))
    connect(net, first, KEYS[2], b.address)
    second.set_peers({KEYS[2]: b.address})
    net.run(lambda: b.counts.get("refused_no_room", 0) > 0)
    connect(net, member, KEYS[2], b.address)
    assert b.connected() == {KEYS[1], KEYS[3]}


def test_another_chain_is_refused(net: Net) -> None:
    """Nodes with different domains never prove anything to each other."""
    a = net.link(1, members=[2], domain=bytes(32))
    b = net.link(2, members=[1])
    a.set_peers({KEYS[2]: b.address})
    net.run(lambda: b.counts.get("refused_signature", 0) > 0)
    assert not a.can_send(KEYS[2])
    assert b.connected() == frozenset()


def test_another_class_is_refused(net: Net) -> None:
    """A link of votes does not take part in one of payloads."""
    a = net.link(1, members=[2], socket_class=3)
    b = net.link(2, members=[1])
    a.set_peers({KEYS[2]: b.address})
    net.run(lambda: b.counts.get("refused_class", 0) > 0)
    assert b.connected() == frozenset()


def test_somebody_else_at_the_address_is_refused(net: Net) -> None:
    """A dialler believes only the key that it dials."""
    a = net.link(1, members=[2, 3])
    b = net.link(3, members=[1])
    a.set_peers({KEYS[2]: b.address})
    net.run(lambda: a.counts.get("refused_other_key", 0) > 0)
    assert a.connected() == frozenset()


@pytest.mark.parametrize("curve", [False, True])
def test_a_ban_ends(net: Net, curve: bool) -> None:
    """A banned peer is cut and refused in both directions, until the time that was named."""
    a, b = two(net, curve=curve)
    b.set_peers({KEYS[1]: a.address})
    net.run(lambda: b.can_send(KEYS[1]))
    b.ban(KEYS[1], net.now_ms() + 3_600_000)
    assert b.connected() == frozenset()
    net.run_for(500)
    assert b.connected() == frozenset()
    assert not b.send(KEYS[1], b"x", net.now_ms())
    net.skip(3_600_000)
    net.run(lambda: b.connected() == {KEYS[1]} and b.can_send(KEYS[1]) and a.can_send(KEYS[2]))


def test_a_removed_member_is_cut(net: Net) -> None:
    """Who is no member any more loses its session where strangers are refused, and is a stranger
    where they are let in."""
    _, b = two(net)
    b.set_members([KEYS[3]])
    assert b.connected() == frozenset()
    net.run(lambda: b.counts.get("refused_stranger", 0) > 0)
    b.set_members([KEYS[1]])
    net.run(lambda: b.connected() == {KEYS[1]})
    c = net.link(3, members=[4], limits=OPEN_LIMITS)
    d = net.link(4, members=[3], limits=OPEN_LIMITS)
    connect(net, c, KEYS[4], d.address)
    d.set_members([])
    assert d.connected() == {KEYS[3]}


def test_a_peer_without_address_is_hung_up_on(net: Net) -> None:
    """What `set_peers` leaves out is closed, what it keeps stays open."""
    a, b = two(net)
    c = net.link(3, members=[1])
    a.set_members([KEYS[2], KEYS[3]])
    a.set_peers({KEYS[2]: b.address, KEYS[3]: c.address})
    assert a.can_send(KEYS[2])
    net.run(lambda: a.can_send(KEYS[3]))
    a.set_peers({KEYS[3]: c.address})
    assert a.connected() == {KEYS[3]}
    assert not a.send(KEYS[2], b"x", net.now_ms())


def test_frames_over_the_limit_are_refused(net: Net) -> None:
    """A frame of the maximum passes, a longer one is not sent."""
    a, b = two(net)
    assert a.send(KEYS[2], bytes(LIMITS.frame_bytes_max), net.now_ms())
    assert not a.send(KEYS[2], bytes(LIMITS.frame_bytes_max + 1), net.now_ms())
    assert a.counts["dropped_too_large"] == 1
    net.run(lambda: len(net.frames(b)) == 1)
    assert len(net.frames(b)[0]) == LIMITS.frame_bytes_max


def test_a_slow_reader_loses_only_its_own_frames(net: Net) -> None:
    """The queue of a peer that does not read fills, its frames are dropped, others get theirs."""
    a = net.link(1, members=[2, 3])
    slow, quick = net.link(2, members=[1]), net.link(3, members=[1])
    a.set_peers({KEYS[2]: slow.address, KEYS[3]: quick.address})
    net.run(lambda: a.can_send(KEYS[2]) and a.can_send(KEYS[3]))
    frame = bytes(LIMITS.frame_bytes_max)
    for _ in range(5_000):  # the system takes some more out of a queue that was full
        if not a.send(KEYS[2], frame, net.now_ms()) and not a.can_send(KEYS[2]):
            break
    else:
        pytest.fail("the queue of a peer that reads nothing never fills")
    assert a.counts["dropped_queue_full"] >= 1
    for number in range(50):
        assert a.send(KEYS[3], b"%d" % number, net.now_ms())
        net.turn([a, quick])
    while len(net.frames(quick)) < 50:
        net.turn([a, quick])
    assert net.frames(slow) == []


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:1", "tcp://127.0.0.1", "ipc://x", "tcp://h:99999", "tcp://:1"]
)
def test_what_is_no_address_is_explained(net: Net, address: str) -> None:
    """A peer's address that is none is an error that says what to write."""
    with pytest.raises(LinkError) as caught:
        net.link(1).set_peers({KEYS[2]: address})
    assert caught.value.code == "links.address"


def test_an_address_in_use_is_explained(net: Net) -> None:
    """Two links cannot listen at one address."""
    address = net.link(1).address
    with pytest.raises(LinkError) as caught:
        net.link(2, bind=address)
    assert caught.value.code == "links.address_in_use"


def test_a_link_need_not_listen(net: Net) -> None:
    """A link without an address of its own dials, sends and receives."""
    a = net.link(1, members=[2], bind="")
    b = net.link(2, members=[1])
    assert a.address == ""
    connect(net, a, KEYS[2], b.address)
    assert b.send(KEYS[1], b"x", net.now_ms())
    net.run(lambda: net.frames(a) == [b"x"])
