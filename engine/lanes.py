"""Group transactions into lanes: one lane per sender, in order of first appearance.

Spec: spec/lanes.md. The order within a lane is the order of the batch. Lanes of a payload are
checked where they are executed (`kernels.transfer`): the slots found there make the check cheap.
A builder knows its senders by account slot and groups by `group`; `pack` groups by key.
"""

import numpy as np
from numpy.typing import NDArray

from engine.columns import take
from kernels.layout import I32, U8, U64, Columns
from kernels.sorting import sort

I64 = NDArray[np.int64]

_SHIFT = np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)
_SPREAD = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)


def group(labels: U64) -> tuple[I64, I32]:
    """Return rows in lane order, (n,) int64, and lane offsets, (lane_count + 1,) int32.

    labels: (n < 2^31,) uint64, below 2^32, equal for the rows of one lane. Sorting one array of
    64-bit integers is many times quicker than sorting keys, and no order of labels shows.
    """
    count = len(labels)
    rows: U64 = np.arange(count, dtype=np.uint64)
    by_label = sort((labels << _SHIFT) | rows)
    label, row = by_label >> _SHIFT, by_label & _LOW
    is_first = np.ones(count, np.bool_)
    np.not_equal(label[1:], label[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    sizes = np.diff(starts, append=count)
    # Rows ascend within a lane, so the first of each is its first appearance.
    by_row = sort((row[starts] << _SHIFT) | np.arange(len(starts), dtype=np.uint64))
    lanes = (by_row & _LOW).astype(np.int64)
    sizes = sizes[lanes]
    offsets = np.zeros(len(starts) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    shift = np.repeat(starts[lanes] - offsets[:-1], sizes)
    order = row[shift + np.arange(count)].astype(np.int64)
    return order, offsets


def key_labels(keys: U8) -> U64:
    """Return a label below 2^32 per row of (n, 32) keys, equal exactly where the keys are."""
    words = np.ascontiguousarray(keys).view(np.uint64)
    mixed = (words * _SPREAD).sum(axis=1, dtype=np.uint64)
    _, first, labels = np.unique(mixed, return_index=True, return_inverse=True)
    labels = labels.reshape(-1)
    if not (words == words[first[labels]]).all():
        # Keys were chosen so that their sums meet: compare all of their bytes instead.
        whole = np.ascontiguousarray(keys).view(np.dtype((np.void, 32))).reshape(-1)
        labels = np.unique(whole, return_inverse=True)[1].reshape(-1)
    return labels.astype(np.uint64)


def pack(columns: Columns) -> tuple[Columns, I32]:
    """Return the columns in lane order and the lane offsets, (lane_count + 1,) int32."""
    order, offsets = group(key_labels(columns.sender))
    return take(columns, order), offsets
