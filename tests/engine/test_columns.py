"""Columns stand for records, exactly and without loss."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from engine.codec import Batch
from engine.columns import (
    COLUMN_TABLE,
    RESERVED,
    concatenate,
    count_of,
    empty,
    from_records,
    signed_messages,
    take,
    to_records,
)
from engine.errors import RecordError
from spec import oracle
from tests.engine.batches import batches, random_records

DOMAIN = bytes(range(32))


@given(batches())
def test_records_survive_columns(batch: Batch) -> None:
    """Records made of columns make the same columns again, and the other way round."""
    records = to_records(batch.columns)
    again = from_records(records)
    for before, after in zip(batch.columns, again, strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(to_records(again), records)


def test_columns_agree_with_the_specification(rng: np.random.Generator) -> None:
    """Every field of a record is where the specification reads it; so is what is signed."""
    records = random_records(rng, 5)
    columns = from_records(records)
    messages = signed_messages(columns, DOMAIN)
    for row, record in enumerate(records):
        transaction = oracle.decode_transaction(record.tobytes())
        arrays: tuple[Any, ...] = columns
        for column, array in zip(COLUMN_TABLE, arrays, strict=True):
            value = array[row].tobytes() if array.ndim == 2 else int(array[row])
            assert getattr(transaction, column.name) == value, column.name
        assert messages[row].tobytes() == oracle.signed_message(transaction, DOMAIN)


def test_column_table_agrees_with_the_specification() -> None:
    """Names, order and widths are those of the specification's table."""
    assert tuple((c.name, c.width) for c in COLUMN_TABLE) == oracle.PAYLOAD_COLUMNS


@pytest.mark.parametrize("offset", [o for start, end in RESERVED for o in range(start, end)])
def test_reserved_bytes_are_refused(rng: np.random.Generator, offset: int) -> None:
    """A reserved byte that is not zero is refused, and the error names row and byte."""
    records = random_records(rng, 4)
    records[2:, offset] = 7
    with pytest.raises(RecordError, match=f"record 2, byte {offset}") as caught:
        from_records(records)
    assert caught.value.code == "record.reserved"


def test_other_shapes_are_refused() -> None:
    """Only rows of 192 bytes are records."""
    with pytest.raises(RecordError) as caught:
        from_records(np.zeros((3, 191), np.uint8))
    assert caught.value.code == "record.shape"


def test_columns_are_read_only_copies(rng: np.random.Generator) -> None:
    """Nothing that makes columns hands out an array that can be written or that aliases records."""
    records = random_records(rng, 1)
    columns = from_records(records)
    kept = to_records(columns)
    records[:] = 0
    np.testing.assert_array_equal(to_records(columns), kept)
    for made in (columns, empty(), take(columns, np.array([0])), concatenate([columns, columns])):
        for array in made:
            assert not array.flags.writeable
            assert array.flags.c_contiguous
            assert array.flags.aligned


@given(batches(), batches())
def test_take_undoes_concatenate(first: Batch, second: Batch) -> None:
    """Taking the positions of one part out of a concatenation gives that part."""
    both = concatenate([first.columns, second.columns])
    start, total = count_of(first.columns), count_of(both)
    np.testing.assert_array_equal(
        to_records(take(both, np.arange(start, total))), to_records(second.columns)
    )
    order = np.arange(total)[::-1]
    np.testing.assert_array_equal(to_records(take(both, order)), to_records(both)[order])


def test_empty_batches() -> None:
    """No transactions are a batch like any other."""
    assert count_of(empty()) == 0
    assert count_of(concatenate([])) == 0
    assert to_records(empty()).shape == (0, 192)
    assert signed_messages(empty(), DOMAIN).shape == (0, 160)
