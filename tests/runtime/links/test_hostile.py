"""Whoever speaks to an open socket without being a node costs little and holds nothing up."""

import random
import socket
from urllib.parse import urlsplit

import pytest
import zmq

from runtime.links import Link
from runtime.links.curve import Gate, ZapHandler, curve_key, curve_secret
from runtime.links.dialled import draw_nonce
from runtime.links.handshake import Dialler, Identity
from runtime.links.limits import UNPROVED_BYTES_MAX, UNPROVED_MS
from runtime.links.link import KERNEL_BYTES
from runtime.links.sockets import Socket
from runtime.links.wire import Hello, decode_control, encode_control
from tests.runtime.links.harness import DOMAIN, LIMITS, OPEN_LIMITS, Net, connect, pair

KEYS = [pair(number).public_key for number in range(5)]
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\0\0\0\x06DEALER"


def raw(link: Link) -> socket.socket:
    """Return a TCP connection to a link."""
    parts = urlsplit(link.address)
    made = socket.create_connection((parts.hostname, parts.port), timeout=10)
    made.settimeout(10)
    return made


def speak_zeromq(connection: socket.socket) -> None:
    """Do what ZeroMQ asks of a connection before its first message."""
    connection.sendall(GREETING + bytes([4, len(READY)]) + READY)
    left = len(GREETING) + 2 + len(READY) + len(b"\x08Identity") + 4
    while left:
        left -= len(connection.recv(left))


def is_closed(net: Net, connection: socket.socket) -> bool:
    """Say whether the other side has closed a connection."""
    net.turn()
    connection.setblocking(False)
    try:
        while connection.recv(4_096):
            continue
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def still_serves(net: Net, link: Link, *, curve: bool = False) -> None:
    """An honest member proves itself and is heard."""
    member = net.link(1, members=[2], curve=curve)
    connect(net, member, KEYS[2], link.address)
    assert member.send(KEYS[2], b"still", net.now_ms())
    net.run(lambda: b"still" in net.frames(link))


def dealer(net: Net, link: Link) -> Socket:
    """Return a plain ZeroMQ socket that is connected to a link."""
    made = net.context.socket(zmq.DEALER)
    made.set(zmq.LINGER, 0)
    made.connect(link.address)
    return made


def test_bytes_that_are_not_zeromq(net: Net, seed: int) -> None:
    """Garbage, half a greeting and silence on a raw connection do no harm."""
    rng = random.Random(seed)
    link = net.link(2, members=[1])
    connections = [raw(link) for _ in range(20)]
    for number, connection in enumerate(connections):
        data = rng.randbytes(rng.randrange(2_000))
        connection.sendall((data, GREETING[: len(data) % 64], b"", GREETING + data)[number % 4])
        net.turn()
    still_serves(net, link)
    for connection in connections:
        connection.close()


def test_a_plain_socket_proves_nothing(net: Net, seed: int) -> None:
    """Frames, malformed messages and words out of turn of a ZeroMQ client are counted only."""
    rng = random.Random(seed)
    link = net.link(2, members=[1])
    client = dealer(net, link)
    hello = encode_control(Hello(socket_class=1, key=KEYS[1], nonce=bytes(32)))
    messages = [[b"frame"], [b"", b""], [b"", b"", b""], [b"x", b"y"], [b""], [b"", hello]]
    messages += [[b"", bytes([kind]) + rng.randbytes(128)] for kind in range(9)]
    messages += [[rng.randbytes(9) for _ in range(rng.randrange(1, 20))] for _ in range(50)]
    for message in messages:
        client.send_multipart(message)
    net.run(lambda: link.counts.get("dropped_no_session", 0) > 0)
    net.run(lambda: link.counts.get("dropped_malformed", 0) >= 20)
    net.run(lambda: link.counts.get("refused_malformed", 0) > 0)
    client.close()
    assert link.connected() == frozenset()
    assert net.frames(link) == []
    still_serves(net, link)


def test_a_connection_that_proves_nothing_is_cut(net: Net) -> None:
    """After its time an idle stranger's connection is closed, a member's is not."""
    link = net.link(2, members=[1])
    idle = raw(link)
    speak_zeromq(idle)
    still_serves(net, link)
    net.skip(UNPROVED_MS)
    net.run(lambda: link.counts.get("cut_unproved", 0) == 1)
    net.run(lambda: is_closed(net, idle))
    idle.close()


def test_connections_that_prove_nothing_are_few(net: Net) -> None:
    """Beyond `peers_max` the oldest unproved connections are closed."""
    link = net.link(2, members=[1])
    connections = [raw(link) for _ in range(LIMITS.peers_max + 8)]
    for connection in connections:
        connection.sendall(GREETING)
    net.run_for(20)
    net.skip(500)
    net.run(lambda: link.counts.get("cut_too_many", 0) == 8)
    net.run(lambda: is_closed(net, connections[0]))
    for connection in connections:
        connection.close()


def send_for_ever(net: Net, connection: socket.socket, bytes_max: int) -> None:
    """Send parts of a message that never ends, until the connection is closed or so many bytes."""
    part = b"\x03" + (60_000).to_bytes(8, "big") + bytes(60_000)
    for _ in range(bytes_max // len(part)):
        connection.sendall(part)
        net.turn()


def test_an_unfinished_message_is_not_kept_for_ever(net: Net) -> None:
    """Parts without end, which ZeroMQ keeps until the last one, cost the connection."""
    link = net.link(2, members=[1])
    with raw(link) as hostile:
        speak_zeromq(hostile)
        with pytest.raises(ConnectionError):
            send_for_ever(net, hostile, 50 * UNPROVED_BYTES_MAX)
    assert link.counts["cut_unproved_bytes"] == 1
    still_serves(net, link)


def test_an_unfinished_message_costs_a_member_its_connection(net: Net) -> None:
    """The same from somebody who has proved who it is: more than a full queue is cut."""
    link = net.link(2, members=[1])
    with raw(link) as member:
        speak_zeromq(member)
        identity = Identity(pair=pair(1), domain=DOMAIN, socket_class=1)
        dialler = Dialler(identity=identity, peer=KEYS[2], draw=draw_nonce, now_ms=0)
        due = dialler.tick(0)
        while not dialler.is_open:
            if due is not None:
                member.sendall(b"\x01\x00\x00" + bytes([len(due)]) + due)
            net.run_for(20)
            assert member.recv(3) == b"\x01\x00\x00"
            (length,) = member.recv(1)
            due = dialler.take(decode_control(member.recv(length)), 0)
        assert link.connected() == {KEYS[1]}
        with pytest.raises(ConnectionError):
            send_for_ever(net, member, 4 * (KERNEL_BYTES + 100 * LIMITS.frame_bytes_max))
    assert link.counts["cut_unfinished"] == 1


def test_an_unknown_key_does_not_pass_curve(net: Net) -> None:
    """ZAP refuses who is no member, a client without CURVE, and one with a borrowed key."""
    link = net.link(2, members=[1], curve=True)
    stranger = net.link(3, members=[2], curve=True)
    plain = net.link(1, members=[2])
    for other in (stranger, plain):
        other.set_peers({KEYS[2]: link.address})
    handler, name = ZapHandler.open_gate(net.context, link_gate())
    net.run(lambda: handler.refused > 0)
    handler.close_gate(name)
    assert link.connected() == frozenset()
    assert link.counts.get("refused_stranger", 0) == 0
    net.close_link(plain)
    still_serves(net, link, curve=True)


def test_a_stranger_cannot_borrow_a_name_under_curve(net: Net) -> None:
    """Where strangers are let in, a HELLO must name the key of the encrypted connection."""
    link = net.link(2, members=[1], curve=True, limits=OPEN_LIMITS)
    client = net.context.socket(zmq.DEALER)
    client.set(zmq.LINGER, 0)
    for option, value in (
        (zmq.CURVE_SERVERKEY, curve_key(KEYS[2])),
        (zmq.CURVE_PUBLICKEY, curve_key(KEYS[3])),
        (zmq.CURVE_SECRETKEY, curve_secret(pair(3))),
    ):
        assert value is not None
        client.set(option, value)
    client.connect(link.address)
    hello = encode_control(Hello(socket_class=1, key=KEYS[1], nonce=bytes(32)))
    client.send_multipart([b"", hello])
    net.run(lambda: link.counts.get("refused_other_key", 0) == 1)
    client.close()


def test_plain_and_encrypted_links_share_a_context(net: Net) -> None:
    """The ZAP handler of an encrypted link lets the plain ones of its context be."""
    net.link(4, curve=True)
    still_serves(net, net.link(2, members=[1]))


def link_gate() -> Gate:
    """Return a gate that lets nobody in."""
    return Gate(allowed=frozenset(), banned=frozenset(), takes_strangers=False)
