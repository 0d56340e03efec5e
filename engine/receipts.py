"""Commitments to a batch: transactions_root and receipts_hash.

Spec: spec/payload.md#transactions-root, spec/receipts.md.
"""

from engine import constants
from engine.constants import derive_key
from kernels.backend import Backend
from kernels.layout import I32, U8, U64, Columns

ABSENT = bytes(32)
LOG_ROOT = bytes(32)
"""Room for events of programs."""


def transactions_root(backend: Backend, columns: Columns, lane_offsets: I32) -> tuple[U8, bytes]:
    """Return the (n, 32) transaction hashes and the commitment to them and to the lanes.

    lane_offsets: (lane_count + 1,) int32.
    """
    hashes, root = backend.transactions_root(columns, constants.TRANSACTION_NODE_KEY, ABSENT)
    lanes_hash = derive_key(constants.LANES_CONTEXT, lane_offsets.tobytes())
    counts = len(hashes).to_bytes(8, "little") + (len(lane_offsets) - 1).to_bytes(8, "little")
    return hashes, derive_key(constants.TRANSACTIONS_CONTEXT, counts + lanes_hash + root)


def receipts_hash(backend: Backend, hashes: U8, statuses: U8, kinds: U8, fees: U64) -> bytes:
    """Commit to what each transaction came to; all arrays have n rows."""
    keys = (constants.RECEIPT_LEAF_KEY, constants.RECEIPT_NODE_KEY)
    root = backend.receipts_root(hashes, statuses, kinds, fees, *keys, ABSENT)
    return derive_key(
        constants.RECEIPTS_CONTEXT, len(hashes).to_bytes(8, "little") + root + LOG_ROOT
    )
