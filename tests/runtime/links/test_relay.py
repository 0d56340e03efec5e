"""A relay between two links: it may lose, repeat and mix up, and proves nothing by it."""

import random

import zmq

from runtime.links import Link
from runtime.links.wire import Hello, Proof, decode_control
from tests.runtime.links.harness import Net, Relay, connect, pair

KEYS = [pair(number).public_key for number in range(5)]


def relayed(net: Net) -> tuple[Link, Link, Relay]:
    """Return links of nodes 1 and 2, and a relay before 2."""
    a, b = net.link(1, members=[2]), net.link(2, members=[1])
    return a, b, net.relay(b.address)


def test_a_relay_is_not_noticed(net: Net) -> None:
    """Handshake and frames pass a relay, in both directions."""
    a, b, relay = relayed(net)
    connect(net, a, KEYS[2], relay.address)
    assert a.send(KEYS[2], b"up", net.now_ms())
    assert b.send(KEYS[1], b"down", net.now_ms())
    net.run(lambda: net.frames(a) == [b"down"] and net.frames(b) == [b"up"])


def test_the_handshake_survives_loss(net: Net, seed: int) -> None:
    """With every fourth message lost both sides prove themselves all the same."""
    rng = random.Random(seed)
    a, _, relay = relayed(net)
    relay.loses = lambda _: rng.random() < 0.25
    connect(net, a, KEYS[2], relay.address)


def test_restarts_behind_a_relay_are_noticed(net: Net) -> None:
    """Neither side sees the other's TCP connection; both are proved anew after a restart."""
    a, b, relay = relayed(net)
    connect(net, a, KEYS[2], relay.address)
    b = net.restart(b, 2, members=[1])
    net.run(lambda: b.connected() == {KEYS[1]} and a.can_send(KEYS[2]))
    net.close_link(a)
    a = net.link(1, members=[2])
    connect(net, a, KEYS[2], relay.address)
    assert b.send(KEYS[1], b"x", net.now_ms())
    net.run(lambda: net.frames(a) == [b"x"])


def test_a_recorded_handshake_proves_nothing(net: Net) -> None:
    """What a dialler said is worth nothing when somebody says it again, there or elsewhere."""
    a, b, relay = relayed(net)
    c = net.link(3, members=[1])
    connect(net, a, KEYS[2], relay.address)
    said = [parts for parts in relay.upward if len(parts) == 2]
    kinds = [type(decode_control(parts[1])) for parts in said]
    assert Hello in kinds
    assert Proof in kinds
    net.close_link(a)
    net.skip(6_000)
    net.run(lambda: b.connected() == frozenset())
    for target in (b, c):
        replayed = net.relay(target.address)
        dealer = net.context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(replayed.address)
        for parts in said * 2:
            dealer.send_multipart(parts)
        net.run(replayed.passed(2 * len(said)))
        net.run_for(100)
        dealer.close()
        assert target.connected() == frozenset()


def test_a_crossed_handshake_proves_nothing(net: Net) -> None:
    """Who passes a dialler's words on to another listener convinces neither of them."""
    a, c = net.link(1, members=[2, 3]), net.link(3, members=[1])
    relay = net.relay(c.address)
    a.set_peers({KEYS[2]: relay.address})
    net.run(lambda: a.counts.get("refused_other_key", 0) > 0)
    assert a.connected() == frozenset()
    assert c.connected() == frozenset()
