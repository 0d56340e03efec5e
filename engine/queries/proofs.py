"""Proofs that a reader can check against a header alone. Spec: spec/proofs.md.

An account's proof is made on the writer's thread, since the state may have to move to the block
that is asked for, and back for the next block: whoever asks for two blocks in turn could take most
of the writer's time. So only a few proofs in a second may move it. A transaction's proof is cut out
of its block's trees, on the asking thread; `proof_trees.py` has them.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.executor import Executor
from engine.queries.proof_trees import ProofTrees, TooSoon
from engine.types import At
from kernels.layout import NO_SLOT

MOVE_PAUSE_MS = 250
"""From one move of the state for a proof to the next one; a move over full blocks takes 50 ms."""


Found = tuple[bytes, dict[str, Any]]
"""The hash of a block, and a proof without its header."""


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
    header: bytes, record: bytes, status: int, position: int, trees: ProofTrees
) -> dict[str, Any]:
    """Return the proof that a transaction stands in a block, and of what it came to.

    record: the 192 bytes at `position`; trees: of the block with that header.
    """
    path, receipt_path = trees.paths(position)
    return {
        "kind": "transaction",
        "header": header.hex(),
        "record": record.hex(),
        "position": position,
        "lane_count": trees.lane_count,
        "lanes_hash": trees.lanes_hash.hex(),
        "path": [item.hex() for item in path],
        "status": status,
        "receipt_path": [item.hex() for item in receipt_path],
    }
