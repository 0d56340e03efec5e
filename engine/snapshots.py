"""Snapshots by hand: make one now, verify all, bring one back. The files are the store's.

A snapshot is believed only when the state_hash computed from its accounts is the one that its head
names; to be brought back into a home it must also be that of a finalized block there.
Spec: spec/storage.md#snapshots.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.header import Header
from engine.state import State
from engine.store.config import SNAPSHOTS_KEPT
from engine.store.errors import StoreDamaged, StoreError, damaged
from engine.store.home import read_format
from engine.store.snapshot import (
    Snapshot,
    height_of,
    list_snapshots,
    read_head,
    read_snapshot,
    snapshot_path,
)
from engine.store.store import Store
from kernels.backend import Backend
from runtime.durable import sync_file, sync_folder

FOLDER = "snapshots"
POLL_S = 1
Tell = Callable[[str, int, int], None]
"""stage, done, total"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A snapshot file, and what is wrong with it."""

    path: Path
    height: int
    accounts: int
    state_hash: str
    damage: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {
            "path": str(self.path),
            "height": self.height,
            "accounts": self.accounts,
            "state_hash": self.state_hash,
            "damage": self.damage,
        }

    def as_text(self) -> str:
        """Return what a person reads."""
        if self.damage:
            return f"DAMAGED  {self.path}\n{self.damage}"
        return f"good  height {self.height}, {self.accounts} accounts, {self.path}"


def create_snapshot(store: Store, tell: Tell | None = None) -> Found:
    """Make a snapshot of the finalized block in another process, and wait for it.

    Raises StoreError where there is nothing to make (height 0, or it exists), or it failed.
    """
    finalized = store.finalized
    if finalized.height == 0:
        raise StoreError(
            "store.snapshot_genesis",
            what="there is no snapshot of height 0",
            where=str(store.home),
            why="genesis itself stands in the home",
            what_to_do="wait until a block is finalized",
        )
    task = store.upkeep.start_snapshot(finalized)
    said = None
    while not task.is_over:
        report = task.wait(POLL_S)
        line = (report.stage, report.done, report.total)
        if tell is not None and line != said:
            tell(*line)
            said = line
    report = task.wait()
    store.upkeep.collect_snapshot(is_waiting=True)
    if report.stage != "done":
        raise StoreError(
            "store.snapshot_failed",
            what=f"no snapshot of height {finalized.height} was made",
            where=str(store.home.joinpath(FOLDER)),
            why=report.error,
            what_to_do="free disk space if it is full; verify the home if it is damaged",
        )
    path = snapshot_path(store.home.joinpath(FOLDER), finalized.height)
    return _found(read_head(path, store.genesis_hash))


def verify_snapshots(home: Path, backend: Backend) -> list[Found]:
    """Read every snapshot of a home and compute its state_hash; damage is told, not raised."""
    genesis_hash = read_format(home)
    found = []
    for path in list_snapshots(home.joinpath(FOLDER)):
        try:
            found.append(_found(verified(path, genesis_hash, backend)))
        except FileNotFoundError:
            continue  # a node that runs has let it go meanwhile
        except StoreDamaged as error:
            item = Found(path=path, height=0, accounts=0, state_hash="", damage=str(error))
            found.append(item)
    return found


def verified(path: Path, genesis_hash: bytes, backend: Backend) -> Snapshot:
    """Return the head of a snapshot after computing its state_hash; raises StoreDamaged."""
    head = read_head(path, genesis_hash)
    columns = read_snapshot(path, genesis_hash)
    try:
        state = State(columns.keys, columns.balances, columns.nonces, backend=backend)
    except ValueError as error:
        raise damaged(path, 0, f"its accounts are none of any chain: {error}") from error
    if state.state_hash() != head.state_hash:
        why = f"its accounts have the state_hash {state.state_hash().hex()}, not the one it names"
        raise damaged(path, 0, why)
    return head


def restore_snapshot(store: Store, file: Path, backend: Backend) -> Found:
    """Copy a snapshot into the home after verifying it; the file appears whole or not at all.

    Raises StoreDamaged where it is no whole snapshot of this chain, and StoreError
    (`store.snapshot_foreign`) where the block is not finalized here with this state, or
    (`store.snapshot_older`) as many newer ones are there as are kept.
    """
    head = _verified_foreign(file, store, backend)
    _check_use(store, head)
    target = snapshot_path(store.home.joinpath(FOLDER), head.height)
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        shutil.copyfile(file, temporary)
        verified(temporary, store.genesis_hash, backend)
        sync_file(temporary)
        temporary.replace(target)
    except (OSError, StoreError):
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return _found(read_head(target, store.genesis_hash))


def _verified_foreign(file: Path, store: Store, backend: Backend) -> Snapshot:
    """Return the head of a file that somebody named, after verifying it; raises StoreDamaged."""
    try:
        return verified(file, store.genesis_hash, backend)
    except StoreDamaged as error:
        # It is no part of the home: nothing here has to be removed, or put back.
        raise StoreDamaged(
            error.code,
            what="this is no whole snapshot of this chain",
            where=error.where,
            why=error.why,
            what_to_do="copy it again from where it was made; the home was not changed",
        ) from error


def _check_use(store: Store, head: Snapshot) -> None:
    """Raise StoreError unless a snapshot belongs into this home, and would stay there."""
    block = store.block_at(head.height)
    is_ours = (
        block is not None
        and block.block_hash == head.block_hash
        and Header.decode(block.header).state_hash == head.state_hash
    )
    if not is_ours:
        raise StoreError(
            "store.snapshot_foreign",
            what=f"the snapshot of height {head.height} does not belong into this home",
            where=str(head.path),
            why="its block is not a finalized block here: it is from another branch, it is ahead "
            f"of height {store.finalized.height}, or its header was pruned",
            what_to_do="take the snapshot of a block that this home has finalized",
        )
    listed = list_snapshots(store.home.joinpath(FOLDER))
    if sum(height_of(path) > head.height for path in listed) >= SNAPSHOTS_KEPT:
        raise StoreError(
            "store.snapshot_older",
            what=f"the snapshot of height {head.height} would not stay in this home",
            where=str(head.path),
            why=f"{SNAPSHOTS_KEPT} newer ones are there, and a home keeps no more",
            what_to_do="nothing, where `snapshot verify` calls them good; else remove what is not",
        )


def _found(head: Snapshot) -> Found:
    return Found(
        path=head.path,
        height=head.height,
        accounts=head.account_count,
        state_hash=head.state_hash.hex(),
    )
