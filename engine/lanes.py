"""Group transactions into lanes: one lane per sender, in order of first appearance.

Spec: spec/lanes.md. The order within a lane is the order of the batch. Lanes of a payload are
checked where they are executed (`kernels.transfer`): the slots found there make the check cheap.
"""

import numpy as np

from engine.columns import take
from kernels.layout import I32, Columns


def pack(columns: Columns) -> tuple[Columns, I32]:
    """Return the columns in lane order and the lane offsets, (lane_count + 1,) int32."""
    keys = np.ascontiguousarray(columns.sender).view(np.dtype((np.void, 32))).reshape(-1)
    _, first, lane = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    lane_of_row = rank[lane.reshape(-1)]
    order = np.argsort(lane_of_row, kind="stable")
    offsets = np.zeros(len(first) + 1, np.int32)
    np.cumsum(np.bincount(lane_of_row, minlength=len(first)), out=offsets[1:])
    return take(columns, order), offsets
