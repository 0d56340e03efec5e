"""Hashes of the blocks that are followed, until the store's index surely has them.

Between a block's execution and its entry into the index of final transactions nobody else can say
quickly in which block a transaction stands. The pool's keeper adds and removes as the head moves,
before anything becomes final; pool and queries ask.
"""

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from kernels.host_accounts import key_words
from kernels.layout import U8, U64

BLOCKS_MAX = 48
"""Blocks that are kept, the highest ones; more than the indexer lets wait."""
TRANSACTIONS_MAX = 2**21
"""The same in transactions, 40 bytes each; the newest block stays whatever its size."""


class Inclusion(NamedTuple):
    """Where a transaction stands."""

    block_hash: bytes
    height: int
    position: int


class RecentBlocks:
    """The newest followed blocks; any thread may ask."""

    def __init__(self) -> None:
        """Start empty."""
        self._blocks: OrderedDict[bytes, tuple[int, U64]] = OrderedDict()
        self._mutex = threading.Lock()

    def add(self, block_hash: bytes, height: int, hashes: U8) -> None:
        """Remember a block, above all others, with its (n, 32) transaction hashes."""
        with self._mutex:
            self._blocks[block_hash] = (height, key_words(hashes))
            while len(self._blocks) > 1 and (
                len(self._blocks) > BLOCKS_MAX
                or sum(len(words) for _, words in self._blocks.values()) > TRANSACTIONS_MAX
            ):
                self._blocks.popitem(last=False)

    def remove(self, block_hash: bytes) -> None:
        """Forget a block that is followed no more."""
        with self._mutex:
            self._blocks.pop(block_hash, None)

    def heights(self) -> set[int]:
        """Return the heights whose transactions are known here."""
        with self._mutex:
            return {height for height, _ in self._blocks.values()}

    def find(self, transaction_hash: bytes) -> Inclusion | None:
        """Return the block that has a transaction, or None."""
        wanted = np.frombuffer(transaction_hash, np.uint64)
        with self._mutex:
            blocks = list(self._blocks.items())
        for block_hash, (height, words) in reversed(blocks):
            for row in np.flatnonzero(words[:, 0] == wanted[0]):
                if bool((words[row] == wanted).all()):
                    return Inclusion(block_hash, height, int(row))
        return None
