"""Proofs that a reader can check against a header alone. Spec: spec/proofs.md.

An account's proof is made on the writer's thread, since the state may have to move to the block
that is asked for, and back for the next block: whoever asks for two blocks in turn could take most
of the writer's time. So only a few proofs in a second may move it. A transaction's proof is made
from stored bytes, on the asking thread.
"""

import time
from collections.abc import Callable
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

MOVE_PAUSE_MS = 250
"""From one move of the state for a proof to the next one; a move over full blocks takes 50 ms."""


Found = tuple[bytes, dict[str, Any]]
"""The hash of a block, and a proof without its header."""


class TooSoon(Exception):
    """The state would have to move, and did so for another proof just now: ask again later."""

    def __init__(self, after_ms: int) -> None:
        """Keep in how many milliseconds."""
        super().__init__(f"ask again in {after_ms} ms")
        self.after_ms = after_ms


class AccountProver:
    """Makes proofs of accounts, on the writer's thread alone."""

    def __init__(
        self, clock_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000
    ) -> None:
        """Let the first proof move the state at once."""
        self._clock_ms = clock_ms
        self._free_at_ms = clock_ms()

    def prove(self, executor: Executor, key: bytes, at: At) -> Found | TooSoon | None:
        """Return what `account_proof` does, or TooSoon where the state may not move yet."""
        if executor.chain.position.block_hash == block_named(executor, at):
            return account_proof(executor, key, at)
        left_ms = self._free_at_ms - self._clock_ms()
        if left_ms > 0:
            return TooSoon(left_ms)  # an error on the writer's thread would stop the service
        try:
            return account_proof(executor, key, at)
        finally:
            self._free_at_ms = self._clock_ms() + MOVE_PAUSE_MS


def block_named(executor: Executor, at: At) -> bytes:
    """Return the hash of a followed block."""
    finalized = executor.chain.finalized.block_hash
    return {"finalized": finalized, "safe": executor.safe, "head": executor.head}[at]


def account_proof(executor: Executor, key: bytes, at: At) -> Found | None:
    """Return a block's hash and the proof, without its header, of an account at that block.

    None if there is no such account. For the writer's thread: it leaves the state at the block.
    """
    chain = executor.chain
    name = block_named(executor, at)
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
