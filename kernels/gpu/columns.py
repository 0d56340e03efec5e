"""A batch's columns on the device: they cross once, in one copy where they lie together.

A payload is one buffer with its columns at 64-byte boundaries, so the bytes from the first column
to the last are copied as they are, and each column is a view. Columns from elsewhere are copied one
by one. Byte columns of fixed width are seen as 64-bit words. Read `uploads` next.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.layout import U8, Columns

ALIGN: Final = 64
_WORDS: Final = {"memo": 2, "sender": 4, "recipient": 4, "signature": 8}
"""64-bit words per row of the columns that are bytes on the host."""


class DeviceColumns(NamedTuple):
    """`layout.Columns` on the device; memo (n, 2), keys (n, 4), signature (n, 8) uint64."""

    version: DeviceArray
    kind: DeviceArray
    chain_id: DeviceArray
    nonce: DeviceArray
    valid_until: DeviceArray
    amount: DeviceArray
    fee: DeviceArray
    memo: DeviceArray
    sender: DeviceArray
    recipient: DeviceArray
    signature: DeviceArray

    @property
    def walked(self) -> tuple[DeviceArray, ...]:
        """Return the columns that a walk reads, in the order of its arguments."""
        return (
            self.version, self.kind, self.chain_id, self.nonce, self.valid_until, self.amount,
            self.fee,
        )  # fmt: skip


Copy = Callable[[NDArray[Any], DeviceArray], None]
"""A host array to an equal one on the device."""


def copy_columns(device: Device, arena: Arena, columns: Columns, copy: Copy) -> DeviceColumns:
    """Copy columns to the device. The arena's `columns` are taken; the source must not change."""
    given: tuple[NDArray[Any], ...] = columns
    held = [np.ascontiguousarray(column) for column in given]
    places, size = _together(held)
    region = arena.take("columns", size, np.uint8)
    if places is not None:
        first = min(column.ctypes.data for column in held if column.size)
        copy(_bytes_at(first, size), region)
    else:
        places, offset = [], 0
        for column in held:
            places.append(offset)
            copy(column.reshape(-1).view(np.uint8), region[offset : offset + column.nbytes])
            offset += -(-column.nbytes // ALIGN) * ALIGN
    views = [
        _view(device, region, place, column, _WORDS.get(name))
        for name, place, column in zip(Columns._fields, places, held, strict=True)
    ]
    return DeviceColumns(*views)


def _together(columns: list[NDArray[Any]]) -> tuple[list[int] | None, int]:
    """Return each column's place from the first one, and the bytes of all, if they lie together.

    Otherwise None, and the bytes that they need one behind the other.
    """
    apart = sum(-(-column.nbytes // ALIGN) * ALIGN for column in columns)
    filled = [column for column in columns if column.size]
    if not filled:
        return None, apart
    first = min(column.ctypes.data for column in filled)
    stop = max(column.ctypes.data + column.nbytes for column in filled)
    places = [column.ctypes.data - first if column.size else 0 for column in columns]
    is_aligned = all(place % np.dtype(np.uint64).itemsize == 0 for place in places)
    # Two columns that overlap, or rows of another array, are no payload.
    if is_aligned and stop - first <= apart and len(filled) == len(columns):
        return places, stop - first
    return None, apart


def _bytes_at(address: int, size: int) -> U8:
    """View memory that the caller keeps alive: from the first column to the last of one buffer."""
    memory: Any = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(memory, np.uint8)


def _view(
    device: Device, region: DeviceArray, place: int, column: NDArray[Any], words: int | None
) -> DeviceArray:
    shape: tuple[int, ...] = column.shape if words is None else (len(column), words)
    kind = column.dtype if words is None else np.dtype(np.uint64)
    if not column.size:
        return device.empty(shape, kind)
    return region[place : place + column.nbytes].seen_as(kind, shape)
