"""One peer that a link dials: a DEALER socket, the handshake over it, and when it is opened anew.

Spec: spec/network.md#connections.
"""

import secrets

import zmq

from runtime.links.admission import Refused
from runtime.links.curve import curve_key, curve_secret
from runtime.links.handshake import Dialler, Identity
from runtime.links.limits import REDIAL_MS, LinkLimits
from runtime.links.sockets import Context, Raw, Socket, open_dealer, read, send_control, send_frame
from runtime.links.watch import Watch
from runtime.links.wire import NONCE_BYTES, ControlError, decode_control


def draw_nonce() -> bytes:
    """Return 32 bytes that nobody can guess."""
    return secrets.token_bytes(NONCE_BYTES)


class Dialled:
    """A peer at an address. `drop` is called with the reason of everything that is not taken."""

    def __init__(
        self,
        *,
        context: Context,
        identity: Identity,
        limits: LinkLimits,
        peer: bytes,
        address: str,
        is_curve: bool,
        watch: Watch,
        now_ms: int,
    ) -> None:
        """Dial; under CURVE the peer must have a key that is one (see `curve.curve_key`)."""
        self._context = context
        self._identity = identity
        self._limits = limits
        self._peer = peer
        self.address = address
        self._is_curve = is_curve
        self._watch = watch
        self._fd = -1
        self._dial(now_ms)

    @property
    def is_open(self) -> bool:
        """Say whether the peer has proved itself."""
        return self._dialler.is_open

    @property
    def session(self) -> bytes:
        """Return what names the session; empty where there is none."""
        return self._dialler.session

    def can_send(self) -> bool:
        """Say whether a frame sent now would be queued."""
        return self.is_open and bool(int(self.socket.get(zmq.EVENTS)) & zmq.POLLOUT)

    def send(self, frame: bytes) -> str | None:
        """Send a frame; return why not, if it went nowhere."""
        return send_frame(self.socket, b"", frame)

    def read(self) -> Raw | None:
        """Return the next message, or None."""
        return read(self.socket, is_router=False)

    def take(self, raw: Raw, now_ms: int) -> bytes | None:
        """Return the frame in a message, or None for a control message; raises Refused."""
        if raw.frame is not None:
            if not self.is_open:
                raise Refused("no_session")
            self._credit(len(raw.frame))
            self._dialler.heard(now_ms)
            return raw.frame
        if raw.control is None:
            raise Refused("malformed")
        try:
            control = decode_control(raw.control)
        except ControlError as error:
            raise Refused("malformed") from error
        answer = self._dialler.take(control, now_ms)
        if self.is_open and raw.fd != self._fd:
            self._prove(raw.fd, now_ms)
        self._credit(len(raw.control))
        if answer is not None:
            self._send_control(answer)
        return None

    def tick(self, now_ms: int) -> None:
        """Send what is due; open the socket anew where nothing has been proved for long."""
        if self.is_open:
            self._proved_ms = now_ms
        elif now_ms >= self._proved_ms + REDIAL_MS:
            # libzmq gives up for good where the other side does not speak its protocol, or refuses.
            self.close()
            self._dial(now_ms)
        due = self._dialler.tick(now_ms)
        if due is not None and not self._send_control(due):
            self._dialler.not_sent(now_ms)

    def close(self) -> None:
        """Hang up."""
        connection = self._watch.get(self._fd)
        if connection is not None:
            self._watch.forget(connection)
        self._fd = -1
        self.socket.close()

    def _dial(self, now_ms: int) -> None:
        self._proved_ms = now_ms
        self.socket: Socket = open_dealer(self._context, self._limits, self.address)
        if self._is_curve:
            server_key = curve_key(self._peer)
            own_key = curve_key(self._identity.pair.public_key)
            assert server_key is not None, "the link checks the keys that it dials"
            assert own_key is not None, "an own key is one"
            self.socket.set(zmq.CURVE_SERVERKEY, server_key)
            self.socket.set(zmq.CURVE_PUBLICKEY, own_key)
            self.socket.set(zmq.CURVE_SECRETKEY, curve_secret(self._identity.pair))
        self._dialler = Dialler(
            identity=self._identity, peer=self._peer, draw=draw_nonce, now_ms=now_ms
        )
        self.socket.connect(self.address)

    def _prove(self, fd: int, now_ms: int) -> None:
        self._fd = fd
        self._watch.accepted(fd, now_ms)
        connection = self._watch.get(fd)
        if connection is not None:
            connection.is_proved = True

    def _credit(self, frame_bytes: int) -> None:
        connection = self._watch.peek(self._fd)
        if connection is not None:
            connection.credit(frame_bytes)

    def _send_control(self, control: bytes) -> bool:
        # What is not sent now is sent again: every control message is repeated by whoever waits.
        return send_control(self.socket, b"", control) is None
