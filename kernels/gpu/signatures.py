"""Signatures of the backend `gpu`: on the device while it can be trusted, else on the host.

The signatures of a block whose columns are on the device are verified from there: what they sign is
put together beside them, so nothing crosses again. Verdicts of the device are those of any other
path; of every n-th batch some are judged on the host as well. Read `ed25519` for the verifier.
"""

from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.gpu import signed
from kernels.gpu.device import Arena
from kernels.gpu.failures import DeviceDiffers, DeviceFailed
from kernels.gpu.guard import Guard
from kernels.gpu.uploads import Uploads
from kernels.host import HostBackend
from kernels.layout import I32, U8, Columns
from kernels.signed_message import MESSAGE_WORDS, domain_words

CHECKED: Final = 1_024
"""Of a batch that is of the sample, so many signatures are verified on the host as well."""


class Verifier(Protocol):
    """What verifies signatures on the device; raises DeviceFailed."""

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> NDArray[np.bool_]:
        """See Backend.verify_signatures."""

    def verify_resident(
        self, public_keys: int, signatures: int, messages: int, length: int, count: int
    ) -> NDArray[np.bool_]:
        """Judge rows that are on the device; see DeviceVerifier."""

    def close(self) -> None:
        """Give memory back."""


class GuardedSignatures:
    """What `GpuBackend` verifies with; one batch at a time on the device, from any thread."""

    def __init__(
        self,
        guard: Guard,
        host: HostBackend,
        uploads: Uploads,
        verifier: Verifier | None,
        *,
        crossover: int,
    ) -> None:
        """Own the verifier (None: the host does it all); crossover: rows from which it pays."""
        self._guard = guard
        self._host = host
        self._uploads = uploads
        self._verifier = verifier
        self._crossover = crossover
        self._arena = Arena(guard.opened)

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """See Backend.verify_signatures."""
        rows = (public_keys, signatures, messages)
        verifier, host = self._verifier_for(len(public_keys)), self._host.verify_signatures
        if verifier is None:
            return host(*rows)
        return self._either(
            lambda: verifier.verify(*rows),
            lambda: host(*(array[:CHECKED] for array in rows)),
            lambda: host(*rows),
        )

    def verify_transactions(self, columns: Columns, rows: I32, domain: bytes) -> U8:
        """See Backend.verify_transactions."""
        verifier, host = self._verifier_for(len(rows)), self._host.verify_transactions
        if verifier is None:
            return host(columns, rows, domain)
        return self._either(
            lambda: self._verify_there(verifier, columns, rows, domain),
            lambda: host(columns, rows[:CHECKED], domain),
            lambda: host(columns, rows, domain),
        )

    def close(self) -> None:
        """Give the verifier's memory back."""
        if self._verifier is not None:
            self._verifier.close()

    def _verifier_for(self, count: int) -> Verifier | None:
        """Return what verifies so many signatures on the device, if that pays."""
        is_usable = self._guard.device is not None and count >= self._crossover
        return self._verifier if is_usable else None

    def _either(
        self, there: Callable[[], NDArray[np.bool_]], sample: Callable[[], U8],
        here: Callable[[], U8],
    ) -> U8:  # fmt: skip
        """Verify on the device, a sample on the host as well, all of it there if that fails."""
        try:
            verdicts = there()
            if self._guard.is_due("signatures"):
                expected = sample()
                if not np.array_equal(verdicts[: len(expected)], expected):
                    raise DeviceDiffers("verdicts on signatures differ from the CPU's")
        except DeviceFailed as error:
            self._guard.give_up(str(error))
            return here()
        return verdicts.view(np.uint8)

    def _verify_there(
        self, verifier: Verifier, columns: Columns, rows: I32, domain: bytes
    ) -> NDArray[np.bool_]:
        """Gather what is verified on the device, then judge it; the device is free meanwhile."""
        device, count = self._guard.opened, len(rows)
        with self._guard.lock:
            there = self._uploads.find(columns)
            if there is not None:
                keys = self._arena.take("keys", (count, 4), np.uint64)
                signatures = self._arena.take("signatures", (count, 8), np.uint64)
                messages = self._arena.take("messages", (count, MESSAGE_WORDS), np.uint64)
                device.launch(
                    signed.gather_signed, count, *there,
                    self._arena.put("domain", domain_words(domain)), self._arena.put("rows", rows),
                    keys, signatures, messages,
                )  # fmt: skip
                device.wait()
        if there is None:
            given = self._host.signed_messages(columns, rows, domain)
            return verifier.verify(columns.sender[rows], columns.signature[rows], given)
        addresses = (keys.address, signatures.address, messages.address)
        return verifier.verify_resident(*addresses, 8 * MESSAGE_WORDS, count)
