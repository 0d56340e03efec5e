"""Batches for the tests of the codec: random content in random lanes, drawn by Hypothesis."""

import hypothesis.strategies as st
import numpy as np

from engine.codec import Batch
from engine.columns import RESERVED, from_records
from engine.constants import TRANSACTION_BYTES
from kernels.layout import U8


def random_records(rng: np.random.Generator, count: int) -> U8:
    """Return (count, 192) records of random bytes, reserved ones zero."""
    records = rng.integers(0, 256, (count, TRANSACTION_BYTES), dtype=np.uint8)
    for start, end in RESERVED:
        records[:, start:end] = 0
    return records


def random_batch(rng: np.random.Generator, lane_count: int, count: int) -> Batch:
    """Return `count` random transactions, cut into lanes at random places."""
    cuts = rng.permutation(np.arange(1, count))[: max(lane_count - 1, 0)]
    ends = [count] if count else []
    offsets = np.array([0, *sorted(cuts.tolist()), *ends], np.int32)
    assert offsets.shape[0] == lane_count + 1
    return Batch(from_records(random_records(rng, count)), offsets)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Draw a batch of up to 40 transactions."""
    count = draw(st.integers(0, 40))
    lane_count = draw(st.integers(min(count, 1), count))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random_batch(rng, lane_count, count)
