"""The bytes of gossip: a head of 16 bytes and items of one width. Spec: spec/gossip.md#frames."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from engine.constants import HASH_BYTES, TRANSACTION_BYTES
from kernels.layout import U8
from kernels.sorting import sort

FRAME_BYTES_MAX = 2**20
HEAD_BYTES = 16
VERSION = 1
RECORDS_MAX = (FRAME_BYTES_MAX - HEAD_BYTES) // TRANSACTION_BYTES
HASHES_MAX = 16_384
_HEAD = struct.Struct("<BBHIQ")
assert _HEAD.size == HEAD_BYTES
assert RECORDS_MAX == 5_461
assert HEAD_BYTES + HASHES_MAX * HASH_BYTES <= FRAME_BYTES_MAX


class BadFrame(Exception):
    """A frame that no honest node sends; the text says why."""


class Kind(IntEnum):
    """What a frame says."""

    PUSH = 1
    ANNOUNCE = 2
    WANT = 3
    FOUND = 4
    ASK = 5
    INVENTORY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a kind consists of."""

    item_bytes: int
    count_min: int
    count_max: int
    has_place: bool = False


SHAPES: Mapping[int, Shape] = {
    Kind.PUSH: Shape(item_bytes=TRANSACTION_BYTES, count_min=1, count_max=RECORDS_MAX),
    Kind.ANNOUNCE: Shape(item_bytes=HASH_BYTES, count_min=1, count_max=HASHES_MAX),
    Kind.WANT: Shape(item_bytes=HASH_BYTES, count_min=1, count_max=RECORDS_MAX),
    Kind.FOUND: Shape(item_bytes=TRANSACTION_BYTES, count_min=0, count_max=RECORDS_MAX),
    Kind.ASK: Shape(item_bytes=0, count_min=0, count_max=0, has_place=True),
    Kind.INVENTORY: Shape(item_bytes=HASH_BYTES, count_min=0, count_max=HASHES_MAX, has_place=True),
}
NOTHING: U8 = np.empty((0, HASH_BYTES), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A frame of the right form."""

    kind: Kind
    items: U8
    """(n, width) uint8, read-only; a view of the bytes that were decoded"""
    place: int = 0


def encode_frame(kind: Kind, items: U8 = NOTHING, place: int = 0) -> bytes:
    """Return the bytes of a frame. items: (n, width of the kind) uint8."""
    shape = SHAPES[kind]
    assert shape.count_min <= len(items) <= shape.count_max, len(items)
    assert not len(items) or items.shape[1] == shape.item_bytes, items.shape
    assert not place or shape.has_place, place
    return _HEAD.pack(kind, VERSION, 0, len(items), place) + items.tobytes()


def decode_frame(data: bytes) -> Frame:
    """Return what a frame says. Raises BadFrame."""
    if len(data) < HEAD_BYTES:
        raise BadFrame("shorter than a head")
    kind, version, reserved, count, place = _HEAD.unpack_from(data)
    shape = SHAPES.get(kind)
    if shape is None or version != VERSION or reserved:
        raise BadFrame("a kind or a version that is not known")
    if not shape.count_min <= count <= shape.count_max:
        raise BadFrame("a count that this kind does not have")
    if len(data) != HEAD_BYTES + count * shape.item_bytes:
        raise BadFrame("another length than its count")
    if place and not shape.has_place:
        raise BadFrame("a place where none belongs")
    items = np.frombuffer(data, np.uint8, count * shape.item_bytes, HEAD_BYTES if count else 0)
    width = shape.item_bytes or HASH_BYTES
    return Frame(kind=Kind(kind), items=items.reshape(count, width), place=place)


def has_twins(hashes: U8) -> bool:
    """Say whether one of (n, 32) hashes stands there twice."""
    firsts = sort(np.ascontiguousarray(hashes[:, :8]).view(np.uint64).reshape(-1))
    if not bool((firsts[1:] == firsts[:-1]).any()):
        return False
    return len({row.tobytes() for row in hashes}) < len(hashes)
