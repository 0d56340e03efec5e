"""The bound side of a link: a ROUTER socket, the handshakes over it, and its TCP connections.

Spec: spec/network.md#connections.
"""

import secrets
import struct

import zmq

from runtime.links.admission import Admission, Refused
from runtime.links.curve import Gate, ZapHandler, curve_key, curve_secret
from runtime.links.dialled import draw_nonce
from runtime.links.handshake import Identity, Listener
from runtime.links.limits import LinkLimits
from runtime.links.sockets import (
    Context,
    Raw,
    Socket,
    bind,
    open_router,
    read,
    send_control,
    send_frame,
)
from runtime.links.watch import Connection, Watch
from runtime.links.wire import ControlError, Hello, decode_control

EVENTS_PER_TICK_MAX = 1_000
"""of accepted connections; the rest waits for the next tick"""
_EVENT = struct.Struct("=HI")
"""kind and value of an event of libzmq; the value of an accepted connection is its descriptor"""


def gate_of(admission: Admission) -> Gate:
    """Return whom the ZAP handler lets in now."""
    known = (curve_key(key) for key in admission.members | admission.dialled)
    banned = (curve_key(key) for key in admission.bans.banned())
    return Gate(
        allowed=frozenset(key for key in known if key is not None),
        banned=frozenset(key for key in banned if key is not None),
        takes_strangers=admission.takes_strangers,
    )


class Listening:
    """Everybody who dialled us."""

    def __init__(
        self,
        *,
        context: Context,
        identity: Identity,
        limits: LinkLimits,
        admission: Admission,
        bind_address: str,
        is_curve: bool,
        watch: Watch,
        now_ms: int,
    ) -> None:
        """Listen; raises LinkError."""
        self._admission = admission
        self._watch = watch
        self._connections: dict[bytes, Connection] = {}
        self._is_curve = is_curve
        self._listener = Listener(
            identity=identity, admission=admission, draw=draw_nonce, now_ms=now_ms
        )
        self.socket: Socket = open_router(context, limits)
        self._zap: tuple[ZapHandler, str] | None = None
        if is_curve:
            self._zap = ZapHandler.open_gate(context, gate_of(admission))
            self.socket.set(zmq.CURVE_SERVER, 1)
            self.socket.set(zmq.CURVE_SECRETKEY, curve_secret(identity.pair))
            self.socket.set(zmq.ZAP_DOMAIN, self._zap[1].encode())
        events = f"inproc://{secrets.token_hex(16)}"
        # Without a limit, so that libzmq never waits for us to take an event.
        self._events: Socket = context.socket(zmq.PAIR)
        self._events.set(zmq.RCVHWM, 0)
        self._events.set(zmq.LINGER, 0)
        self.socket.monitor(events, zmq.EVENT_ACCEPTED)
        self._events.connect(events)
        try:
            self.address = bind(self.socket, bind_address)
        except BaseException:
            self._close_rest()
            raise

    def peers(self) -> list[bytes]:
        """Return the keys that have proved themselves."""
        return self._listener.peers()

    def has(self, key: bytes) -> bool:
        """Say whether a key has proved itself."""
        return self._listener.place_of(key) is not None

    def session_of(self, key: bytes) -> bytes:
        """Return what names the session of a key; empty where it has none."""
        return self._listener.session_of(key)

    def send(self, key: bytes, frame: bytes, now_ms: int) -> str | None:
        """Send a frame to a key that has a session; return why not, if it went nowhere."""
        place = self._listener.place_of(key)
        if place is None:
            return "no_session"
        failure = send_frame(self.socket, place, frame)
        if failure == "gone":
            self._close(place, now_ms)
        return failure

    def read(self) -> Raw | None:
        """Return the next message, or None."""
        return read(self.socket, is_router=True)

    def take(self, raw: Raw, now_ms: int) -> tuple[bytes, bytes] | None:
        """Return sender and frame of a message, or None for a control message; raises Refused."""
        self._credit(raw)
        if raw.frame is not None:
            key = self._listener.key_at(raw.place, now_ms)
            if key is None:
                self._reply(raw.place, self._listener.reset(now_ms))
                raise Refused("no_session")
            return key, raw.frame
        if raw.control is None:
            self.cut_place(raw.place, now_ms)
            raise Refused("malformed")
        try:
            control = decode_control(raw.control)
        except ControlError as error:
            self.cut_place(raw.place, now_ms)
            raise Refused("malformed") from error
        if isinstance(control, Hello) and self._is_curve:
            known = curve_key(control.key)
            if known is None or known.hex() != raw.user_id:
                raise Refused("other_key")
        taken = self._listener.take(raw.place, control, now_ms)
        if taken.opened is not None:
            self._opened(raw, now_ms)
        self._reply(raw.place, taken.reply)
        return None

    def cut(self, key: bytes, now_ms: int) -> None:
        """End the session of a key and its connection."""
        place = self._listener.place_of(key)
        if place is not None:
            self.cut_place(place, now_ms)

    def cut_place(self, place: bytes, now_ms: int) -> None:
        """End whatever session a place has and its connection."""
        connection = self._close(place, now_ms)
        if connection is not None:
            self._watch.cut(connection)

    def admission_changed(self) -> None:
        """Tell the ZAP handler whom to let in from now on."""
        if self._zap is not None:
            handler, name = self._zap
            handler.replace_gate(name, gate_of(self._admission))

    def tick(self, now_ms: int) -> int:
        """Note new connections, end silent sessions and return how many."""
        for _ in range(EVENTS_PER_TICK_MAX):
            try:
                event, _ = self._events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            kind, value = _EVENT.unpack(event)
            if kind == zmq.EVENT_ACCEPTED:
                self._watch.accepted(value, now_ms)
        silent = self._listener.silent(now_ms)
        for place in silent:
            self._close(place, now_ms)
        for place in self._connections.keys() - self._places():
            self._close(place, now_ms)  # a newer session of the same key has replaced its own
        return len(silent)

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
        self._close_rest()

    def _close_rest(self) -> None:
        self._events.close()
        if self._zap is not None:
            handler, name = self._zap
            handler.close_gate(name)

    def _places(self) -> set[bytes]:
        places = (self._listener.place_of(key) for key in self._listener.peers())
        return {place for place in places if place is not None}

    def _opened(self, raw: Raw, now_ms: int) -> None:
        connection = self._watch.get(raw.fd)
        if connection is None:
            # The event of its acceptance has not been read yet.
            self._watch.accepted(raw.fd, now_ms)
            connection = self._watch.get(raw.fd)
        if connection is not None:
            connection.is_proved = True
            self._connections[raw.place] = connection

    def _close(self, place: bytes, now_ms: int) -> Connection | None:
        self._listener.close(place)
        connection = self._connections.pop(place, None)
        if connection is not None:
            connection.is_proved = False
            connection.since_ms = now_ms
        return connection

    def _credit(self, raw: Raw) -> None:
        connection = self._connections.get(raw.place)
        if connection is not None:
            connection.credit(len(raw.frame or raw.control or b""))

    def _reply(self, place: bytes, control: bytes | None) -> None:
        if control is not None:
            # A reply that is lost is asked for again.
            send_control(self.socket, place, control)
