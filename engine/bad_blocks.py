"""Blocks that were found INVALID, kept for a person to look at: the newest ones, within bounds.

Each has a folder of its own with header.bin, payload.bin and results.json (what each arm came to).
Nothing here is ever read by the executor. Spec: spec/engine_api.md#newpayload.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.store.store import Store

BAD_BLOCKS_MAX = 16
_NAME = re.compile(r"\d{10}-\d{20}-[0-9a-f]{64}")


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
        kept = self._oldest_first()
        number = int(kept[-1].name.partition("-")[0]) + 1 if kept else 1
        name = f"{height:020d}-{block_hash.hex()}"
        same = [path for path in kept if path.name.partition("-")[2] == name]
        others = [path for path in kept if path not in same]
        for old in (*same, *others[: max(0, len(others) - BAD_BLOCKS_MAX + 1)]):
            shutil.rmtree(old)
        here = self.folder / f"{number:010d}-{name}"
        here.mkdir(mode=0o700)
        (here / "header.bin").write_bytes(header)
        (here / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(judgements)))
        if len(payload) <= self._room_bytes():
            (here / "payload.bin").write_bytes(payload)
        return here

    def _oldest_first(self) -> list[Path]:
        """Return the folders in the order of their numbers; clocks are too coarse to tell.

        What whoever looks at them has put there beside them stays, whatever its name.
        """
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def room_bytes(store: Store) -> int:
    """Return how many bytes a bad block may take at present."""
    use = store.disk_use()
    room = use.free - store.config.free_bytes_min
    if use.max_disk_bytes is not None:
        spare = store.config.finalize_spare_bytes
        room = min(room, use.max_disk_bytes - spare - use.total)
    return room
