"""House-keeping after finalizations: snapshots when they are due, pruning, merges of the indexes.

Each step does a bounded amount and returns; what takes long runs in a process (snapshots) or in a
thread (merges). What went wrong is told in `notices` and tried again later.
Spec: spec/storage.md#disk-use.
"""

from collections.abc import Callable
from pathlib import Path

from engine.store.config import StoreConfig
from engine.store.disk import DiskUse, check_room
from engine.store.errors import StoreError, StoreFull
from engine.store.history import Delta
from engine.store.rows import Pointer, Rows
from engine.store.runs import SortedRuns
from engine.store.segment import SegmentLog
from engine.store.snapshot import snapshot_bytes
from engine.store.snapshot_process import SnapshotTask
from engine.store.snapshots import Snapshots, read_history

PRUNE_ROWS_MAX = 1_024
"""Blocks whose rows one step forgets."""
FLOOR = "floor"
"""Name of the least height that has rows."""


class Upkeep:
    """What a store does besides storing. Its calls come from the store's writing thread."""

    def __init__(
        self,
        config: StoreConfig,
        rows: Rows,
        logs: tuple[SegmentLog, SegmentLog],
        snapshots: Snapshots,
        runs: tuple[SortedRuns, ...],
        disk_use: Callable[[], DiskUse],
    ) -> None:
        """Keep the parts of a store; logs: blocks, then history."""
        self.notices: list[str] = []
        self._config = config
        self._rows = rows
        self._blocks, self._history = logs
        self._snapshots = snapshots
        self._runs = runs
        self._disk_use = disk_use
        self._task: SnapshotTask | None = None
        self._tried_height = 0

    def step(self, finalized: Pointer) -> None:
        """Do what is due."""
        self.collect_snapshot()
        newest = max(self._tried_height, self.newest_snapshot_height())
        if self._task is None and finalized.height - newest >= self._config.snapshot_every:
            try:
                self.start_snapshot(finalized)
            except (StoreError, OSError) as error:  # or no process can be started at present
                self._tried_height = finalized.height
                self.notices.append(f"no snapshot of height {finalized.height}: {error}")
        try:
            self.prune(finalized)
        except StoreFull as error:
            self.notices.append(f"old blocks are not forgotten yet: {error}")
        for runs in self._runs:
            try:
                runs.start_merge()
            except StoreError as error:
                self.notices.append(f"{runs.folder}: not merged: {error}")

    def newest_snapshot_height(self) -> int:
        """Return the height of the newest snapshot, 0 if there is none."""
        return max((item.height for item in self._snapshots.known), default=0)

    def start_snapshot(self, finalized: Pointer) -> SnapshotTask:
        """Begin a snapshot of the finalized block. Raises StoreFull, StoreDamaged."""
        assert self._task is None, "one snapshot at a time"
        assert finalized.height > 0, "the snapshot of height 0 is genesis"
        if finalized.height == self.newest_snapshot_height():
            raise StoreError(
                "store.snapshot_exists",
                what=f"there is a snapshot of height {finalized.height}",
                where=str(self._snapshots.folder),
                why="a snapshot never changes",
                what_to_do="wait for the next finalized block",
            )
        job = self._snapshots.job(finalized)
        needed = snapshot_bytes(self._delta(finalized).count_after)
        check_room(self._snapshots.folder, self._disk_use(), needed, 0, self._config.free_bytes_min)
        self._task = SnapshotTask(job)
        return self._task

    def collect_snapshot(self, *, is_waiting: bool = False) -> bool:
        """Take in the snapshot in the making if it is over; is_waiting: wait for it.

        Returns whether a snapshot was taken in; a failed one is a notice.
        """
        task = self._task
        if task is None or not (task.is_over or is_waiting):
            return False
        report = task.wait()
        self._task = None
        self._tried_height = task.height
        self._snapshots.refresh()
        if report.stage != "done":
            self.notices.append(f"no snapshot of height {task.height}: {report.error}")
            if report.is_base_damaged:
                self._snapshots.discard(Path(task.base), "its bytes have changed since it was made")
            return False
        return True

    def payloads_from(self, finalized: Pointer) -> int:
        """Return the least height whose payload and receipts are to be kept."""
        keep = self._config.keep_blocks
        return 1 if keep is None else max(1, finalized.height - keep + 1)

    def prune(self, finalized: Pointer) -> None:
        """Remove files and rows of blocks that are older than what is kept."""
        payloads = self.payloads_from(finalized)
        history = min(payloads, self._snapshots.deltas_needed_from())
        if payloads == 1:
            return
        old = [
            (log, segment)
            for log, floor in ((self._blocks, payloads), (self._history, history))
            for segment in self._segments_below(log, floor)
        ]
        with self._rows.read() as reader:
            floor = max(1, reader.number(FLOOR))
        ceiling = min(history, floor + PRUNE_ROWS_MAX)
        if not old and ceiling <= floor:
            return
        with self._rows.write() as writer:
            for log, segment in old:
                writer.forget_segment(log.kind, segment)
            for height in range(floor, ceiling):
                block_hash = writer.finalized_hash(height)
                row = None if block_hash is None else writer.block(block_hash)
                if block_hash is not None and row is not None:
                    writer.forget_block(block_hash, row)
            writer.set_number(FLOOR, max(floor, ceiling))
        for log, segment in old:
            log.remove(segment)
        for runs in self._runs:
            runs.drop_below(payloads)

    def close(self) -> None:
        """End a snapshot in the making; it is made again when it is due."""
        if self._task is not None:
            self._task.stop()
            self._task = None

    def _segments_below(self, log: SegmentLog, floor: int) -> list[int]:
        """Return the files, not the last, that hold nothing of `floor` or above."""
        with self._rows.read() as reader:
            greatest = reader.greatest_heights(log.kind)
        return [
            segment
            for segment, height in greatest.items()
            if height < floor and segment < log.end.segment
        ]

    def _delta(self, finalized: Pointer) -> Delta:
        """Return the delta of the finalized block."""
        with self._rows.read() as reader:
            row = reader.block(finalized.block_hash)
        assert row is not None, "the finalized block has a row"
        history = read_history(self._history, finalized.block_hash, row)
        assert history is not None, "the newest delta is never pruned"
        return history.delta
