"""Make a snapshot beside a running executor: in a process of its own, from what is on disk.

`SnapshotTask` is the executor's end, `python -m engine.store.snapshot_process` the other. The job,
where everything stands, goes in as one JSON object; progress, and the error if there is one, come
out as JSON lines. The child knows nothing of rows or locks, writes one new file and is trusted only
after its own state hash equals the header's. Spec: spec/storage.md#snapshots.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import msgspec

from engine.genesis import Genesis
from engine.state import State
from engine.store.blocks import PAYLOAD_START
from engine.store.errors import StoreDamaged
from engine.store.genesis_copy import read_genesis
from engine.store.history import HistoryError, decode_history
from engine.store.rows_check import child_environment
from engine.store.segment import Location, LogKind, SegmentLog
from engine.store.snapshot import (
    AccountColumns,
    Progress,
    read_snapshot,
    snapshot_path,
    write_snapshot,
)
from kernels.backend import open_backend
from runtime.decoding import decodable
from runtime.errors import ExplainedError

NICE = 10
"""How far the child steps back behind the executor."""
PROGRESS_EVERY = 64
"""Deltas between two lines of progress."""
ERROR_CHARACTERS_MAX = 4_096


class DeltaPlace(msgspec.Struct, frozen=True):
    """Where a block's history stands."""

    block_hash: str
    segment: int
    offset: int
    body_bytes: int


@decodable
class SnapshotJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the child needs to know; hashes in hex."""

    home: str
    genesis_hash: str
    base: str
    """path of the snapshot to start from, or empty for genesis"""
    height: int
    block_hash: str
    state_hash: str
    deltas: list[DeltaPlace]
    """of the blocks after the base up to `height`, in order"""


@decodable
class SnapshotReport(msgspec.Struct, frozen=True, kw_only=True):
    """A line from the child."""

    stage: str
    """start, read, deltas, verify, write, done or failed"""
    done: int = 0
    total: int = 0
    error: str = ""
    is_base_damaged: bool = False
    """failed because of the snapshot that it was to start from"""


class SnapshotTask:
    """A snapshot in the making."""

    def __init__(self, job: SnapshotJob) -> None:
        """Start the child."""
        self.height = job.height
        self.base = job.base
        """path of the snapshot that it starts from, or empty"""
        self._latest = SnapshotReport(stage="start", total=len(job.deltas))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "engine.store.snapshot_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(),
        )
        self._thread = threading.Thread(
            target=self._follow, args=(job,), name="snapshot", daemon=True
        )
        self._thread.start()

    @property
    def report(self) -> SnapshotReport:
        """Return the newest line of progress; `done` and `failed` are the last ones."""
        return self._latest

    @property
    def is_over(self) -> bool:
        """Say whether the child has ended and everything it said was read."""
        return not self._thread.is_alive()

    def wait(self, timeout_s: int | None = None) -> SnapshotReport:
        """Wait for the end and return the last line; one that is no `done` tells why."""
        self._thread.join(timeout_s)
        return self._latest

    def stop(self) -> None:
        """End the child; what it has written stays under its temporary name."""
        self._child.kill()
        self._thread.join()

    def _follow(self, job: SnapshotJob) -> None:
        """Send the job, then read lines until the child ends."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        other = b""
        with self._child:
            try:
                self._child.stdin.write(msgspec.json.encode(job))
                self._child.stdin.close()
            except BrokenPipeError:
                other = b"the process ended before it had read its job"
            for line in self._child.stdout:
                try:
                    self._latest = msgspec.json.decode(line, type=SnapshotReport)
                except msgspec.MsgspecError:
                    other = (other + line)[-ERROR_CHARACTERS_MAX:]
        if self._latest.stage not in ("done", "failed"):
            said = other.decode(errors="replace").strip()
            why = f"the process ended with status {self._child.returncode}: {said}"
            self._latest = SnapshotReport(stage="failed", error=why)


def make_snapshot(job: SnapshotJob, progress: Progress) -> None:
    """Do a job; raises ExplainedError, HistoryError or OSError, and then there is no new file."""
    home = Path(job.home)
    chain = bytes.fromhex(job.genesis_hash)
    if job.base:
        columns = read_snapshot(Path(job.base), chain)
    else:
        genesis: Genesis = read_genesis(home / "genesis", chain)
        columns = AccountColumns.of(genesis.account_keys, genesis.account_balances)
    progress("read", 1, 1)
    log = SegmentLog(home / "history", LogKind.HISTORY, chain)
    for index, place in enumerate(job.deltas):
        location = Location(place.segment, place.offset, place.body_bytes)
        body = log.read(location, bytes.fromhex(place.block_hash))
        columns.apply(decode_history(body[PAYLOAD_START:]).delta)
        if index % PROGRESS_EVERY == PROGRESS_EVERY - 1:
            progress("deltas", index + 1, len(job.deltas))
    progress("verify", 0, 1)
    backend = open_backend("cpu", 1)
    try:
        state = State(columns.keys, columns.balances, columns.nonces, backend=backend)
        state_hash = state.state_hash()
    except ValueError as error:
        # Whether the base or a delta is wrong is not known here; the next start finds out.
        raise HistoryError(
            f"the deltas give accounts of no chain at height {job.height}: {error}"
        ) from error
    finally:
        backend.close()
    if state_hash.hex() != job.state_hash:
        raise HistoryError(
            f"the deltas give the state {state_hash.hex()} at height {job.height} and the header "
            f"says {job.state_hash}"
        )
    progress("verify", 1, 1)
    write_snapshot(
        snapshot_path(home / "snapshots", job.height),
        columns,
        genesis_hash=chain,
        height=job.height,
        block_hash=bytes.fromhex(job.block_hash),
        state_hash=state_hash,
        progress=progress,
    )


def main(source: IO[bytes], target: IO[bytes]) -> int:
    """Read a job, do it and report; 0 if there is a snapshot now."""

    def tell(report: SnapshotReport) -> None:
        target.write(msgspec.json.encode(report) + b"\n")
        target.flush()

    def progress(stage: str, done: int, total: int) -> None:
        tell(SnapshotReport(stage=stage, done=done, total=total))

    os.nice(NICE)
    job = msgspec.json.decode(source.read(), type=SnapshotJob)
    try:
        make_snapshot(job, progress)
    except (ExplainedError, HistoryError, OSError, MemoryError) as error:
        is_of_base = isinstance(error, StoreDamaged) and error.where.startswith(job.base)
        tell(
            SnapshotReport(
                stage="failed",
                error=f"{type(error).__name__}: {error}",
                is_base_damaged=bool(job.base) and is_of_base,
            )
        )
        return 1
    tell(SnapshotReport(stage="done", done=1, total=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer, sys.stdout.buffer))
