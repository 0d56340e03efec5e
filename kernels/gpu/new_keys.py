"""Keys to which a block pays first: found once each, and ranked in the order of the payload.

Spec: spec/block.md#settlement. Read `settlement` for what creates their accounts.
"""

from typing import NamedTuple

import numpy as np

from kernels.gpu import settlement, table
from kernels.gpu.arrays import DeviceArray
from kernels.gpu.device import Arena, Device
from kernels.gpu.prefix import fill_u32, prefix_sums
from kernels.layout import KEY_WORDS

_FREE = np.uint32(0xFFFF_FFFF)


class Claimed(NamedTuple):
    """Rows that pay to keys without account; each key has claimed the least row that names it."""

    rows: DeviceArray
    """(m,) int32, ascending: places in the payload"""
    keys: DeviceArray
    """(m, 4) uint64"""
    claims: DeviceArray
    """uint32: at the place of each key its least row, of these m"""
    places: DeviceArray
    """(m,) uint32: where in `claims` the row's key stands"""
    flags: DeviceArray
    """(m,) uint32: 1 for the least row of each key"""
    ranks: DeviceArray
    """(m,) uint32: how many keys come before; of those with flag 1"""
    total: DeviceArray
    """(1,) uint32: how many keys there are"""


def claim_keys(
    device: Device,
    arena: Arena,
    flags: DeviceArray,
    recipients: DeviceArray,
    missing: int,
    secret: DeviceArray,
) -> Claimed:
    """Rank the distinct keys among the `missing` rows, at least one, that `flags` says.

    flags: (n,) uint32; recipients: (n, 4) uint64; secret: (8,) uint64. The arena's arrays under the
    names below are taken.
    """
    count, take, launch = len(flags), arena.take, device.launch
    positions, _ = prefix_sums(device, arena, "missing", flags, count)
    keys = take("new_keys", (missing, KEY_WORDS), np.uint64)
    rows = take("new_rows", missing, np.int32)
    launch(settlement.list_missing, count, flags, positions, recipients, rows, keys)
    claims = take("claims", 1 << (2 * missing).bit_length(), np.uint32)
    places = take("places", missing, np.uint32)
    firsts = take("firsts", missing, np.uint32)
    launch(fill_u32, len(claims), claims, _FREE)
    launch(table.claim_keys, missing, keys, secret, claims, places)
    launch(settlement.flag_first, missing, claims, places, firsts)
    ranks, total = prefix_sums(device, arena, "ranks", firsts, missing)
    return Claimed(rows, keys, claims, places, firsts, ranks, total)
