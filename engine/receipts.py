"""Commitments to a batch: transactions_root and receipts_hash.

Spec: spec/payload.md#transactions-root, spec/receipts.md.
"""

from engine import constants
from engine.constants import derive_key
from kernels.backend import Backend
from kernels.layout import I32, U8, U64

ABSENT = bytes(32)
LOG_ROOT = bytes(32)
"""Room for events of programs."""


def transactions_root(backend: Backend, hashes: U8, lane_offsets: I32) -> bytes:
    """Commit to (n, 32) transaction hashes and (lane_count + 1,) lane offsets."""
    root = backend.list_root(hashes, constants.TRANSACTION_NODE_KEY, ABSENT)
    lanes_hash = derive_key(constants.LANES_CONTEXT, lane_offsets.tobytes())
    counts = len(hashes).to_bytes(8, "little") + (len(lane_offsets) - 1).to_bytes(8, "little")
    return derive_key(constants.TRANSACTIONS_CONTEXT, counts + lanes_hash + root)


def receipts_hash(backend: Backend, hashes: U8, statuses: U8, kinds: U8, fees: U64) -> bytes:
    """Commit to what each transaction came to; all arrays have n rows."""
    leaves = backend.hash_receipts(hashes, statuses, kinds, fees, constants.RECEIPT_LEAF_KEY)
    root = backend.list_root(leaves, constants.RECEIPT_NODE_KEY, ABSENT)
    return derive_key(
        constants.RECEIPTS_CONTEXT, len(hashes).to_bytes(8, "little") + root + LOG_ROOT
    )
