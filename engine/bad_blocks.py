"""Blocks that were found INVALID, kept for a person to look at: the newest ones, within bounds.

Each has a folder of its own with header.bin, payload.bin and results.json (what each arm came to).
Nothing here is ever read by the executor. Spec: spec/engine_api.md#newpayload.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

BAD_BLOCKS_MAX = 16


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm said of a block; hashes in hex, empty where it did not get so far."""

    arm: str
    verdict: str
    """VALID or INVALID"""
    reason: str = ""
    position: int | None = None
    """of the transaction in canonical order"""
    detail: str = ""
    transactions_root: str = ""
    receipts_hash: str = ""
    state_hash: str = ""


class BadBlocks:
    """The folder `bad_blocks/` of a home; one thread at a time uses it."""

    def __init__(self, home: Path, room_bytes: Callable[[], int]) -> None:
        """Keep blocks under `home`; `room_bytes` says how many bytes may be written at present."""
        self.folder = home / "bad_blocks"
        self._room_bytes = room_bytes

    def keep(
        self,
        *,
        height: int,
        block_hash: bytes,
        header: bytes,
        payload: bytes | memoryview,
        judgements: list[Judgement],
    ) -> Path:
        """Write a block and what was said of it; drop the oldest beyond BAD_BLOCKS_MAX.

        Without room for the payload only the rest is written. Raises OSError.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        here = self.folder / f"{height:020d}-{block_hash.hex()}"
        here.mkdir(mode=0o700, exist_ok=True)
        (here / "header.bin").write_bytes(header)
        (here / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(judgements)))
        for old in self._oldest_first()[: -BAD_BLOCKS_MAX or None]:
            if old != here:
                shutil.rmtree(old)
        if len(payload) <= self._room_bytes():
            (here / "payload.bin").write_bytes(payload)
        return here

    def disk_bytes(self) -> int:
        """Return the bytes of everything that is kept."""
        if not self.folder.exists():
            return 0
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def _oldest_first(self) -> list[Path]:
        folders = [path for path in self.folder.iterdir() if path.is_dir()]
        return sorted(folders, key=lambda path: (path.stat().st_mtime_ns, path.name))
