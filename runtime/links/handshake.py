"""Both sides of the signed handshake, without a socket: messages in, messages out.

The dialler says HELLO, the listener answers with a CHALLENGE, the dialler signs (PROOF), the
listener verifies, signs too and says READY. Whoever is unsure afterwards asks (PING) and is told
(PONG, RESET). A connection has a name here, its `place`, which means nothing but itself: what
proves who speaks is the signature, so that a relay may stand in between.
Spec: spec/network.md#handshake. Next: `link.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import nacl.bindings
import nacl.exceptions

from runtime.keypair import KeyPair, is_public_key
from runtime.links.admission import Admission, Refused
from runtime.links.limits import (
    ATTEMPT_MS,
    PENDING_MAX,
    PING_MS,
    PROOFS_PER_S,
    RESETS_PER_S,
    RETRY_FIRST_MS,
    RETRY_LAST_MS,
    SILENT_MS,
)
from runtime.links.quotas import TokenBucket
from runtime.links.wire import (
    Challenge,
    Control,
    Hello,
    Ping,
    Pong,
    Proof,
    Ready,
    Reset,
    Role,
    encode_control,
    signed_bytes,
)

DrawNonce = Callable[[], bytes]
"""draws 32 bytes that nobody can guess"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a side is, on which chain and class of socket."""

    pair: KeyPair
    domain: bytes
    """32 bytes"""
    socket_class: int


def verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    """Say whether a signature proves a key. Spec: spec/signatures.md."""
    if not is_public_key(key):
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, key)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


class State(Enum):
    """Where a dialler stands."""

    GREETING = auto()
    """HELLO is repeated until a CHALLENGE comes"""
    PROVING = auto()
    """PROOF is repeated until READY comes, or for ATTEMPT_MS"""
    OPEN = auto()
    """both have proved themselves"""


class Dialler:
    """The side that opened the connection, for one peer."""

    def __init__(self, *, identity: Identity, peer: bytes, draw: DrawNonce, now_ms: int) -> None:
        """Begin with a HELLO, which the first `tick` returns."""
        self._identity = identity
        self._peer = peer
        self._draw = draw
        self._heard_ms = now_ms
        self._pinged_ms = now_ms
        self._state = State.GREETING
        self._greeted_ms = now_ms
        self._started_ms = now_ms
        self._send_at_ms = now_ms
        self._wait_ms = RETRY_FIRST_MS
        self._nonce = b""
        self._listener_nonce = b""
        self._step = b""
        self._begin(now_ms)

    @property
    def is_open(self) -> bool:
        """Say whether frames may be sent, and are believed."""
        return self._state is State.OPEN

    @property
    def session(self) -> bytes:
        """Return the nonce that names the session; empty where there is none."""
        return self._listener_nonce if self.is_open else b""

    def heard(self, now_ms: int) -> None:
        """Note that a frame came, which says that the connection lives."""
        self._heard_ms = now_ms

    def take(self, control: Control, now_ms: int) -> bytes | None:
        """Take a control message and return the answer to send; raises Refused."""
        match control:
            case Challenge():
                return self._challenged(control, now_ms)
            case Ready():
                self._answered(control, now_ms)
                return None
            case Pong() if self.is_open and control.listener_nonce == self._listener_nonce:
                self._heard_ms = now_ms
                return None
            case Pong():
                return None
            case Reset():
                if self._state is not State.GREETING:
                    self._begin(max(now_ms, self._greeted_ms + RETRY_FIRST_MS))
                return None
            case _:
                raise Refused("out_of_turn")

    def tick(self, now_ms: int) -> bytes | None:
        """Return what is to be sent now, if anything."""
        if self._state is State.OPEN:
            return self._keep_alive(now_ms)
        if self._state is State.PROVING and now_ms >= self._started_ms + ATTEMPT_MS:
            self._begin(now_ms)
        if now_ms < self._send_at_ms:
            return None
        self._send_at_ms = now_ms + self._wait_ms
        self._wait_ms = min(2 * self._wait_ms, RETRY_LAST_MS)
        if self._state is State.GREETING:
            self._greeted_ms = now_ms
        return self._step

    def not_sent(self, now_ms: int) -> None:
        """Note that what `tick` returned found no connection: the next `tick` returns it again."""
        self._send_at_ms = now_ms
        self._wait_ms = RETRY_FIRST_MS

    def _begin(self, at_ms: int) -> None:
        """Start a handshake with a new nonce, not before a time."""
        self._state = State.GREETING
        self._greeted_ms = at_ms
        self._started_ms = at_ms
        self._send_at_ms = at_ms
        self._wait_ms = RETRY_FIRST_MS
        self._nonce = self._draw()
        self._listener_nonce = b""
        identity = self._identity
        self._step = encode_control(
            Hello(
                socket_class=identity.socket_class,
                key=identity.pair.public_key,
                nonce=self._nonce,
            )
        )

    def _keep_alive(self, now_ms: int) -> bytes | None:
        if now_ms >= self._heard_ms + SILENT_MS:
            self._begin(now_ms)
            return self.tick(now_ms)
        if now_ms < self._pinged_ms + PING_MS:
            return None
        self._pinged_ms = now_ms
        return encode_control(Ping(listener_nonce=self._listener_nonce))

    def _challenged(self, challenge: Challenge, now_ms: int) -> bytes | None:
        if challenge.key != self._peer:
            raise Refused("other_key")
        if self._state is not State.GREETING or challenge.dialler_nonce != self._nonce:
            return None  # an answer to an earlier HELLO, or a second one to this
        self._listener_nonce = challenge.listener_nonce
        self._state = State.PROVING
        signature = self._identity.pair.sign(self._signed(Role.DIALLER))
        self._step = encode_control(
            Proof(
                dialler_nonce=self._nonce,
                listener_nonce=self._listener_nonce,
                signature=signature,
            )
        )
        self._started_ms = now_ms
        self._wait_ms = RETRY_FIRST_MS
        self._send_at_ms = now_ms
        return self.tick(now_ms)

    def _answered(self, ready: Ready, now_ms: int) -> None:
        if self._state is not State.PROVING or ready.dialler_nonce != self._nonce:
            return  # an answer to a repeated PROOF
        if ready.listener_nonce != self._listener_nonce or not verifies(
            self._peer, self._signed(Role.LISTENER), ready.signature
        ):
            raise Refused("signature")
        self._state = State.OPEN
        self._heard_ms = now_ms
        self._pinged_ms = now_ms

    def _signed(self, role: Role) -> bytes:
        return signed_bytes(
            domain=self._identity.domain,
            role=role,
            socket_class=self._identity.socket_class,
            dialler_key=self._identity.pair.public_key,
            listener_key=self._peer,
            dialler_nonce=self._nonce,
            listener_nonce=self._listener_nonce,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A handshake whose proof is awaited."""

    key: bytes
    dialler_nonce: bytes
    listener_nonce: bytes


@dataclass(slots=True, kw_only=True)
class Session:
    """A peer that proved itself at a place."""

    key: bytes
    dialler_nonce: bytes
    listener_nonce: bytes
    ready: bytes
    """the READY that opened it, to be repeated"""
    heard_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a control message came to."""

    reply: bytes | None = None
    opened: bytes | None = None
    """the key that has just proved itself at this place"""


class Listener:
    """The side that was dialled, for all connections of a link; one session per key, the newest."""

    def __init__(
        self, *, identity: Identity, admission: Admission, draw: DrawNonce, now_ms: int
    ) -> None:
        """Begin without a session."""
        self._identity = identity
        self._admission = admission
        self._draw = draw
        self._pending: dict[bytes, Pending] = {}
        self._sessions: dict[bytes, Session] = {}
        self._places: dict[bytes, bytes] = {}
        self._resets = TokenBucket(per_s=RESETS_PER_S, burst=RESETS_PER_S, now_ms=now_ms)
        self._proofs = {
            is_full: TokenBucket(per_s=PROOFS_PER_S, burst=PROOFS_PER_S, now_ms=now_ms)
            for is_full in (False, True)
        }

    def peers(self) -> list[bytes]:
        """Return the keys that have a session."""
        return list(self._places)

    def place_of(self, key: bytes) -> bytes | None:
        """Return where a key has its session."""
        return self._places.get(key)

    def session_of(self, key: bytes) -> bytes:
        """Return the nonce that names the session of a key; empty where it has none."""
        place = self._places.get(key)
        return b"" if place is None else self._sessions[place].listener_nonce

    def key_at(self, place: bytes, now_ms: int) -> bytes | None:
        """Return who has proved itself at a place that a frame came from."""
        session = self._sessions.get(place)
        if session is None:
            return None
        session.heard_ms = now_ms
        return session.key

    def reset(self, now_ms: int) -> bytes | None:
        """Return what a frame without a session is answered with; None: enough of these."""
        return encode_control(Reset()) if self._resets.take(1, now_ms) else None

    def take(self, place: bytes, control: Control, now_ms: int) -> Taken:
        """Take a control message from a place; raises Refused."""
        match control:
            case Hello():
                return self._greeted(place, control, now_ms)
            case Proof():
                return self._proved(place, control, now_ms)
            case Ping():
                return self._asked(place, control, now_ms)
            case _:
                raise Refused("out_of_turn")

    def close(self, place: bytes) -> bytes | None:
        """End the session at a place, and return whose it was."""
        self._pending.pop(place, None)
        session = self._sessions.pop(place, None)
        if session is None:
            return None
        del self._places[session.key]
        return session.key

    def silent(self, now_ms: int) -> list[bytes]:
        """Return the places with a session from which nothing has come for SILENT_MS."""
        return [
            place
            for place, session in self._sessions.items()
            if now_ms >= session.heard_ms + SILENT_MS
        ]

    def _strangers(self) -> int:
        return sum(not self._admission.is_full(key) for key in self._places)

    def _greeted(self, place: bytes, hello: Hello, now_ms: int) -> Taken:
        if hello.socket_class != self._identity.socket_class:
            raise Refused("class")
        strangers = self._strangers() - (hello.key in self._places)
        self._admission.check(hello.key, strangers, now_ms)
        session = self._sessions.get(place)
        if session is not None and session.dialler_nonce == hello.nonce:
            return Taken()  # a late copy of the HELLO that has been proved already
        pending = self._pending.pop(place, None)
        if pending is None or (pending.key, pending.dialler_nonce) != (hello.key, hello.nonce):
            pending = Pending(key=hello.key, dialler_nonce=hello.nonce, listener_nonce=self._draw())
        if len(self._pending) >= PENDING_MAX:
            self._pending.pop(self._to_forget())
        self._pending[place] = pending
        challenge = Challenge(
            dialler_nonce=pending.dialler_nonce,
            listener_nonce=pending.listener_nonce,
            key=self._identity.pair.public_key,
        )
        return Taken(reply=encode_control(challenge))

    def _to_forget(self) -> bytes:
        """Return the oldest pending place of a stranger, or of anybody."""
        for place, pending in self._pending.items():
            if not self._admission.is_full(pending.key):
                return place
        return next(iter(self._pending))

    def _proved(self, place: bytes, proof: Proof, now_ms: int) -> Taken:
        nonces = (proof.dialler_nonce, proof.listener_nonce)
        session = self._sessions.get(place)
        if session is not None and (session.dialler_nonce, session.listener_nonce) == nonces:
            return Taken(reply=session.ready)
        pending = self._pending.get(place)
        if pending is None or (pending.dialler_nonce, pending.listener_nonce) != nonces:
            return Taken(reply=self.reset(now_ms))
        strangers = self._strangers() - (pending.key in self._places)
        self._admission.check(pending.key, strangers, now_ms)
        if not self._proofs[self._admission.is_full(pending.key)].take(1, now_ms):
            raise Refused("busy")
        del self._pending[place]  # a nonce is good for one proof
        if not verifies(pending.key, self._signed(Role.DIALLER, pending), proof.signature):
            raise Refused("signature")
        ready = Ready(
            dialler_nonce=pending.dialler_nonce,
            listener_nonce=pending.listener_nonce,
            signature=self._identity.pair.sign(self._signed(Role.LISTENER, pending)),
        )
        self._open(place, pending, encode_control(ready), now_ms)
        return Taken(reply=encode_control(ready), opened=pending.key)

    def _open(self, place: bytes, pending: Pending, ready: bytes, now_ms: int) -> None:
        self.close(place)
        earlier = self._places.get(pending.key)
        if earlier is not None:
            self.close(earlier)
        self._places[pending.key] = place
        self._sessions[place] = Session(
            key=pending.key,
            dialler_nonce=pending.dialler_nonce,
            listener_nonce=pending.listener_nonce,
            ready=ready,
            heard_ms=now_ms,
        )

    def _asked(self, place: bytes, ping: Ping, now_ms: int) -> Taken:
        session = self._sessions.get(place)
        if session is None or session.listener_nonce != ping.listener_nonce:
            return Taken(reply=self.reset(now_ms))
        session.heard_ms = now_ms
        return Taken(reply=encode_control(Pong(listener_nonce=ping.listener_nonce)))

    def _signed(self, role: Role, pending: Pending) -> bytes:
        return signed_bytes(
            domain=self._identity.domain,
            role=role,
            socket_class=self._identity.socket_class,
            dialler_key=pending.key,
            listener_key=self._identity.pair.public_key,
            dialler_nonce=pending.dialler_nonce,
            listener_nonce=pending.listener_nonce,
        )
