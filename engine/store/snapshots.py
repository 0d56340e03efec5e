"""The snapshots of a home and the way from one to the finalized state.

Loading tries the newest snapshot, then the one before, then genesis; each must give, with the
deltas after it, the `state_hash` of the finalized header. Whatever was tried in vain is told.
Spec: spec/storage.md#snapshots.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.genesis import Genesis
from engine.header import Header
from engine.state import State
from engine.store.blocks import PAYLOAD_START
from engine.store.config import SNAPSHOTS_KEPT
from engine.store.disk import folder_bytes
from engine.store.errors import StoreDamaged, StoreError, damaged
from engine.store.history import History, HistoryError, decode_history
from engine.store.rows import BlockRow, Pointer, Rows
from engine.store.segment import SegmentLog
from engine.store.snapshot import (
    AccountColumns,
    Snapshot,
    height_of,
    list_snapshots,
    read_head,
    read_snapshot,
)
from engine.store.snapshot_process import DeltaPlace, SnapshotJob
from kernels.backend import Backend


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedState:
    """The state at the finalized block, as it was found on disk."""

    state: State
    finalized: Pointer
    base_height: int
    """of the snapshot that it was made from; 0 for genesis"""


class Snapshots:
    """The snapshot files of a home."""

    def __init__(self, home: Path, genesis_hash: bytes, rows: Rows, history: SegmentLog) -> None:
        """Look at the heads of all snapshots; one that is damaged is removed, and told."""
        self.home = home
        self.folder = home / "snapshots"
        self.notices: list[str] = []
        self._genesis_hash = genesis_hash
        self._rows = rows
        self._history = history
        self._known: list[Snapshot] = []
        self.refresh()

    @property
    def known(self) -> list[Snapshot]:
        """The good ones, the newest first."""
        return list(self._known)

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files, one in the making included."""
        return folder_bytes(self.folder)

    def refresh(self) -> None:
        """Look at the folder again, while none is made, and keep the newest good ones alone."""
        for path in self.folder.glob("*.tmp"):
            path.unlink()
        self._known = []
        for path in list_snapshots(self.folder):
            if len(self._known) == SNAPSHOTS_KEPT:
                path.unlink()
                continue
            try:
                self._known.append(read_head(path, self._genesis_hash))
            except StoreDamaged as error:
                self.discard(path, str(error))

    def deltas_needed_from(self) -> int:
        """Return the least height whose delta is still needed: after the oldest kept snapshot."""
        if len(self._known) < SNAPSHOTS_KEPT:
            return 1
        return self._known[-1].height + 1

    def job(self, target: Pointer) -> SnapshotJob:
        """Return what a process needs to make the snapshot of a finalized block."""
        base = next((item for item in self._known if item.height < target.height), None)
        first = base.height + 1 if base else 1
        places, state_hash = [], b""
        with self._rows.read() as reader:
            for height in range(first, target.height + 1):
                block_hash = reader.finalized_hash(height)
                row = reader.block(block_hash) if block_hash else None
                if block_hash is None or row is None or row.history is None:
                    raise self._missing(height)
                places.append(DeltaPlace(block_hash.hex(), *row.history))
                state_hash = Header.decode(row.header).state_hash
        return SnapshotJob(
            home=str(self.home),
            genesis_hash=self._genesis_hash.hex(),
            base=str(base.path) if base else "",
            height=target.height,
            block_hash=target.block_hash.hex(),
            state_hash=state_hash.hex(),
            deltas=places,
        )

    def load(
        self, genesis: Genesis, finalized: Pointer, backend: Backend, capacity: int = 0
    ) -> LoadedState:
        """Return the finalized state; raises StoreDamaged or StoreError if there is no way to it.

        capacity: accounts to make room for.
        """
        last: StoreError | None = None
        wrong: list[tuple[Path, str]] = []
        with self._rows.read() as reader:
            row = reader.block(finalized.block_hash)
        for snapshot in [*self._known, None]:
            if snapshot is not None and snapshot.height > finalized.height:
                continue
            base = snapshot.height if snapshot else 0
            try:
                columns = self._read(snapshot, genesis, capacity)
                self._catch_up(columns, base + 1, finalized.height)
            except StoreDamaged as error:
                self.notices.append(f"cannot start from height {base}: {error}")
                if snapshot is not None and error.where.startswith(str(snapshot.path)):
                    self.discard(snapshot.path, str(error))
                last = error
                continue
            try:
                state = State(
                    columns.keys, columns.balances, columns.nonces,
                    backend=backend, capacity=capacity,
                )  # fmt: skip
            except ValueError as error:
                last = _no_state(self.home, base, finalized, str(error))
            else:
                if row is None or state.state_hash() == Header.decode(row.header).state_hash:
                    # The same deltas led here from below, so it was not they that were wrong.
                    for path, why in wrong:
                        self.discard(path, why)
                    return LoadedState(state=state, finalized=finalized, base_height=base)
                last = _other_state(self.home, base, finalized)
            self.notices.append(str(last))
            if snapshot is not None:
                wrong.append((snapshot.path, last.what))
        assert last is not None, "genesis is always tried"
        raise last

    def verify(self) -> int:
        """Read all snapshots, every byte compared; returns their number. Raises StoreDamaged."""
        for snapshot in self._known:
            read_snapshot(snapshot.path, self._genesis_hash)
        return len(self._known)

    def _read(self, snapshot: Snapshot | None, genesis: Genesis, capacity: int) -> AccountColumns:
        if snapshot is None:
            return AccountColumns.of(genesis.account_keys, genesis.account_balances, capacity)
        try:
            return read_snapshot(snapshot.path, self._genesis_hash, capacity)
        except OSError as error:
            raise damaged(snapshot.path, 0, error.strerror or str(error)) from error

    def _catch_up(self, columns: AccountColumns, first: int, last: int) -> None:
        """Apply the deltas of the finalized blocks [first, last]."""
        for height in range(first, last + 1):
            with self._rows.read() as reader:
                block_hash = reader.finalized_hash(height)
                row = reader.block(block_hash) if block_hash else None
            if block_hash is None or row is None:
                raise self._missing(height)
            history = read_history(self._history, block_hash, row)
            if history is None:
                raise self._missing(height)
            try:
                columns.apply(history.delta)
            except HistoryError as error:
                raise damaged(self._history.folder, 0, f"height {height}: {error}") from error

    def _missing(self, height: int) -> StoreDamaged:
        why = f"the delta of height {height} is not there: it was pruned, or its row is lost"
        return damaged(self._history.folder, 0, why)

    def discard(self, path: Path, why: str) -> None:
        """Remove a damaged snapshot, and tell why."""
        self.notices.append(f"removed the snapshot of height {height_of(path)}: {why}")
        path.unlink(missing_ok=True)
        self._known = [item for item in self._known if item.path != path]


def read_history(log: SegmentLog, block_hash: bytes, row: BlockRow) -> History | None:
    """Return a block's delta and receipts, or None if they are pruned; raises StoreDamaged."""
    place = row.history
    body = None if place is None else log.held(place, partial(log.read, place, block_hash))
    if place is None or body is None:
        return None
    try:
        return decode_history(body[PAYLOAD_START:])
    except HistoryError as error:
        raise damaged(log.path(place.segment), place.offset, str(error)) from error


def _no_state(home: Path, base: int, finalized: Pointer, why: str) -> StoreError:
    return StoreError(
        "store.other_state",
        what=f"the accounts made from height {base} are none of any chain",
        where=str(home),
        why=f"at the finalized height {finalized.height} {why}",
        what_to_do="keep this home for inspection and start from a copy or an empty home",
    )


def _other_state(home: Path, base: int, finalized: Pointer) -> StoreError:
    return StoreError(
        "store.other_state",
        what=f"the state made from height {base} has another state_hash",
        where=str(home),
        why=f"it is not that of the finalized block {finalized.block_hash.hex()} at height "
        f"{finalized.height}",
        what_to_do="keep this home for inspection and start from a copy or an empty home",
    )
