"""Files that are written whole or not at all, under names that nobody else has."""

import errno
import os
import stat
from pathlib import Path

import pytest

from runtime.durable import WRITE_PARTS_MAX, create_file, whole_file, write_all, write_file


def test_parts_are_written_in_order_whatever_one_call_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More parts than a call takes, empty ones, and calls that stop in the middle of a part."""
    write = os.pwritev
    monkeypatch.setattr(
        os, "pwritev", lambda file, views, offset: write(file, [views[0][:7]], offset)
    )
    parts = [bytes([index % 251]) * (index % 19) for index in range(WRITE_PARTS_MAX + 5)]
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("r+b") as file:
        write_all(file.fileno(), parts, 1)
    assert path.read_bytes() == b"x" + b"".join(parts)


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays, and nothing half written is left behind."""
    path = tmp_path / "file"
    write_file(path, [b"old"])

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            write_file(path, [b"new"])
        with pytest.raises(OSError, match="No space"):
            create_file(tmp_path / "other", b"new")
    with pytest.raises(OSError, match="Bad file"), whole_file(path):
        write_all(-1, [b"new"], 0)
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_the_folder_is_synced_after_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content first, then the name, then the folder; not at all where it need not last."""
    synced: list[str] = []

    def note(file: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
        synced.append(f"folder of {sorted(os.listdir(file))}" if is_folder else "file")

    monkeypatch.setattr(os, "fsync", note)
    write_file(tmp_path / "a", [b"1"], is_durable=False)
    assert synced == []
    write_file(tmp_path / "a", [b"2"], suffix=".new")
    create_file(tmp_path / "b", b"3")
    assert synced == ["file", "folder of ['a']", "file", "folder of ['a', 'b']"]


def test_a_name_that_is_taken_is_never_overwritten(tmp_path: Path) -> None:
    """`create_file` is for this user alone, and leaves what is there."""
    path = tmp_path / "file"
    create_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
