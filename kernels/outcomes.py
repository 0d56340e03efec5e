"""A ring of what became of transactions, found by hash: the newest outcome of each of the last n.

Arrays: entries (2^k,) uint64, a table of `accounts` over kept (n, 4) uint64; statuses and reasons
(n,) uint8, status 0 where the place is empty; times_ms (n,) int64; secret (8,) uint64.
"""

from typing import Any

import numpy as np

from kernels import accounts
from kernels.accounts import lookup_scalar
from kernels.integers import leaf
from kernels.jit import njit
from kernels.layout import NO_SLOT
from kernels.pending import enter

_ABSENT = np.uint32(NO_SLOT)
_EMPTY = np.uint8(0)


@leaf
def forget(entries: Any, kept: Any, statuses: Any, secret: Any, place: Any) -> None:
    """Empty a place."""
    accounts.remove(entries, kept, secret, place)
    statuses[place] = _EMPTY


@njit
def put_outcomes(
    entries: Any, kept: Any, statuses: Any, reasons: Any, times_ms: Any, secret: Any,
    position: Any, hashes: Any, status: Any, new_reasons: Any, now_ms: Any,
) -> Any:  # fmt: skip
    """Write one status with a reason, (m,) uint8, for each of (m, 4) hashes; return the position.

    position: where the next outcome goes; what stands there is the oldest and is forgotten.
    """
    size = kept.shape[0]
    for i in range(hashes.shape[0]):
        older = lookup_scalar(entries, kept, secret, hashes, i)
        if older != _ABSENT:
            forget(entries, kept, statuses, secret, np.int64(older))
        if statuses[position] != _EMPTY:
            forget(entries, kept, statuses, secret, position)
        for word in range(4):
            kept[position, word] = hashes[i, word]
        statuses[position] = status
        reasons[position] = new_reasons[i]
        times_ms[position] = now_ms
        enter(entries, kept, secret, position)
        position += 1
        if position == size:
            position = 0
    return position
