"""Whether the device may be used: opened once, given up once, loudly, and never taken up again."""

from collections.abc import Callable
from typing import Final

from kernels.gpu.device import Device

CHECK_BLOCKS: Final = 256
"""Every so many blocks (and batches of hashes) one is computed on the CPU as well."""


class Guard:
    """The device while it is trusted, and what is said when it no longer is."""

    def __init__(
        self, device: Device, *, check_blocks: int = CHECK_BLOCKS, tell: Callable[[str], None]
    ) -> None:
        """check_blocks: 0 for none; tell: is told why the device was given up, on any thread."""
        self.device: Device | None = device
        """None when it was given up"""
        self.opened = device
        """the same, also afterwards"""
        self.lock = device.lock
        self.lost = ""
        """why the device is not used any more, empty while it is"""
        self.check_blocks = check_blocks
        self._counts: dict[str, int] = {}
        self._tell = tell

    def give_up(self, why: str) -> None:
        """Use the CPU from now on."""
        if self.device is not None:
            self.device = None
            self.lost = f"the device is not used any more, the CPU goes on: {why}"
            self._tell(self.lost)

    def is_due(self, kind: str) -> bool:
        """Say whether this piece of work is one of the sample; counts it."""
        count = self._counts.get(kind, 0)
        self._counts[kind] = count + 1
        return self.check_blocks > 0 and count % self.check_blocks == 0
