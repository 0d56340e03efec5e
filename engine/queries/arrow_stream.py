"""A stranger's stream in Arrow's format, read without taking more memory than its bytes.

A buffer may be compressed, name a length of its own, be shared by many columns or stand for rows
that take no bytes. So what is read here has no compression, no dictionaries and no types but plain
ones: every column is then a view of the body, and the rows are counted before any is copied.
"""

import struct
from collections.abc import Callable

import pyarrow as pa

_RECORD_BATCH = 3
_HEADER_TYPE, _HEADER = 1, 2
"""Fields of a flatbuffer `Message`; `_COMPRESSION` is one of a `RecordBatch` in it."""
_COMPRESSION = 3
_MESSAGES = ("schema", "record batch")


class ArrowRefused(Exception):
    """The stream is whole, and nothing that is read here; the argument says why."""


def read_table(body: bytes, schema: pa.Schema, check_count: Callable[[int], None]) -> pa.Table:
    """Return the rows of a stream with the columns of `schema`; others are left out.

    check_count: is told the rows so far, and raises when they are too many. Raises ArrowRefused,
    and what pyarrow raises for bytes that are no stream or columns that are not castable.
    """
    buffer = pa.py_buffer(body)
    for message in pa.ipc.MessageReader.open_stream(buffer):
        try:
            _check_message(message)
        except (struct.error, IndexError) as error:
            raise ArrowRefused(f"its metadata leads out of itself: {error}") from error
    batches, rows = [], 0
    with pa.ipc.open_stream(buffer) as reader:
        for name in schema.names:
            _check_type(name, reader.schema.field(name).type)
        for batch in reader:
            rows += batch.num_rows
            check_count(rows)
            batches.append(batch)
        table = pa.Table.from_batches(batches, reader.schema)
    table.validate(full=True)
    return table.select(schema.names).cast(schema)


def _check_message(message: pa.Message) -> None:
    """Refuse what has to be unpacked."""
    if message.type not in _MESSAGES:
        raise ArrowRefused(f"a message of type {message.type!r} is not read here")
    data = memoryview(message.metadata)
    table: int = struct.unpack_from("<I", data)[0]
    if data[table + _place_of(data, table, _HEADER_TYPE)] != _RECORD_BATCH:
        return
    at = table + _place_of(data, table, _HEADER)
    batch = at + struct.unpack_from("<I", data, at)[0]
    if _place_of(data, batch, _COMPRESSION):
        raise ArrowRefused("its buffers are compressed")


def _place_of(data: memoryview, table: int, field: int) -> int:
    """Return where a flatbuffer's table has a field, from its start; 0 where it has none."""
    names = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * field
    if place + 2 > struct.unpack_from("<H", data, names)[0]:
        return 0
    found: int = struct.unpack_from("<H", data, names + place)[0]
    return found


def _check_type(name: str, kind: pa.DataType) -> None:
    """Refuse types whose rows need not have bytes of their own."""
    is_plain = pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind)
    if not (is_plain or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ArrowRefused(f"the column {name} has the type {kind}")
