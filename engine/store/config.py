"""What a node may choose about its own store. Spec: spec/storage.md#disk-use."""

from dataclasses import dataclass

from engine.store.segment import SEGMENT_BYTES

SNAPSHOTS_KEPT = 2
"""The newest, and one to fall back to."""
FINALIZE_SHARE = 16
"""1/16 of max_disk_bytes takes no new blocks: finalization may still use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Limits of one node's store."""

    keep_blocks: int | None = None
    """finalized blocks whose payloads and receipts are kept; None keeps all"""
    snapshot_every: int = 512
    """heights from one snapshot to the next"""
    max_disk_bytes: int | None = None
    """of the whole home; None leaves it to the file system"""
    free_bytes_min: int = 2**28
    """of the file system, which the store leaves free"""
    segment_bytes: int = SEGMENT_BYTES
    """a file takes no further record from this size on"""
    is_indexed: bool = True
    """whether transactions can be found by hash, and those of an account be listed"""

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing; a person's configuration is checked before."""
        assert self.keep_blocks is None or self.keep_blocks >= 1, self.keep_blocks
        assert self.snapshot_every >= 1, self.snapshot_every
        assert self.max_disk_bytes is None or self.max_disk_bytes >= 0, self.max_disk_bytes
        assert self.free_bytes_min >= 0, self.free_bytes_min
        assert self.segment_bytes >= 1, self.segment_bytes

    @property
    def finalize_spare_bytes(self) -> int:
        """Return what new blocks must leave of max_disk_bytes."""
        return (self.max_disk_bytes or 0) // FINALIZE_SHARE
