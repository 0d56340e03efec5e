"""Batches of transactions as columns, and the 192-byte records that they stand for.

`COLUMN_TABLE` is the one source of names, types, widths and offsets; the codec, the records and the
tests derive theirs from it. All columns made here are read-only: a batch is a value, and compiled
kernels would see a writable array as another type. Spec: spec/transaction.md#layout.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.constants import (
    DOMAIN_BYTES,
    MESSAGE_BYTES,
    SIGNED_BYTES,
    TRANSACTION_BYTES,
)
from engine.errors import RecordError
from kernels.layout import U8, Columns


class ColumnLayout(NamedTuple):
    """One field of a transaction."""

    name: str
    """of the field in `Columns`, in the payload's Arrow type and in the specification"""
    dtype: str
    """NumPy type of an element"""
    width: int
    """bytes per transaction"""
    record_offset: int
    """first byte of the field in a record"""


COLUMN_TABLE = (
    ColumnLayout("version", "<u1", 1, 0),
    ColumnLayout("kind", "<u1", 1, 1),
    ColumnLayout("chain_id", "<u4", 4, 4),
    ColumnLayout("nonce", "<u8", 8, 8),
    ColumnLayout("valid_until", "<u8", 8, 16),
    ColumnLayout("amount", "<u8", 8, 24),
    ColumnLayout("fee", "<u8", 8, 32),
    ColumnLayout("memo", "<u1", 16, 48),
    ColumnLayout("sender", "<u1", 32, 64),
    ColumnLayout("recipient", "<u1", 32, 96),
    ColumnLayout("signature", "<u1", 64, 128),
)
"""In the order of the payload's buffers."""

RESERVED = ((2, 4), (40, 48))
"""[start, end) of the bytes of a record that must be zero and have no column."""

COLUMN_BYTES = sum(column.width for column in COLUMN_TABLE)
"""Bytes per transaction in a payload, padding and lane offsets aside."""

assert sys.byteorder == "little", "columns are little-endian and are read in native order"
assert Columns._fields == tuple(column.name for column in COLUMN_TABLE)
assert COLUMN_BYTES + sum(end - start for start, end in RESERVED) == TRANSACTION_BYTES


def column_shape(column: ColumnLayout, count: int) -> tuple[int, ...]:
    """Return (count,) for a column of integers and (count, width) for one of byte strings."""
    element_bytes = np.dtype(column.dtype).itemsize
    return (count,) if element_bytes == column.width else (count, column.width)


def view_column(data: U8, column: ColumnLayout) -> NDArray[Any]:
    """Return data, (count * width,) uint8 and contiguous, as a read-only column without copying."""
    count = data.shape[0] // column.width
    array = data.view(column.dtype).reshape(column_shape(column, count))
    array.flags.writeable = False
    return array


def count_of(columns: Columns) -> int:
    """Return the number of transactions, after asserting that the columns are well formed."""
    count = int(columns.version.shape[0])
    arrays: tuple[NDArray[Any], ...] = columns
    for column, array in zip(COLUMN_TABLE, arrays, strict=True):
        assert array.dtype == np.dtype(column.dtype), (column.name, array.dtype)
        assert array.shape == column_shape(column, count), (column.name, array.shape)
    return count


def empty() -> Columns:
    """Return the columns of no transactions."""
    return Columns(*(view_column(np.empty(0, np.uint8), column) for column in COLUMN_TABLE))


def from_records(records: U8) -> Columns:
    """Return (n, 192) uint8 records as columns, copied.

    Raises RecordError (`record.shape`, `record.reserved`): nothing else about a record is judged.
    """
    if records.ndim != 2 or records.shape[1] != TRANSACTION_BYTES or records.dtype != np.uint8:
        raise RecordError(
            "record.shape",
            what=f"an array of shape {records.shape} and type {records.dtype} holds no records",
            where="the array of records",
            why=f"records are (n, {TRANSACTION_BYTES}) uint8",
            what_to_do=f"pass one row of {TRANSACTION_BYTES} bytes per transaction",
        )
    _check_reserved(records)
    arrays = []
    for column in COLUMN_TABLE:
        start = column.record_offset
        data = np.array(records[:, start : start + column.width], order="C")
        arrays.append(view_column(data.reshape(-1), column))
    return Columns(*arrays)


def _check_reserved(records: U8) -> None:
    """Raise RecordError for the first record with a reserved byte that is not zero."""
    bad = np.zeros(records.shape[0], np.bool_)
    for start, end in RESERVED:
        bad |= records[:, start:end].any(axis=1)
    if not bad.any():
        return
    row = int(bad.argmax())
    offset = next(i for start, end in RESERVED for i in range(start, end) if records[row, i])
    raise RecordError(
        "record.reserved",
        what=f"a reserved byte is {int(records[row, offset])}",
        where=f"record {row}, byte {offset}",
        why="reserved bytes are zero in this version and have no place in a payload",
        what_to_do="set bytes 2-3 and 40-47 to zero and sign again, since they are signed",
    )


def to_records(columns: Columns) -> U8:
    """Return the columns as (n, 192) uint8 records, reserved bytes zero; a fresh writable array."""
    records = np.zeros((count_of(columns), TRANSACTION_BYTES), np.uint8)
    _fill(records, columns)
    return records


def signed_messages(columns: Columns, domain: bytes) -> U8:
    """Return what each signature signs: (n, 160) uint8, domain and the first 128 record bytes.

    `domain`: 32 bytes, of the chain (`engine.genesis.transaction_domain`).
    Spec: spec/transaction.md#what-is-signed.
    """
    assert len(domain) == DOMAIN_BYTES, len(domain)
    messages = np.zeros((count_of(columns), MESSAGE_BYTES), np.uint8)
    messages[:, :DOMAIN_BYTES] = np.frombuffer(domain, np.uint8)
    _fill(messages[:, DOMAIN_BYTES:], columns)
    messages.flags.writeable = False
    return messages


def _fill(rows: U8, columns: Columns) -> None:
    """Write into each row (n, 192 or 128) the fields that lie within it."""
    count, row_bytes = rows.shape
    assert row_bytes in (SIGNED_BYTES, TRANSACTION_BYTES), row_bytes
    for column, array in zip(COLUMN_TABLE, columns, strict=True):
        start, end = column.record_offset, column.record_offset + column.width
        if end <= row_bytes:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            rows[:, start:end] = data.reshape(count, column.width)


def take(columns: Columns, order: NDArray[np.integer[Any]]) -> Columns:
    """Return the transactions at positions `order`, (m,) of any integer type, in that order."""
    return _read_only([array[order] for array in columns])


def concatenate(batches: Sequence[Columns]) -> Columns:
    """Return the transactions of all batches, one batch after the other."""
    if not batches:
        return empty()
    return _read_only([np.concatenate(arrays) for arrays in zip(*batches, strict=True)])


def _read_only(arrays: Sequence[NDArray[Any]]) -> Columns:
    """Return fresh arrays as columns that nobody can write."""
    for array in arrays:
        array.flags.writeable = False
    columns = Columns(*arrays)
    count_of(columns)
    return columns
