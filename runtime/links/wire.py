"""The control messages of a link as bytes: handshake, keepalive, reset.

Spec: spec/network.md#control-messages. Next: `handshake.py`.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

VERSION = 1
KEY_BYTES = 32
NONCE_BYTES = 32
SIGNATURE_BYTES = 64
DOMAIN_BYTES = 32
CONTROL_BYTES_MAX = 129


class Role(IntEnum):
    """Which side of a connection signs."""

    DIALLER = 1
    LISTENER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Dialler: who I claim to be, and on which class of socket."""

    socket_class: int
    key: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """Listener: who I claim to be, and a nonce to sign."""

    dialler_nonce: bytes
    listener_nonce: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Dialler: the signature."""

    dialler_nonce: bytes
    listener_nonce: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Listener: you are in, and this is my signature."""

    dialler_nonce: bytes
    listener_nonce: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Listener: I hold no session for this connection; begin anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Dialler: is the session with this nonce still held?"""

    listener_nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pong:
    """Listener: it is."""

    listener_nonce: bytes


Control = Hello | Challenge | Proof | Ready | Reset | Ping | Pong

_FORMATS: dict[int, tuple[type, struct.Struct, tuple[str, ...]]] = {
    1: (Hello, struct.Struct("<BB32s32s"), ("version", "socket_class", "key", "nonce")),
    2: (
        Challenge,
        struct.Struct("<32s32s32s"),
        ("dialler_nonce", "listener_nonce", "key"),
    ),
    3: (Proof, struct.Struct("<32s32s64s"), ("dialler_nonce", "listener_nonce", "signature")),
    4: (Ready, struct.Struct("<32s32s64s"), ("dialler_nonce", "listener_nonce", "signature")),
    5: (Reset, struct.Struct("<"), ()),
    6: (Ping, struct.Struct("<32s"), ("listener_nonce",)),
    7: (Pong, struct.Struct("<32s"), ("listener_nonce",)),
}
_NUMBERS = {made: number for number, (made, _, _) in _FORMATS.items()}

assert max(1 + layout.size for _, layout, _ in _FORMATS.values()) == CONTROL_BYTES_MAX


class ControlError(Exception):
    """Bytes that are no control message of this version."""


def encode_control(control: Control) -> bytes:
    """Return the bytes of a control message: its number, then its fields."""
    number = _NUMBERS[type(control)]
    _, layout, names = _FORMATS[number]
    fields = [VERSION if name == "version" else getattr(control, name) for name in names]
    return bytes([number]) + layout.pack(*fields)


def decode_control(data: bytes) -> Control:
    """Return the one control message in exactly these bytes; raises ControlError."""
    if not data or data[0] not in _FORMATS:
        raise ControlError("no control message begins like this")
    made, layout, names = _FORMATS[data[0]]
    if len(data) != 1 + layout.size:
        raise ControlError(f"{len(data)} bytes are no {made.__name__}")
    fields = dict(zip(names, layout.unpack_from(data, 1), strict=True))
    if fields.pop("version", VERSION) != VERSION:
        raise ControlError("another version of the handshake")
    control: Control = made(**fields)
    return control


def signed_bytes(
    *,
    domain: bytes,
    role: Role,
    socket_class: int,
    dialler_key: bytes,
    listener_key: bytes,
    dialler_nonce: bytes,
    listener_nonce: bytes,
) -> bytes:
    """Return the 162 bytes that one side signs. Spec: spec/network.md#handshake."""
    assert len(domain) == DOMAIN_BYTES, len(domain)
    head = domain + bytes([role, socket_class])
    return head + dialler_key + listener_key + dialler_nonce + listener_nonce
