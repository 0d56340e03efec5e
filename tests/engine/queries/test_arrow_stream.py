"""Streams from strangers: what is read takes no more memory than its bytes."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.queries.arrow_stream import ArrowRefused, read_table
from engine.queries.errors import QueryError
from engine.queries.submission import BATCH_RECORDS_MAX, arrow_schema, submit_arrow

SCHEMA = arrow_schema()
ROWS = 1_000
UNPACKED_MAX = 2**24
"""Bytes; the whole body of a batch has fewer."""


def zeros(kind: pa.DataType, rows: int) -> pa.Array:
    """Return a column of zeros."""
    width = kind.bit_width // 8
    return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(bytes(rows * width))])


def stream(rows: int, batches: int = 1, changed: pa.Array = None, **options: Any) -> bytes:
    """Return a stream of transactions that are all zeros; changed: another first column."""
    columns = [zeros(field.type, rows) for field in SCHEMA]
    schema = SCHEMA
    if changed is not None:
        columns[0] = changed
        schema = SCHEMA.set(0, pa.field(SCHEMA.names[0], changed.type))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(batches):
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return bytes(sink.getvalue())


def accept(_: int) -> None:
    """Let any number of rows in."""


def test_columns_come_through() -> None:
    """Batches are put together, and a narrower type of number is taken for the wider one."""
    assert read_table(stream(ROWS, batches=3), SCHEMA, accept).num_rows == 3 * ROWS
    narrow = pa.array([7] * ROWS, pa.uint8())
    first = read_table(stream(ROWS, changed=narrow), SCHEMA, accept).column(0)
    assert set(first.to_pylist()) == {7}
    assert first.type == SCHEMA[0].type


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_a_short_body_cannot_become_a_long_table(compression: str) -> None:
    """Compressed buffers are refused before one is unpacked: a hundred kilobytes held gigabytes."""
    body = stream(500_000, compression=compression)
    before = pa.total_allocated_bytes()
    highest = pa.default_memory_pool().max_memory() or 0
    with pytest.raises(ArrowRefused, match="compressed"):
        read_table(body, SCHEMA, accept)
    assert pa.total_allocated_bytes() == before
    assert (pa.default_memory_pool().max_memory() or 0) <= max(highest, before + UNPACKED_MAX)


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(ROWS),
        pa.array([[]] * ROWS, pa.list_(pa.uint8(), 0)),
        pa.array(["x" * 1_000] * ROWS).dictionary_encode(),
        pa.RunEndEncodedArray.from_arrays(pa.array([ROWS], pa.int32()), pa.array([1])),
        pa.array([{}] * ROWS, pa.struct([])),
    ],
    ids=lambda column: str(column.type)[:12],
)
def test_rows_without_bytes_are_refused(column: pa.Array) -> None:
    """Types are refused whose rows take no bytes of the body."""
    with pytest.raises(ArrowRefused):
        read_table(stream(ROWS, changed=column), SCHEMA, accept)


def test_rows_are_counted_before_they_are_copied() -> None:
    """Too many rows are refused by the first batch that has them, whatever comes after."""
    queries: Any = None
    body = stream(BATCH_RECORDS_MAX // 2, batches=3)
    with pytest.raises(QueryError) as refused:
        submit_arrow(queries, body)
    assert refused.value.answer.code == "batch.size"


def test_metadata_that_leads_out_of_itself_is_refused() -> None:
    """Any offset of the metadata may be wrong before Arrow itself has looked at it."""
    whole = stream(16, batches=1)
    reasons = set()
    for place in range(0, len(whole) // 2, 4):
        for value in range(0, 32, 4):
            body = bytearray(whole)
            body[place] = value
            try:
                read_table(bytes(body), SCHEMA, lambda _: None)
            except ArrowRefused as why:
                reasons.add(str(why).split(":")[0])
            except (pa.ArrowException, KeyError, OSError, ValueError):
                reasons.add("Arrow's own")
    assert "its metadata leads out of itself" in reasons


def test_spoiled_streams_are_refused_or_read(rng: np.random.Generator) -> None:
    """Whatever bytes come, they are rows or a refusal, and never too many rows."""
    whole = np.frombuffer(stream(16, batches=2), np.uint8)
    refused = 0
    for _ in range(400):
        body = whole.copy()
        places = rng.integers(0, len(body), rng.integers(1, 6))
        body[places] = rng.integers(0, 256, len(places), dtype=np.uint8)
        counted: list[int] = []
        try:
            table = read_table(body.tobytes(), SCHEMA, counted.append)
        except (ArrowRefused, pa.ArrowException, KeyError, OSError, ValueError):
            refused += 1
        else:
            assert table.num_rows == (counted[-1] if counted else 0)
    assert 0 < refused < 400
