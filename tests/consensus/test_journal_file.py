"""The journal's file: what is torn is dropped, what is damaged is said, the rest is there."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from consensus.journal import Journal, JournalDamaged, create_journal, read_journal


def written(path: Path, frames: list[list[bytes]]) -> None:
    """Make a journal of several frames."""
    create_journal(path, frames[0])
    journal = Journal(path)
    for frame in frames[1:]:
        journal.append(frame)
    journal.close()


FRAMES = [[b"cut"], [b"a" * 115, b"b" * 571], [b"c"], [b"", b"d" * 40]]


def test_what_was_appended_is_found(tmp_path: Path) -> None:
    """Records come back in the order of their writing, empty ones too, and nothing is torn."""
    path = tmp_path / "journal"
    written(path, FRAMES)
    content = read_journal(path)
    assert content.records == tuple(record for frame in FRAMES for record in frame)
    assert content.torn_bytes == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["journal"]


def test_a_journal_is_never_overwritten(tmp_path: Path) -> None:
    """Making a journal where there is one fails, and leaves it as it was."""
    path = tmp_path / "journal"
    written(path, FRAMES)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        create_journal(path, [b"cut"])
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_torn_tail_is_dropped_wherever_it_is_torn(tmp_path: Path) -> None:
    """Cut anywhere within the last frame, the file holds what was written before; it goes on."""
    path = tmp_path / "journal"
    written(path, FRAMES[:-1])
    whole = path.read_bytes()
    written(tmp_path / "longer", FRAMES)
    journal = Journal(path)
    journal.append(FRAMES[-1])
    journal.close()
    longer = path.read_bytes()
    before = tuple(record for frame in FRAMES[:-1] for record in frame)
    for end in range(len(whole), len(longer)):
        path.write_bytes(longer[:end])
        torn = Journal(path)
        assert torn.records == before
        assert torn.torn_bytes == end - len(whole)
        torn.append([b"again"])
        torn.close()
        assert read_journal(path).records == (*before, b"again")


def test_a_tail_of_zeros_is_torn(tmp_path: Path) -> None:
    """A file that grew before its bytes came, as file systems do, ends where its frames end."""
    path = tmp_path / "journal"
    written(path, FRAMES)
    with path.open("ab") as file:
        file.write(bytes(5_000))
    assert read_journal(path).torn_bytes == 5_000


def test_damage_before_the_last_frame_is_never_taken_for_a_torn_tail(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """A flipped bit before the last frame is damage: what follows it was synced later."""
    path = tmp_path / "journal"
    written(path, FRAMES[:-1])
    last = len(path.read_bytes())
    journal = Journal(path)
    journal.append(FRAMES[-1])
    journal.close()
    good = path.read_bytes()
    for _ in range(200):
        at, bit = int(rng.integers(last)), int(rng.integers(8))
        damaged = bytearray(good)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        with pytest.raises(JournalDamaged):
            read_journal(path)


def test_frames_of_another_file_are_not_taken(tmp_path: Path) -> None:
    """Bytes of a journal that was replaced do not come back behind the new one's."""
    path = tmp_path / "journal"
    written(path, FRAMES)
    old = path.read_bytes()
    journal = Journal(path)
    journal.replace([b"cut"])
    journal.close()
    new = path.read_bytes()
    path.write_bytes(new + old[len(new) :])
    assert read_journal(path).records == (b"cut",)


def test_a_replaced_journal_holds_exactly_the_new_records(tmp_path: Path) -> None:
    """W4: after a cut only the given records are there, and appending goes on behind them."""
    path = tmp_path / "journal"
    written(path, FRAMES)
    journal = Journal(path)
    journal.replace([b"cut again", b"kept"])
    journal.append([b"more"])
    assert journal.size_bytes == path.stat().st_size
    journal.close()
    assert read_journal(path).records == (b"cut again", b"kept", b"more")


def test_a_write_that_fails_is_raised(tmp_path: Path) -> None:
    """A file that cannot be written raises; the journal on disk stays what it was."""
    path = tmp_path / "journal"
    written(path, FRAMES)
    journal = Journal(path)
    os.close(journal._file)
    journal._file = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        journal.append([b"lost"])
    journal.close()
    assert b"lost" not in path.read_bytes()


@pytest.mark.parametrize("data", [b"", b"x" * 31, b"y" * 500, b"TOSVOTES" + bytes(100)])
def test_other_files_are_no_journal(tmp_path: Path, data: bytes) -> None:
    """What is too short or begins otherwise is damage."""
    path = tmp_path / "journal"
    path.write_bytes(data)
    with pytest.raises(JournalDamaged):
        read_journal(path)


def test_what_was_signed_is_synced_before_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each append, each new file and each torn tail that was cut is synced whole, and at once."""
    synced: list[tuple[str, int]] = []

    def noting(name: str, sync: Callable[[int], None]) -> Callable[[int], None]:
        def note(file: int) -> None:
            status = os.fstat(file)
            synced.append((name, status.st_size if stat.S_ISREG(status.st_mode) else -1))
            sync(file)

        return note

    path = tmp_path / "journal"
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, noting(name, getattr(os, name)))
    create_journal(path, FRAMES[0])
    assert synced == [("fsync", path.stat().st_size), ("fsync", -1)]
    journal = Journal(path)
    for frame in FRAMES[1:]:
        synced.clear()
        journal.append(frame)
        assert synced == [("fdatasync", path.stat().st_size)]
    synced.clear()
    journal.replace(FRAMES[0])
    assert synced == [("fsync", path.stat().st_size), ("fsync", -1)]
    journal.append(FRAMES[1])
    journal.close()
    os.truncate(path, path.stat().st_size - 1)
    synced.clear()
    journal = Journal(path)
    assert synced == [("fsync", journal.size_bytes)]
    journal.close()
