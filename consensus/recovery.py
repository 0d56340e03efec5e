"""Boot: journal and store as the disk has them, and an observer's journal where there is none.

A validator whose journal is missing or damaged may have signed what it does not know of any more,
so it must not vote: its new journal begins with the mark of an observer. The damaged file is kept
beside it, for people. Spec: spec/consensus.md#journal (W3), spec/consensus.md#files.
"""

from dataclasses import dataclass
from pathlib import Path

from consensus.core.epochs import EPOCHS_HELD_MAX
from consensus.core.events import Boot
from consensus.core.journal import empty_journal, observer_journal
from consensus.core.types import Hash32
from consensus.journal import Journal, JournalDamaged, create_journal
from consensus.store import Store
from runtime.durable import sync_folder

JOURNAL_NAME = "journal"
STORE_NAME = "store"
DAMAGED_NAMES_MAX = 1_000


@dataclass(slots=True, kw_only=True)
class Disks:
    """What a node owns on disk, opened."""

    journal: Journal
    store: Store
    notices: list[str]
    """for the log: what was found otherwise than it should be"""

    def boot(self) -> Boot:
        """Return what survived, for a replica."""
        return Boot(
            journal=self.journal.records,
            finalized=self.store.top(),
            boundaries=self.store.last_boundaries(EPOCHS_HELD_MAX),
        )

    def become_observer(self, why: str, wall_ms: int) -> None:
        """W3: put the journal aside and begin an observer's."""
        path = self.journal.path
        self.journal.close()
        self.journal, notice = _begin_anew(path, why, _mark_ms(self.store, wall_ms))
        self.notices.append(notice)

    def close(self) -> None:
        """Close both."""
        self.journal.close()
        self.store.close()


def open_disks(folder: Path, *, genesis_hash: Hash32, has_key: bool, wall_ms: int) -> Disks:
    """Open journal and store of a home; without a key a missing journal means nothing.

    Raises StoreError, OSError.
    """
    store = Store(folder / STORE_NAME, genesis_hash)
    path = folder / JOURNAL_NAME
    notices: list[str] = []
    since_ms = _mark_ms(store, wall_ms)
    try:
        journal = Journal(path)
    except FileNotFoundError:
        if has_key:
            journal, notice = _begin_anew(path, "there is no journal", since_ms)
            notices.append(notice)
        else:
            create_journal(path, empty_journal())
            journal = Journal(path)
    except JournalDamaged as error:
        journal, notice = _begin_anew(path, str(error), since_ms)
        notices.append(notice)
    if journal.torn_bytes:
        notices.append(f"{path}: dropped {journal.torn_bytes} bytes of a write that was cut off")
    return Disks(journal=journal, store=store, notices=notices)


def _mark_ms(store: Store, wall_ms: int) -> int:
    """W3: return the time of a mark: the chain's where the clock of this machine is behind it.

    Otherwise boundaries that were final long ago would be later than the mark.
    """
    top = store.top()
    return wall_ms if top is None else max(wall_ms, top.header.timestamp_ms)


def _begin_anew(path: Path, why: str, since_ms: int) -> tuple[Journal, str]:
    """Write an observer's journal durably; return it and what to tell people."""
    if path.exists():
        _put_aside(path)
    create_journal(path, observer_journal(since_ms))
    notice = (
        f"{why}: this node may have signed what it does not know of, so it observes and does not "
        "vote until two boundaries of epochs are final that are later than now"
    )
    return Journal(path), notice


def _put_aside(path: Path) -> None:
    for number in range(1, DAMAGED_NAMES_MAX):
        name = path.with_name(f"{path.name}.damaged-{number}")
        if not name.exists():
            path.rename(name)
            sync_folder(path.parent)
            return
    raise FileExistsError(f"{path}: {DAMAGED_NAMES_MAX} damaged journals lie beside it")
