"""A log over several files: what `sync` promises holds for all of them, names included."""

import errno
import os
import stat
from pathlib import Path

import pytest

from engine.store import segment
from engine.store.segment import PAGE_BYTES, LogKind, SegmentLog


def test_all_files_of_a_log_are_durable_after_a_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is synced at its last length, also one that is full; and so is the folder."""
    synced: dict[int, int] = {}
    folders: list[list[str]] = []
    sync_data, sync_all = os.fdatasync, os.fsync

    def data(file: int) -> None:
        status = os.fstat(file)
        synced[status.st_ino] = status.st_size
        sync_data(file)

    def everything(file: int) -> None:
        assert stat.S_ISDIR(os.fstat(file).st_mode), "only the folder has a name to keep"
        folders.append(sorted(os.listdir(file)))
        sync_all(file)

    monkeypatch.setattr(os, "fdatasync", data)
    monkeypatch.setattr(os, "fsync", everything)
    log = SegmentLog(tmp_path, LogKind.HISTORY, bytes(32), segment_bytes=1_024)
    for height in range(1, 9):
        log.append(height, bytes([height]) * 32, [bytes(300)])
        if height % 4 == 0:
            log.sync()
            files = sorted(tmp_path.iterdir())
            assert {path.stat().st_ino: path.stat().st_size for path in files} == synced
            assert folders[-1] == [path.name for path in files]
    assert len(log.segments) >= 3
    count = len(folders)
    log.append(9, bytes(32), [b""])
    log.sync()
    assert len(folders) == count + (len(log.segments) - len(files))
    log.close()


def is_cached(path: Path, offset: int) -> bool:
    """Say whether the system's cache has a byte of a file; skip where no file system tells."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(file, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip(f"no RWF_NOWAIT in {path.parent}: {error}")
    finally:
        os.close(file)


def test_what_is_far_behind_leaves_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once synced, the end of the file that is written stays cached, and no full file; all read."""
    monkeypatch.setattr(segment, "CACHED_BYTES", 2**17)
    log = SegmentLog(tmp_path, LogKind.BLOCKS, bytes(32), segment_bytes=2**19)
    bodies = [bytes([height]) * 2**16 for height in range(1, 13)]
    places = [log.append(height, bytes(32), [body]) for height, body in enumerate(bodies, 1)]
    first, last = log.segments
    assert is_cached(log.path(last), PAGE_BYTES)
    log.sync()
    end = log.end.offset
    assert not is_cached(log.path(first), PAGE_BYTES)
    assert not is_cached(log.path(first), places[6].offset)
    assert not is_cached(log.path(last), PAGE_BYTES)
    assert is_cached(log.path(last), end - 2**17 + PAGE_BYTES)
    assert is_cached(log.path(last), end - 1)
    assert [bytes(log.read(place, bytes(32))) for place in places] == bodies
    log.close()
