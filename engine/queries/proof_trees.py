"""The trees over a block's transactions and receipts, out of which proofs are cut.

To make them a whole block is read and hashed; a proof is then two paths. So those of the blocks
that were asked for last are kept. A block that is not among them is made by one thread while others
that ask for it wait, and only a small part of the time is spent on making any: whoever asks for a
transaction of every block there is does not take the processor from the blocks that come.

A block is named by its hash, and the same hash always has the same trees: nothing here becomes
wrong when the head moves or a payload is pruned. Spec: spec/proofs.md.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

from engine import constants
from engine.codec import PayloadLimits, decode_payload
from engine.constants import derive_key
from engine.receipts import ABSENT
from engine_api.protocol import NS_PER_MS
from kernels.backend import Backend
from kernels.layout import U8
from kernels.merkle import list_levels, list_path

TREES_BYTES_MAX = 64 * 2**20
"""Memory of all trees that are kept: 128 bytes per transaction."""
REST_SHARE = 4
"""Trees of another block are made again after so many times what the last ones took."""
REST_MIN_MS = 10
REST_MAX_MS = 250
"""Bounds of that time; trees of 20,000 transactions take about 10 ms, their rest about 40."""


class TooSoon(Exception):
    """What a proof needs is dear, and was done for another proof just now: ask again later."""

    def __init__(self, after_ms: int) -> None:
        """Keep in how many milliseconds."""
        super().__init__(f"ask again in {after_ms} ms")
        self.after_ms = after_ms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProofTrees:
    """What all transaction proofs of a block share."""

    lane_count: int
    lanes_hash: bytes
    transactions: list[U8]
    """levels of (n, 32) uint8, leaves first"""
    receipts: list[U8]

    @property
    def resident_bytes(self) -> int:
        """Memory of both trees."""
        return sum(level.nbytes for level in (*self.transactions, *self.receipts))

    def paths(self, position: int) -> tuple[list[bytes], list[bytes]]:
        """Return the siblings of a transaction and of its receipt, up to both roots."""
        return (
            list_path(self.transactions, position, constants.TRANSACTION_NODE_KEY, ABSENT),
            list_path(self.receipts, position, constants.RECEIPT_NODE_KEY, ABSENT),
        )


def make_trees(
    backend: Backend, payload: bytes | memoryview, statuses: U8, limits: PayloadLimits
) -> ProofTrees:
    """Hash a block that has a transaction.

    statuses: (n,) uint8; limits: the chain's; the payload is one that was executed.
    """
    batch = decode_payload(payload, limits)
    columns, offsets = batch.columns, batch.lane_offsets
    hashes = backend.hash_transactions(columns)
    receipts = backend.hash_receipts(
        hashes, statuses, columns.kind, columns.fee, constants.RECEIPT_LEAF_KEY
    )
    is_wide = backend.name != "serial"
    return ProofTrees(
        lane_count=len(offsets) - 1,
        lanes_hash=derive_key(constants.LANES_CONTEXT, offsets.tobytes()),
        transactions=list_levels(hashes, constants.TRANSACTION_NODE_KEY, ABSENT, is_wide),
        receipts=list_levels(receipts, constants.RECEIPT_NODE_KEY, ABSENT, is_wide),
    )


class TreeKeeper:
    """Owns the trees of the blocks that were asked for last; any thread may ask."""

    def __init__(
        self,
        bytes_max: int = TREES_BYTES_MAX,
        clock_ms: Callable[[], int] = lambda: time.monotonic_ns() // NS_PER_MS,
    ) -> None:
        """Keep nothing, and let the first block be made at once."""
        self._bytes_max = bytes_max
        self._clock_ms = clock_ms
        self._lock = Lock()
        self._kept: OrderedDict[bytes, ProofTrees] = OrderedDict()
        self._kept_bytes = 0
        self._making: tuple[bytes, Future[ProofTrees]] | None = None
        self._free_at_ms = clock_ms()

    @property
    def resident_bytes(self) -> int:
        """Memory of all trees that are kept."""
        return self._kept_bytes

    def trees_of(self, block_hash: bytes, make: Callable[[], ProofTrees]) -> ProofTrees:
        """Return a block's trees, made by `make` if nobody has them.

        Raises TooSoon, and what `make` raises.
        """
        with self._lock:
            known = self._kept.get(block_hash)
            if known is not None:
                self._kept.move_to_end(block_hash)
                return known
            making = self._making
            if making is None:
                now_ms = self._clock_ms()
                if now_ms < self._free_at_ms:
                    raise TooSoon(self._free_at_ms - now_ms)
                made: Future[ProofTrees] = Future()
                self._making = (block_hash, made)
            elif making[0] != block_hash:
                raise TooSoon(REST_MAX_MS)
        if making is not None:
            return making[1].result()
        try:
            trees = make()
        except BaseException as error:
            self._end(block_hash, None, now_ms)
            made.set_exception(error)
            raise
        self._end(block_hash, trees, now_ms)
        made.set_result(trees)
        return trees

    def _end(self, block_hash: bytes, trees: ProofTrees | None, begin_ms: int) -> None:
        """Keep what was made, drop what was asked for longest ago, and let the next one begin."""
        with self._lock:
            if trees is not None and trees.resident_bytes <= self._bytes_max:
                self._kept[block_hash] = trees
                self._kept_bytes += trees.resident_bytes
                while self._kept_bytes > self._bytes_max:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].resident_bytes
            end_ms = self._clock_ms()
            rest_ms = min(max(REST_SHARE * (end_ms - begin_ms), REST_MIN_MS), REST_MAX_MS)
            self._free_at_ms = end_ms + rest_ms
            self._making = None
