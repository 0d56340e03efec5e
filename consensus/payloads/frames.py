"""The four frames of dissemination: CHUNK, ACK, GET, MISSING.

Spec: spec/dissemination.md#frames. A frame that does not decode is `WrongFrame`: no honest peer
sends one. Decoding proves nothing but the shape. Next: `shelf.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from consensus.core.types import Hash32
from consensus.payloads.chunks import CHUNK_BYTES, HASH_BYTES, chunk_bytes, chunk_count, depth_of
from consensus.payloads.limits import ACK_INDICES_MAX, CHUNKS_ASKED_MAX

CHUNK = 1
ACK = 2
GET = 3
MISSING = 4

CHUNK_HEAD_BYTES = 1 + 32 + 8 + 4
ACK_HEAD_BYTES = 1 + 32 + 1
GET_BYTES = 1 + 32 + 32 + 8 + 4 + 4
MISSING_BYTES = 1 + 32


class WrongFrame(Exception):
    """A frame that no honest peer sends: (reason)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One chunk of a payload, with its path to the commitment."""

    commitment: Hash32
    payload_bytes: int
    index: int
    path: memoryview
    data: memoryview
    """a view of the frame: nothing is copied"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """These chunks came; `is_stop`: send no more of this payload."""

    commitment: Hash32
    is_stop: bool
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """Send chunks `first` to `first + count - 1` of a payload of `payload_bytes`."""

    block_hash: Hash32
    commitment: Hash32
    payload_bytes: int
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The payload that was asked for is not here, or cannot be sent now."""

    commitment: Hash32


Frame = Chunk | Ack | Get | Missing


def frame_bytes_max(payload_bytes_max: int) -> int:
    """Return the length of the largest frame: a full chunk with its path."""
    path = HASH_BYTES * depth_of(chunk_count(payload_bytes_max))
    return max(CHUNK_HEAD_BYTES + path + CHUNK_BYTES, ACK_HEAD_BYTES + 4 * ACK_INDICES_MAX)


def encode_chunk(
    *, commitment: bytes, payload_bytes: int, index: int, path: bytes, data: memoryview
) -> bytes:
    """Return the frame of one chunk; copies the chunk once."""
    head = bytes((CHUNK,)) + commitment
    place = payload_bytes.to_bytes(8, "little") + index.to_bytes(4, "little")
    return b"".join((head, place, path, data))


def encode_ack(commitment: bytes, indices: Sequence[int], *, is_stop: bool) -> bytes:
    """Return the frame of an acknowledgement."""
    assert len(indices) <= ACK_INDICES_MAX, len(indices)
    named = b"".join(index.to_bytes(4, "little") for index in indices)
    return bytes((ACK,)) + commitment + bytes((is_stop,)) + named


def encode_get(get: Get) -> bytes:
    """Return the frame of a question."""
    assert 1 <= get.count <= CHUNKS_ASKED_MAX, get.count
    place = get.payload_bytes.to_bytes(8, "little") + get.first.to_bytes(4, "little")
    head = bytes((GET,)) + get.block_hash + get.commitment
    return head + place + get.count.to_bytes(4, "little")


def encode_missing(commitment: bytes) -> bytes:
    """Return the frame that sends an asker elsewhere."""
    return bytes((MISSING,)) + commitment


def decode(frame: bytes, payload_bytes_max: int) -> Frame:
    """Return what a peer said. Raises WrongFrame."""
    view = memoryview(frame)
    kind = frame[0] if frame else 0
    if kind == CHUNK:
        return _chunk(view, payload_bytes_max)
    if kind == ACK:
        return _ack(view)
    if kind == GET:
        return _get(view, payload_bytes_max)
    if kind == MISSING:
        if len(frame) != MISSING_BYTES:
            raise WrongFrame("length of MISSING")
        return Missing(commitment=Hash32(frame[1:33]))
    raise WrongFrame("kind")


def _uint(view: memoryview) -> int:
    return int.from_bytes(view, "little")


def _chunk(view: memoryview, payload_bytes_max: int) -> Chunk:
    if len(view) < CHUNK_HEAD_BYTES:
        raise WrongFrame("length of CHUNK")
    payload_bytes, index = _uint(view[33:41]), _uint(view[41:45])
    if payload_bytes > payload_bytes_max:
        raise WrongFrame("payload_bytes of CHUNK")
    count = chunk_count(payload_bytes)
    if index >= count:
        raise WrongFrame("index of CHUNK")
    data_start = CHUNK_HEAD_BYTES + HASH_BYTES * depth_of(count)
    if len(view) != data_start + chunk_bytes(payload_bytes, index):
        raise WrongFrame("length of CHUNK")
    return Chunk(
        commitment=Hash32(bytes(view[1:33])),
        payload_bytes=payload_bytes,
        index=index,
        path=view[CHUNK_HEAD_BYTES:data_start],
        data=view[data_start:],
    )


def _ack(view: memoryview) -> Ack:
    count, rest = divmod(len(view) - ACK_HEAD_BYTES, 4)
    if len(view) < ACK_HEAD_BYTES or rest or count > ACK_INDICES_MAX:
        raise WrongFrame("length of ACK")
    if view[33] > 1:
        raise WrongFrame("flag of ACK")
    starts = range(ACK_HEAD_BYTES, len(view), 4)
    indices = tuple(_uint(view[start : start + 4]) for start in starts)
    return Ack(commitment=Hash32(bytes(view[1:33])), is_stop=bool(view[33]), indices=indices)


def _get(view: memoryview, payload_bytes_max: int) -> Get:
    if len(view) != GET_BYTES:
        raise WrongFrame("length of GET")
    get = Get(
        block_hash=Hash32(bytes(view[1:33])),
        commitment=Hash32(bytes(view[33:65])),
        payload_bytes=_uint(view[65:73]),
        first=_uint(view[73:77]),
        count=_uint(view[77:81]),
    )
    if get.payload_bytes > payload_bytes_max:
        raise WrongFrame("payload_bytes of GET")
    is_within = get.first + get.count <= chunk_count(get.payload_bytes)
    if not (1 <= get.count <= CHUNKS_ASKED_MAX and is_within):
        raise WrongFrame("chunks of GET")
    return get
