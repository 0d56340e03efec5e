"""Hashes of the blocks that are followed, until the store's index surely has them.

Between a block's execution and its entry into the index of final transactions nobody else can say
quickly in which block a transaction stands. The pool's keeper adds and removes as the head moves,
before anything becomes final; pool and queries ask. A block is put in order by the first question
after it came, not by the writer's thread; questions then search instead of reading all hashes.
"""

import threading
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from kernels.host_accounts import key_words
from kernels.layout import U8, U32, U64
from kernels.sorting import argsort

BLOCKS_MAX = 48
"""Blocks that are kept, the highest ones; more than the indexer lets wait."""
TRANSACTIONS_MAX = 2**21
"""The same in transactions, 44 bytes each; the newest block stays whatever its size."""


class Inclusion(NamedTuple):
    """Where a transaction stands."""

    block_hash: bytes
    height: int
    position: int


class _Block:
    """The hashes of one block."""

    __slots__ = ("_in_order", "height", "words")

    def __init__(self, height: int, words: U64) -> None:
        """Keep (n, 4) words."""
        self.height = height
        self.words = words
        self._in_order: tuple[U64, U32] | None = None

    def find(self, wanted: U64) -> int | None:
        """Return the position of a hash, four words."""
        if self._in_order is None:  # two threads may both do it, to the same end
            firsts = np.ascontiguousarray(self.words[:, 0])
            order = argsort(firsts)
            self._in_order = firsts[order], order
        firsts, positions = self._in_order
        place = int(np.searchsorted(firsts, wanted[0]))
        while place < len(firsts) and firsts[place] == wanted[0]:
            position = int(positions[place])
            if bool((self.words[position] == wanted).all()):
                return position
            place += 1
        return None


class RecentBlocks:
    """The newest followed blocks; any thread may ask."""

    def __init__(self) -> None:
        """Start empty."""
        self._blocks: OrderedDict[bytes, _Block] = OrderedDict()
        self._mutex = threading.Lock()

    def add(self, block_hash: bytes, height: int, hashes: U8) -> None:
        """Remember a block, above all others, with its (n, 32) transaction hashes."""
        with self._mutex:
            self._blocks[block_hash] = _Block(height, key_words(hashes))
            while len(self._blocks) > 1 and (
                len(self._blocks) > BLOCKS_MAX
                or sum(len(block.words) for block in self._blocks.values()) > TRANSACTIONS_MAX
            ):
                self._blocks.popitem(last=False)

    def remove(self, block_hash: bytes) -> None:
        """Forget a block that is followed no more."""
        with self._mutex:
            self._blocks.pop(block_hash, None)

    def heights(self) -> set[int]:
        """Return the heights whose transactions are known here."""
        with self._mutex:
            return {block.height for block in self._blocks.values()}

    def find(self, transaction_hash: bytes) -> Inclusion | None:
        """Return the block that has a transaction, or None."""
        wanted = np.frombuffer(transaction_hash, np.uint64)
        with self._mutex:
            blocks = list(self._blocks.items())
        for block_hash, block in reversed(blocks):
            position = block.find(wanted)
            if position is not None:
                return Inclusion(block_hash, block.height, position)
        return None
