"""What a store has of the chain, for those who read: headers, payloads, histories, transactions.

Reads come from any thread, also while one writes, which `Store` adds. Each takes one look at the
rows: it knows whether a block is stored and where, and the file may be gone when it is opened, by
pruning. That is no damage, and is answered like a block that is unknown. Spec: spec/storage.md.
"""

from functools import partial

from engine.store.blocks import PAYLOAD_START, read_transaction
from engine.store.errors import StoreDamaged
from engine.store.history import History
from engine.store.indexes import HistoryPage, Indexes, Place
from engine.store.rows import BlockRow, Pointer, Rows
from engine.store.segment import SegmentLog
from engine.store.snapshots import read_history
from engine.store.values import StoredBlock


class StoredChain:
    """The blocks of a home: the rows that know of them, the logs that have them, the indexes."""

    _finalized: Pointer
    _head: Pointer

    def __init__(
        self, rows: Rows, blocks: SegmentLog, history: SegmentLog, indexes: Indexes
    ) -> None:
        """Keep the parts; whoever writes sets the two pointers before anybody reads."""
        self._rows = rows
        self._blocks = blocks
        self._history = history
        self._indexes = indexes

    @property
    def finalized(self) -> Pointer:
        """The finalized block; genesis at first."""
        return self._finalized

    @property
    def head(self) -> Pointer:
        """The block that was followed last and is still stored, at least the finalized one."""
        return self._head

    def unfinalized(self) -> list[StoredBlock]:
        """Return the stored blocks above the finalized one, parents first: to execute again."""
        with self._rows.read() as reader:
            found = [(item, reader.block(item.block_hash)) for item in reader.unfinalized()]
        return [StoredBlock.of(item.block_hash, row) for item, row in found if row is not None]

    def block(self, block_hash: bytes) -> StoredBlock | None:
        """Return a stored block, finalized or not; None if it is unknown or pruned."""
        with self._rows.read() as reader:
            row = reader.block(block_hash)
        return None if row is None else StoredBlock.of(block_hash, row)

    def block_at(self, height: int) -> StoredBlock | None:
        """Return the finalized block at a height, None at 0 and where it is pruned."""
        with self._rows.read() as reader:
            block_hash = reader.finalized_hash(height)
            row = None if block_hash is None else reader.block(block_hash)
        return None if row is None or block_hash is None else StoredBlock.of(block_hash, row)

    def blocks_at(self, first: int, count: int) -> list[StoredBlock]:
        """Return the finalized blocks at [first, first + count), up to the first missing one."""
        found: list[StoredBlock] = []
        while len(found) < count and (block := self.block_at(first + len(found))) is not None:
            found.append(block)
        return found

    def payload(self, block_hash: bytes) -> memoryview | None:
        """Return a stored payload, every byte compared; None if it is unknown or pruned.

        Raises StoreDamaged.
        """
        with self._rows.read() as reader:
            row = reader.block(block_hash)
        if row is None:
            return None
        try:
            body = self._blocks.held(
                row.payload, partial(self._blocks.read, row.payload, block_hash)
            )
            return None if body is None else body[PAYLOAD_START:]
        except StoreDamaged:
            # The block may have been taken back or abandoned since its row was read.
            if self.block(block_hash) is None:
                return None
            raise

    def history(self, block_hash: bytes) -> History | None:
        """Return a finalized block's delta and receipts; None if unknown, unfinalized or pruned.

        Raises StoreDamaged.
        """
        with self._rows.read() as reader:
            row = reader.block(block_hash)
        return None if row is None else read_history(self._history, block_hash, row)

    def find_transaction(self, transaction_hash: bytes) -> Place | None:
        """Return where a finalized, indexed transaction stands; raises StoreDamaged."""
        return self._indexes.find(transaction_hash, self.transaction_at)

    def compared_at(self, place: Place) -> bytes | None:
        """Return what `transaction_at` does; raises StoreDamaged if the index has another hash."""
        return self._indexes.compared(place, self.transaction_at)

    def transaction_at(self, place: Place) -> bytes | None:
        """Return the 192-byte record at a place of a finalized block, None if it is not held."""
        with self._rows.read() as reader:
            block_hash = reader.finalized_hash(place.height)
            row = None if block_hash is None else reader.block(block_hash)
        return None if row is None else self._record(row, place.position)

    def record(self, block_hash: bytes, position: int) -> bytes | None:
        """Return one 192-byte record of any stored block, None if it is not held.

        Its bytes are not compared, and those of an abandoned block are given back: what was read is
        a record only if the block is still there behind it. Raises StoreDamaged.
        """
        with self._rows.read() as reader:
            row = reader.block(block_hash)
        if row is None:
            return None
        try:
            found = self._record(row, position)
        except StoreDamaged:
            if self.block(block_hash) is None:
                return None
            raise
        return None if self.block(block_hash) is None else found

    def _record(self, row: BlockRow, position: int) -> bytes | None:
        read = partial(read_transaction, self._blocks, row.payload, position)
        return self._blocks.held(row.payload, read)

    def account_history(
        self, slot: int, before: int | None = None, limit: int = 100
    ) -> HistoryPage:
        """Return finalized, indexed transactions of an account slot, newest first."""
        return self._indexes.account_page(slot, before, limit)
