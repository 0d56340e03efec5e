"""The executor's store: one home on disk, opened by one process.

Three writes matter. `begin_append` makes a block durable beside its execution, in one background
thread, and its ticket ends when a power cut can no longer take it: only then may a block be called
VALID. `finalize` commits deltas, receipts and pointers in one durable step and never writes a
payload again. `index` enters a finalized block into what is derived. Everything else reads, or
keeps house (`maintain`). Calls that write come from one thread; reads come from any.

What is read of the chain is in `StoredChain`. The store does not log: what a person should know
collects in `take_notices`.
Spec: spec/storage.md. Read `recovery.py` for what happens after a crash.
"""

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from engine.genesis import Genesis
from engine.header import Header
from engine.store import chain_rows
from engine.store.blocks import PAYLOAD_START, body_parts
from engine.store.config import StoreConfig
from engine.store.disk import DiskUse, check_room, folder_bytes, free_bytes
from engine.store.errors import StoreFull, full, parent_unknown, store_failed, unwritable
from engine.store.genesis_copy import read_genesis
from engine.store.history import delta_of, encode_history
from engine.store.home import check_chain, create_home, lock_home, read_format
from engine.store.indexes import Indexes
from engine.store.recovery import open_rows, recover
from engine.store.rows import BlockRow, Pointer
from engine.store.segment import LogKind, Position, SegmentLog, record_bytes
from engine.store.snapshots import LoadedState, Snapshots
from engine.store.stored_chain import StoredChain
from engine.store.upkeep import Upkeep
from engine.store.values import AppendTicket, FinalBlock, durable_ticket
from kernels.backend import Backend
from kernels.layout import U8, U32
from runtime.lock import FolderLock

ROWS_SPARE_BYTES = 2**17
"""What one commit of rows may add to their file, about."""
APPENDS_MAX = 16
"""Blocks that may wait to be written; more are refused as StoreFull."""


class Store(StoredChain):
    """A home that this process has open."""

    def __init__(
        self, home: Path, config: StoreConfig, lock: FolderLock, genesis_hash: bytes
    ) -> None:
        """Open what stands in a home that is locked; `Store.open` is the way in."""
        self.home = home
        self.config = config
        self.genesis_hash = genesis_hash
        self._lock_file = lock
        self.genesis: Genesis = read_genesis(home / "genesis", genesis_hash)
        rows, defect = open_rows(home / "rows")
        self._notices: list[str] = []
        if defect is not None:
            self._notices.append(f"the rows were removed: {defect}")
        size = config.segment_bytes
        try:
            super().__init__(
                rows,
                SegmentLog(home / "blocks", LogKind.BLOCKS, genesis_hash, size),
                SegmentLog(home / "history", LogKind.HISTORY, genesis_hash, size),
                Indexes(home, genesis_hash, is_kept=config.is_indexed),
            )
            self._open_parts()
        except BaseException:
            rows.close()
            raise
        self._mutex = threading.Lock()
        self._pending: dict[bytes, AppendTicket] = {}
        self._appender = ThreadPoolExecutor(1, thread_name_prefix="append")
        self._failed: BaseException | None = None

    def _open_parts(self) -> None:
        """Make rows and logs agree, then open what rests on both."""
        home, chain = self.home, self.genesis_hash
        self._notices += recover(self._rows, self._blocks, self._history, chain)
        with self._rows.read() as reader:
            self._known = {item.block_hash: item.height for item in reader.unfinalized()}
            self._finalized, self._head = chain_rows.pointers(reader)
        self._snapshots = Snapshots(home, chain, self._rows, self._history)
        self._upkeep = Upkeep(
            self.config, self._rows, (self._blocks, self._history), self._snapshots,
            self._indexes.runs, self.disk_use,
        )  # fmt: skip

    @staticmethod
    def create(home: Path, genesis: Genesis) -> None:
        """Make a home for a chain. Raises StoreError."""
        create_home(home, genesis)

    @classmethod
    def open(
        cls, home: Path, config: StoreConfig | None = None, genesis_hash: bytes | None = None
    ) -> "Store":
        """Open a home, repairing what a crash left; genesis_hash: of the only chain that is meant.

        Raises StoreError: no home, another chain's, a newer version's, locked, not writable, full,
        or damaged beyond what is redundant.
        """
        found = read_format(home)
        if genesis_hash is not None:
            check_chain(home, found, genesis_hash)
        lock = lock_home(home)
        try:
            return cls(home, config or StoreConfig(), lock, found)
        except BaseException as error:
            lock.release()
            if isinstance(error, PermissionError):
                raise unwritable(home, error) from error
            raise

    def take_notices(self) -> list[str]:
        """Return what a person should know since the last call: repairs, cuts, fall-backs."""
        removed = [runs.removed for runs in self._indexes.runs]
        sources = (self._notices, self._snapshots.notices, self._upkeep.notices, *removed)
        taken = [text for source in sources for text in source]
        for source in sources:
            source.clear()
        return taken

    def begin_append(
        self, block_hash: bytes, header: bytes, payload: bytes | memoryview
    ) -> AppendTicket:
        """Start making a block durable and return at once; the payload must not change meanwhile.

        Its parent must be stored or finalized. A block that is stored already, or on its way, is
        not written twice. Raises StoreFull before anything is written, StoreError.
        """
        self._check_writable()
        decoded = Header.decode(header)
        assert decoded.block_hash() == block_hash, "a block is stored under its header's hash"
        with self._mutex:
            if block_hash in self._known:
                return durable_ticket()
            if block_hash in self._pending:
                return self._pending[block_hash]
            parents = (self.finalized.block_hash, *self._known, *self._pending)
            if decoded.parent_hash not in parents or decoded.height <= self.finalized.height:
                raise parent_unknown(self.home, block_hash)
            if len(self._pending) >= APPENDS_MAX:
                raise full(self.home, f"{APPENDS_MAX} blocks are on their way: wait for one")
            needed = record_bytes(PAYLOAD_START + len(payload))
            self._check_room(needed, self.config.finalize_spare_bytes)
            future = self._appender.submit(
                self._append, block_hash, decoded.height, header, payload
            )
            ticket = self._pending[block_hash] = AppendTicket(future, is_new=True)
        return ticket

    def take_back(self, block_hash: bytes) -> bool:
        """Forget the block that was appended last, since nobody was told that it is kept.

        So refused blocks take no room. False, and it stays until the next finalization, where
        another one stands behind it. Raises StoreFull, StoreError.
        """
        self._check_writable()
        with self._mutex:
            assert not self._pending, "wait for the tickets first"
            try:
                with self._rows.write() as writer:
                    end = chain_rows.forget_last(writer, self._blocks.end, block_hash)
            except StoreFull:
                raise
            except BaseException as error:
                self._fail(error)
                raise
            if end is None:
                return False
            self._cut(self._blocks, end)
            del self._known[block_hash]
        return True

    def finalize(self, blocks: Sequence[FinalBlock], head: bytes | None = None) -> list[bytes]:
        """Make blocks irreversible in one durable step; returns the hashes that are abandoned.

        blocks: the descendants of the finalized block in order of height, all of them stored; they
        may be none. head: the block that is followed now, one of them or a descendant of the last.
        Raises StoreFull, and nothing has changed; StoreError.
        """
        self._check_writable()
        for ticket in list(self._pending.values()):
            # A block for which there was no room is told to whoever holds its ticket.
            with contextlib.suppress(StoreFull):
                ticket.wait()
        with self._rows.read() as reader:
            rows = chain_rows.rows_of(reader, self.home, self.finalized, blocks)
        finalized = self.finalized
        if blocks:
            finalized = Pointer(height=rows[-1].height, block_hash=blocks[-1].block_hash)
        followed = chain_rows.head_after(self.home, finalized, self.head, head, self._known)
        bodies = [
            body_parts(row.header, encode_history(delta_of(block.changes), block.statuses))
            for block, row in zip(blocks, rows, strict=True)
        ]
        self._check_room(sum(record_bytes(sum(map(len, parts))) for parts in bodies), 0)
        with self._mutex:
            begin = self._history.end
            try:
                locations = [
                    self._history.append(row.height, block.block_hash, parts)
                    for block, row, parts in zip(blocks, rows, bodies, strict=True)
                ]
                if blocks:
                    self._sync(self._history)
                with self._rows.write() as writer:
                    for block, row, place in zip(blocks, rows, locations, strict=True):
                        writer.put_block(block.block_hash, replace(row, history=place))
                    writer.set_pointer(chain_rows.FINALIZED, finalized)
                    writer.set_pointer(chain_rows.HEAD, followed)
                    abandoned = chain_rows.forget_abandoned(writer, finalized)
                    writer.set_durable_end(LogKind.HISTORY, self._history.end)
            except StoreFull:
                self._cut(self._history, begin)
                raise
            except BaseException as error:
                self._fail(error)
                raise
            with self._rows.read() as reader:
                self._known = {item.block_hash: item.height for item in reader.unfinalized()}
                self._finalized, self._head = chain_rows.pointers(reader)
        for _, row in abandoned:
            self._blocks.reclaim(row.payload, PAYLOAD_START)
        return [block_hash for block_hash, _ in abandoned]

    def set_head(self, block_hash: bytes) -> None:
        """Store which block is followed; raises StoreError if it is not stored."""
        self.finalize([], block_hash)

    def load_state(self, backend: Backend, capacity: int = 0) -> LoadedState:
        """Return the finalized state from the last good snapshot, or genesis, and the deltas.

        Raises StoreDamaged, StoreError if no way leads to the finalized state_hash.
        """
        return self._snapshots.load(self.genesis, self.finalized, backend, capacity)

    def index(self, height: int, hashes: U8, senders: U32, recipients: U32, statuses: U8) -> None:
        """Enter a finalized block into the indexes; twice does no harm.

        hashes: (n, 32) uint8; senders, recipients: (n,) uint32 account slots, NO_SLOT for a
        recipient without account; statuses: (n,) uint8. Raises StoreFull.
        """
        assert height <= self.finalized.height, "only what is finalized is indexed"
        self._indexes.add(height, hashes, senders, recipients, statuses)

    def unindexed(self) -> list[tuple[int, int]]:
        """Return the spans of finalized heights, inclusive, that an index lacks: call `index`."""
        first = self._upkeep.payloads_from(self.finalized)
        return self._indexes.missing(first, self.finalized.height)

    def disk_use(self) -> DiskUse:
        """Return what the home takes and what is free."""
        return DiskUse(
            blocks=self._blocks.disk_bytes,
            history=self._history.disk_bytes,
            rows=self._rows.disk_bytes,
            snapshots=self._snapshots.disk_bytes,
            indexes=self._indexes.disk_bytes,
            bad_blocks=folder_bytes(self.home / "bad_blocks"),
            max_disk_bytes=self.config.max_disk_bytes,
            free=free_bytes(self.home),
        )

    def maintain(self) -> None:
        """Keep house after a finalization: snapshots when due, pruning, merges; never waits long.

        Raises StoreError; what went wrong with a snapshot is a notice.
        """
        self._check_writable()
        self._upkeep.step(self.finalized)

    @property
    def upkeep(self) -> Upkeep:
        """Snapshots in the making, their progress, and pruning by hand."""
        return self._upkeep

    def verify(self) -> int:
        """Read everything that is stored, every byte compared; returns the number of records.

        Raises StoreDamaged with the first that is not what was written.
        """
        count = 0
        with self._rows.read() as reader:
            reader.check_all()
            hashes = [reader.finalized_hash(h) for h in range(1, self.finalized.height + 1)]
            hashes += [item.block_hash for item in reader.unfinalized()]
        for block_hash in filter(None, hashes):
            count += (self.payload(block_hash) is not None) + (self.history(block_hash) is not None)
        return count + self._snapshots.verify()

    def close(self) -> None:
        """Finish what is under way and give the home back."""
        try:
            self._appender.shutdown()
            self._upkeep.close()
            self._indexes.close()
        finally:
            self._blocks.close()
            self._history.close()
            self._rows.close(is_clean=self._failed is None)
            self._lock_file.release()

    def __enter__(self) -> "Store":
        """Return the store, which is open already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _append(
        self, block_hash: bytes, height: int, header: bytes, payload: bytes | memoryview
    ) -> None:
        """Write one block and its row: the work of the background thread."""
        begin = self._blocks.end
        try:
            place = self._blocks.append(height, block_hash, body_parts(header, [payload]))
            self._sync(self._blocks)
            row = BlockRow(height=height, payload=place, history=None, header=header)
            with self._rows.write() as writer:
                writer.put_block(block_hash, row)
                writer.set_durable_end(LogKind.BLOCKS, self._blocks.end)
            with self._mutex:
                self._known[block_hash] = height
        except StoreFull:
            self._cut(self._blocks, begin)
            raise
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            with self._mutex:
                self._pending.pop(block_hash, None)

    def no_room(self) -> str:
        """Return why even an empty block cannot be stored now; nothing while one can."""
        try:
            self._check_room(record_bytes(PAYLOAD_START), self.config.finalize_spare_bytes)
        except StoreFull as error:
            return f"{error.what}: {error.why}; {error.what_to_do}"
        return ""

    def _check_room(self, needed: int, spare: int) -> None:
        whole = needed + ROWS_SPARE_BYTES
        check_room(self.home, self.disk_use(), whole, spare, self.config.free_bytes_min)

    def _check_writable(self) -> None:
        """Raise StoreError if an earlier write failed in a way that leaves the disk unknown."""
        if self._failed is not None:
            raise store_failed(self.home, self._failed) from self._failed

    def _sync(self, log: SegmentLog) -> None:
        """Make a log durable; after a failed sync nobody knows what is on disk."""
        try:
            log.sync()
        except OSError as error:
            self._fail(error)

    def _cut(self, log: SegmentLog, end: Position) -> None:
        """Take back what was appended but not committed."""
        try:
            log.cut(end)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Take no further writes; an error of the disk is raised as StoreError."""
        self._failed = self._failed or error
        if isinstance(error, OSError):
            raise store_failed(self.home, error) from error
