"""Deltas and receipts as bytes: exact inverses for every width, and applied they give the state."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.store.history import Delta, HistoryError, decode_history, encode_history
from engine.store.snapshot import AccountColumns


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    """Draw a delta whose columns have any of the widths."""
    greatest = st.sampled_from([1, 2**8 - 1, 2**8, 2**16, 2**32 - 1, 2**32, 2**64 - 1])
    slots = sorted(draw(st.sets(st.integers(0, 2**32 - 3), max_size=20)))
    values = st.integers(0, draw(greatest))
    columns = [draw(st.lists(values, min_size=len(slots), max_size=len(slots))) for _ in range(2)]
    count_after = draw(st.integers((slots[-1] + 1) if slots else 0, 2**32 - 2))
    created = draw(st.integers(0, min(count_after, 5)))
    return Delta(
        slots=np.array(slots, np.uint32),
        balances=np.array(columns[0], np.uint64),
        nonces=np.array(columns[1], np.uint64),
        created_keys=np.arange(32 * created, dtype=np.uint8).reshape(created, 32),
        count_before=count_after - created,
        count_after=count_after,
    )


@given(deltas(), st.lists(st.integers(0, 2), max_size=40))
def test_inverse(delta: Delta, statuses: list[int]) -> None:
    """Decoding gives back what was encoded; with a byte less or more it is refused."""
    column = np.array(statuses, np.uint8)
    body = b"".join(encode_history(delta, column))
    decoded = decode_history(body)
    assert decoded.statuses.tolist() == statuses
    for name in Delta.__slots__:
        ours, theirs = getattr(delta, name), getattr(decoded.delta, name)
        assert np.array_equal(ours, theirs), name
    for wrong in (body[:-8], body + bytes(8), body[:40], b""):
        with pytest.raises(HistoryError):
            decode_history(wrong)


def test_applied_in_order(rng: np.random.Generator) -> None:
    """Deltas that create and change accounts give the last values; others are refused."""
    columns = AccountColumns(1)
    count = 0
    last: dict[int, int] = {}
    steps = []
    for _ in range(30):
        created = int(rng.integers(0, 20))
        drawn = rng.integers(0, count + created, 15 if count + created else 0)
        slots = np.unique(drawn).astype(np.uint32)
        balances = rng.integers(0, 2**63, len(slots)).astype(np.uint64)
        keys = rng.integers(0, 256, (created, 32), dtype=np.uint8)
        steps.append(
            Delta(
                slots=slots,
                balances=balances,
                nonces=balances,
                created_keys=keys,
                count_before=count,
                count_after=count + created,
            )
        )
        count += created
        last.update(zip(slots.tolist(), balances.tolist(), strict=True))
    for step in steps:
        columns.apply(step)
    assert columns.count == count
    assert columns.keys.tolist() == [key for step in steps for key in step.created_keys.tolist()]
    assert {i: int(v) for i, v in enumerate(columns.balances) if i in last} == last
    assert columns.nonces.tolist() == columns.balances.tolist()
    with pytest.raises(HistoryError):
        columns.apply(next(step for step in steps if step.count_before != count))
