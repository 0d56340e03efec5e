"""One finalized block's delta and receipts as bytes: flat columns, each as narrow as its values.

A delta holds what a block left behind, not what it replaced: applied in order of height to an older
state it gives the newer one. Receipts are one status byte per transaction; the rest of a receipt
stands in the payload. Spec: spec/storage.md#history.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.constants import KEY_BYTES
from kernels.layout import U8, U32, U64, Changes

HISTORY_VERSION = 1
HEAD_BYTES = 64
_HEAD = struct.Struct("<I4B6Q")
_TYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
assert _HEAD.size <= HEAD_BYTES


class HistoryError(Exception):
    """Bytes that are no block's history, though their checksum may be right."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delta:
    """The values that a block left in the accounts that it changed, or created."""

    slots: U32
    """(m,) uint32, ascending, without repetition"""
    balances: U64
    """(m,) uint64, base units"""
    nonces: U64
    """(m,) uint64"""
    created_keys: U8
    """(count_after - count_before, 32) uint8: the keys of slots [count_before, count_after)"""
    count_before: int
    count_after: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """What finalization stores of a block."""

    delta: Delta
    statuses: U8
    """(n,) uint8, in canonical order"""


def delta_of(changes: Changes) -> Delta:
    """Return the part of a write set that is stored."""
    return Delta(
        slots=changes.slots,
        balances=changes.balances_after,
        nonces=changes.nonces_after,
        created_keys=changes.created_keys,
        count_before=changes.count_before,
        count_after=changes.count_after,
    )


def encode_history(delta: Delta, statuses: U8) -> list[bytes | memoryview]:
    """Return the parts of a record's body."""
    changed, first = len(delta.slots), 0
    gaps: U32 = np.zeros(changed, np.uint32)
    if changed:
        first = int(delta.slots[0])
        np.subtract(delta.slots[1:], delta.slots[:-1], out=gaps[1:])
    columns = [_narrow(gaps), _narrow(delta.balances), _narrow(delta.nonces)]
    head = _HEAD.pack(
        HISTORY_VERSION,
        *(column.itemsize for column in columns),
        0,
        changed,
        first,
        len(delta.created_keys),
        delta.count_before,
        delta.count_after,
        len(statuses),
    )
    parts: list[bytes | memoryview] = [head.ljust(HEAD_BYTES, b"\0")]
    for column in (*columns, delta.created_keys, statuses):
        data = np.ascontiguousarray(column).reshape(-1).view(np.uint8).data
        parts += [data, bytes(-len(data) % 8)]
    return parts


def decode_history(body: bytes | memoryview) -> History:
    """Return the history in a record's body; raises HistoryError."""
    raw = np.frombuffer(body, np.uint8)
    if raw.size < HEAD_BYTES:
        raise HistoryError("it is shorter than its head")
    version, gap_width, balance_width, nonce_width, zero, *numbers = _HEAD.unpack_from(raw.data)
    changed, first, created, count_before, count_after, transactions = numbers
    widths = (gap_width, balance_width, nonce_width)
    if version != HISTORY_VERSION or zero or any(width not in _TYPES for width in widths):
        raise HistoryError(f"version {version} with widths {widths} is unknown")
    counts = (changed, changed, changed, created, transactions)
    columns, start = [], HEAD_BYTES
    for width, count in zip((*widths, KEY_BYTES, 1), counts, strict=True):
        columns.append(raw[start : start + width * count])
        start += -(-width * count // 8) * 8
    if start != raw.size or created != count_after - count_before:
        raise HistoryError(f"its counts ask for {start} bytes and it has {raw.size}")
    gaps, balances, nonces = (
        column.view(_TYPES[width]).astype(np.uint64)
        for column, width in zip(columns, widths, strict=False)
    )
    places = np.cumsum(gaps, dtype=np.uint64) + np.uint64(first)
    if changed and int(places[-1]) >= count_after:
        raise HistoryError(f"slot {int(places[-1])} is beyond {count_after} accounts")
    return History(
        delta=Delta(
            slots=places.astype(np.uint32),
            balances=balances,
            nonces=nonces,
            created_keys=columns[3].reshape(-1, KEY_BYTES),
            count_before=count_before,
            count_after=count_after,
        ),
        statuses=columns[4],
    )


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in the narrowest of four unsigned types that holds them all."""
    greatest = int(values.max()) if len(values) else 0
    width = next(width for width in _TYPES if greatest < 1 << (8 * width))
    return values.astype(_TYPES[width])
