"""Encryption for links that leave the machine: CURVE keys made of Ed25519 keys, and who gets in.

A context has one ZAP handler, a thread that libzmq asks at every CURVE handshake whether a key may
come in. Each link has a gate there, named by its ZAP domain. Spec: spec/network.md#curve.
"""

import secrets
import socket
import threading
from dataclasses import dataclass
from functools import lru_cache

import nacl.bindings
import nacl.exceptions
import zmq

from runtime.keypair import KeyPair

ZAP_ADDRESS = "inproc://zeromq.zap.01"
ZAP_FRAMES = 7
"""of a request under CURVE: version, id, domain, address, routing id, mechanism, key"""
KEYS_CACHED_MAX = 4_096


def curve_secret(pair: KeyPair) -> bytes:
    """Return the 32 bytes of the X25519 secret of a key pair."""
    secret: bytes = nacl.bindings.crypto_sign_ed25519_sk_to_curve25519(pair.seed + pair.public_key)
    return secret


@lru_cache(KEYS_CACHED_MAX)
def curve_key(public_key: bytes) -> bytes | None:
    """Return the X25519 key of an Ed25519 key; None: the bytes are no key."""
    try:
        key: bytes = nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(public_key)
    except (nacl.exceptions.CryptoError, ValueError):
        return None
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Whom a link lets in; replaced as a whole, so that any thread may read it."""

    allowed: frozenset[bytes]
    """X25519 keys"""
    banned: frozenset[bytes]
    takes_strangers: bool

    def admits(self, key: bytes) -> bool:
        """Say whether an X25519 key may open a connection."""
        return key not in self.banned and (self.takes_strangers or key in self.allowed)


class ZapHandler:
    """Answers libzmq for all links of one context, in a thread from the first to the last."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Take the address that libzmq asks; use `open_gate` instead."""
        self._context = context
        self._gates: dict[str, Gate] = {}
        self._socket = context.socket(zmq.REP)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(ZAP_ADDRESS)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)
        self.refused = 0

    @classmethod
    def open_gate(
        cls, context: zmq.Context[zmq.Socket[bytes]], gate: Gate
    ) -> tuple["ZapHandler", str]:
        """Add a gate and return the handler and the name of the gate's domain."""
        with _LOCK:
            handler = _HANDLERS.get(context)
            if handler is None:
                handler = _HANDLERS[context] = cls(context)
                handler._thread.start()
            name = secrets.token_hex(16)
            handler._gates[name] = gate
        return handler, name

    def replace_gate(self, name: str, gate: Gate) -> None:
        """Let others in from now on; connections that are open stay."""
        self._gates[name] = gate

    def close_gate(self, name: str) -> None:
        """Remove a gate; the last one ends the thread."""
        with _LOCK:
            del self._gates[name]
            if self._gates:
                return
            del _HANDLERS[self._context]
            self._wake.send(b"x")
            self._thread.join()
            self._socket.close()
            self._wake.close()
            self._woken.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._socket in ready:
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
            elif ready:
                return

    def _answer(self, request: list[bytes]) -> list[bytes]:
        """Answer a request of libzmq, which is no foreign data but for the key in it."""
        if request[5] == b"NULL" and not request[2]:
            # A plain socket of the same context, where nobody is believed before its signature.
            return [*request[:2], b"200", b"OK", b"", b""]
        gate = self._gates.get(request[2].decode())
        is_curve = len(request) == ZAP_FRAMES and request[5] == b"CURVE"
        if gate is not None and is_curve and gate.admits(request[6]):
            return [*request[:2], b"200", b"OK", request[6].hex().encode(), b""]
        self.refused += 1
        return [*request[:2], b"400", b"not let in", b"", b""]


_LOCK = threading.Lock()
_HANDLERS: dict[zmq.Context[zmq.Socket[bytes]], ZapHandler] = {}
"""by context, while one of its links is encrypted"""
