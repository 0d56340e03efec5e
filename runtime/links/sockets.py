"""The two kinds of ZeroMQ socket that a link has, their options, and how a message is read.

A message of one part is a frame; a message of two parts whose first is empty is a control message;
everything else is malformed. Spec: spec/network.md#messages.
"""

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import zmq

from engine_api.transport import is_loopback
from runtime.errors import ExplainedError
from runtime.links.limits import LinkLimits
from runtime.links.wire import CONTROL_BYTES_MAX

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]

HEARTBEAT_MS = 1_000
HEARTBEAT_TIMEOUT_MS = 5_000
HANDSHAKE_MS = 3_000
"""for ZeroMQ's own handshake, in which a stranger may be silent"""
RECONNECT_MS = 100
RECONNECT_LAST_MS = 1_000
CONNECT_MS = 3_000
BACKLOG = 128
ZERO_COPY_BYTES = 2**16
"""from here on a frame is handed to libzmq without a copy"""
_PREPARING = threading.Lock()


class LinkError(ExplainedError):
    """An address that cannot be used. Codes begin with `links.`"""


def is_plain(address: str) -> bool:
    """Say whether a link at this address goes without CURVE; raises LinkError (no address)."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme != "tcp" or parts.path or not host or port is None:
        raise LinkError(
            "links.address",
            what=f"{address!r} is no address of a link",
            where="the addresses to listen at, or of a peer",
            why="it is not tcp://HOST:PORT",
            what_to_do="write for example tcp://127.0.0.1:9000, or tcp://0.0.0.0:9000",
        )
    return is_loopback(host)


def check_address(address: str) -> None:
    """Raise LinkError for what is no address of a link."""
    is_plain(address)


def open_router(context: Context, limits: LinkLimits) -> Socket:
    """Return the socket of a listener, not yet bound."""
    router = context.socket(zmq.ROUTER)
    _set_common(router, limits)
    router.set(zmq.ROUTER_MANDATORY, 1)
    router.set(zmq.ROUTER_HANDOVER, 0)
    router.set(zmq.BACKLOG, BACKLOG)
    return router


def bind(router: Socket, address: str) -> str:
    """Listen, and return the address with its port; raises LinkError and closes the socket."""
    try:
        _set_family(router, address)
        router.bind(address)
    except zmq.ZMQError as error:
        router.close()
        raise LinkError(
            "links.address_in_use",
            what=f"nothing can listen at {address}",
            where="the addresses to listen at",
            why=str(error),
            what_to_do="stop the process that listens there, or choose another port",
        ) from error
    bound = router.get(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes), "an endpoint is text"
    return bound.rstrip(b"\0").decode()


def open_dealer(context: Context, limits: LinkLimits, address: str) -> Socket:
    """Return the socket that dials one peer at an address, not yet connected."""
    dealer = context.socket(zmq.DEALER)
    _set_common(dealer, limits)
    _set_family(dealer, address)
    dealer.set(zmq.IMMEDIATE, 1)
    dealer.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    dealer.set(zmq.RECONNECT_IVL_MAX, RECONNECT_LAST_MS)
    dealer.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    return dealer


def _set_family(made: Socket, address: str) -> None:
    """Leave IPv4 addresses as they are: with IPv6 on, libzmq would name them as mapped ones."""
    host = urlsplit(address).hostname or ""
    made.set(zmq.IPV6, 0 if host.replace(".", "").isdecimal() else 1)


def prepare_zero_copy() -> None:
    """Let pyzmq set up what takes back frames that are sent without a copy.

    It does so for the first one of a process, without a lock (27.3): threads that send theirs at
    the same time may wait for each other for ever. So a first one is made before any link sends.
    """
    with _PREPARING:
        zmq.Frame(b"first", copy=False)


def _set_common(made: Socket, limits: LinkLimits) -> None:
    prepare_zero_copy()
    made.set(zmq.LINGER, 0)
    made.set(zmq.SNDHWM, limits.queue_frames)
    made.set(zmq.RCVHWM, limits.queue_frames)
    made.set(zmq.MAXMSGSIZE, max(limits.frame_bytes_max, CONTROL_BYTES_MAX))
    made.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    made.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    made.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    made.set(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A message as it came."""

    place: bytes
    """the routing id of a listener's message; empty at a dialler"""
    frame: bytes | None
    """None: it is not one of one part"""
    control: bytes | None
    """None: it is not a control message"""
    fd: int
    """the descriptor of its connection; -1: unknown, or not asked for (frames of one part)"""
    user_id: str
    """what the ZAP handler said of the connection; empty without CURVE"""


def read(source: Socket, *, is_router: bool) -> Raw | None:
    """Return the next whole message, or None; never waits."""
    try:
        place = source.recv(zmq.NOBLOCK) if is_router else b""
        first = source.recv(zmq.NOBLOCK)
    except zmq.Again:
        return None
    if not source.get(zmq.RCVMORE):
        return Raw(place=place, frame=first, control=None, fd=-1, user_id="")
    second = source.recv(zmq.NOBLOCK, copy=False)
    is_whole = not source.get(zmq.RCVMORE)
    # What is left of a message that is too long has arrived already; `watch.py` bounds how much.
    while source.get(zmq.RCVMORE):
        source.recv(zmq.NOBLOCK)
    return Raw(
        place=place,
        frame=None,
        control=second.bytes if is_whole and not first else None,
        fd=int(_property_of(second, zmq.SRCFD, -1)),
        user_id=str(_property_of(second, "User-Id", "")),
    )


def _property_of(part: zmq.Frame, name: int | str, absent: int | str) -> int | str:
    # libzmq says EINVAL for what a message lacks: the user where there is no CURVE, and all of
    # them where a client speaks the protocol's first version, or bytes that look like it.
    with contextlib.suppress(zmq.ZMQError):
        found: int | str = part.get(name)
        return found
    return absent


def send_frame(target: Socket, place: bytes, frame: bytes) -> str | None:
    """Send a frame, to a place where the socket is a router; return why not, if it went nowhere."""
    return _send(target, [place, frame] if place else [frame])


def send_control(target: Socket, place: bytes, control: bytes) -> str | None:
    """Send a control message, as `send_frame` does."""
    return _send(target, [place, b"", control] if place else [b"", control])


def _send(target: Socket, parts: Sequence[bytes]) -> str | None:
    """Send the parts of a message without waiting; return why it went nowhere, if it did."""
    last = len(parts) - 1
    try:
        for index, part in enumerate(parts):
            more = zmq.SNDMORE if index < last else 0
            target.send(part, zmq.NOBLOCK | more, copy=len(part) < ZERO_COPY_BYTES)
    except zmq.Again:
        return "queue_full"
    except zmq.ZMQError as error:
        if error.errno != zmq.EHOSTUNREACH:
            raise
        return "gone"
    return None
