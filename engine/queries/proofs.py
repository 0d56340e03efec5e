"""Proofs that a reader can check against a header alone. Spec: spec/proofs.md.

An account's proof is made on the writer's thread, since the state may have to move to the block
that is asked for. A transaction's proof is made from stored bytes, on the asking thread.
"""

from typing import Any

import numpy as np

from engine import constants
from engine.codec import PayloadLimits, decode_payload
from engine.columns import take, to_records
from engine.constants import derive_key
from engine.executor import Executor
from engine.receipts import ABSENT
from engine.types import At
from kernels.backend import Backend
from kernels.layout import NO_SLOT, U8
from kernels.merkle import depth_of


def account_proof(executor: Executor, key: bytes, at: At) -> tuple[bytes, dict[str, Any]] | None:
    """Return a block's hash and the proof, without its header, of an account at that block.

    None if there is no such account. For the writer's thread: it leaves the state at the block.
    """
    chain = executor.chain
    names = {"finalized": chain.finalized.block_hash, "safe": executor.safe, "head": executor.head}
    name = names[at]
    executor.ensure(name)
    chain.switch(name)
    accounts = chain.state.accounts
    slot = int(accounts.lookup(np.frombuffer(key, np.uint8).reshape(1, -1))[0])
    if slot == NO_SLOT:
        return None
    leaf, path = accounts.proof(slot)
    return name, {
        "kind": "account",
        "slot": str(slot),
        "account_count": str(chain.state.count),
        "supply": str(chain.state.supply),
        "leaf": leaf.hex(),
        "path": [item.hex() for item in path],
    }


def transaction_proof(
    backend: Backend,
    header: bytes,
    payload: bytes | memoryview,
    statuses: U8,
    position: int,
    limits: PayloadLimits,
) -> dict[str, Any]:
    """Return the proof that a transaction stands in a block, and of what it came to.

    limits: the chain's; the payload is one that was executed.
    """
    batch = decode_payload(payload, limits)
    columns, offsets = batch.columns, batch.lane_offsets
    hashes = backend.hash_transactions(columns)
    receipts = backend.hash_receipts(
        hashes, statuses, columns.kind, columns.fee, constants.RECEIPT_LEAF_KEY
    )
    record = to_records(take(columns, np.array([position])))
    return {
        "kind": "transaction",
        "header": header.hex(),
        "record": record.tobytes().hex(),
        "position": position,
        "lane_count": len(offsets) - 1,
        "lanes_hash": derive_key(constants.LANES_CONTEXT, offsets.tobytes()).hex(),
        "path": _path(backend, hashes, position, constants.TRANSACTION_NODE_KEY),
        "status": int(statuses[position]),
        "receipt_path": _path(backend, receipts, position, constants.RECEIPT_NODE_KEY),
    }


def _path(backend: Backend, leaves: U8, position: int, node_key: bytes) -> list[str]:
    """Return the siblings from a leaf of (n, 32) up: each is the root of a part of the list."""
    path, absent = [], [ABSENT]
    for level in range(depth_of(len(leaves))):
        start = ((position >> level) ^ 1) << level
        part = leaves[start : start + (1 << level)]
        if len(part):
            root = backend.list_root(np.ascontiguousarray(part), node_key, ABSENT)
            for missing in range(depth_of(len(part)), level):
                root = constants.keyed(node_key, root + absent[missing])
        else:
            root = absent[level]
        path.append(root.hex())
        absent.append(constants.keyed(node_key, absent[level] + absent[level]))
    return path
