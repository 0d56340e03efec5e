"""Ed25519 verification on a CUDA device: arrays of the host in, verdicts out.

Rows go through the device in chunks, in two slots in turn. Each slot has pinned memory, device
memory and a stream of its own, so that one chunk is copied while the other is verified, both beside
blocks. What a verifier holds does not depend on what it is asked: see `memory_bytes`.

Read `ed25519.cu` for the kernel, `ed25519_source` for its text. Spec: spec/signatures.md#verdict
"""

import contextlib
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.backend import DeviceUnavailable
from kernels.gpu import ed25519_source
from kernels.gpu.device import Device
from kernels.gpu.ed25519_source import BLOCK_THREADS, KEY_TABLE_BYTES
from kernels.gpu.failures import DeviceFailed
from kernels.layout import U8
from kernels.signature_vectors_table import VECTORS
from kernels.signatures import VerdictDiffers

CHUNK_ROWS: Final = 1 << 16
"""Signatures of one launch: about what an H100 or H200 holds at once (132 * 4 * 128)."""
COLUMN_BYTES: Final = (32, 64, 160, 1)
"""Room per row for key, signature, message and verdict: longer messages make smaller chunks."""
SLOTS: Final = 2
KERNEL: Final = "verify"
"""Its name in the source, and with a device's meter."""

_WIDE_BYTES: Final = 8
"""Messages whose length is a multiple of so many are read in words of so many."""
_NO_VERDICT: Final = 0xFF
"""What verdicts are before a launch: one that stays says that the launch did not run."""


def memory_bytes(rows: int = CHUNK_ROWS) -> tuple[int, int]:
    """Return what a verifier with chunks of `rows` takes: pinned, and of the device."""
    columns = SLOTS * rows * sum(COLUMN_BYTES)
    return columns, columns + SLOTS * rows * KEY_TABLE_BYTES


def chunk_rows(length: int, rows: int = CHUNK_ROWS) -> int:
    """Return how many signatures over messages of `length` bytes a chunk of `rows` takes.

    Raises ValueError for messages that are longer than a chunk.
    """
    room = rows * COLUMN_BYTES[2]
    if length > room:
        raise ValueError(
            f"messages of {length} bytes: a device takes up to {room}; verify them on the CPU"
        )
    return min(rows, room // max(1, length))


class _Slot:
    """Memory and stream of one chunk in flight, on the host and on the device."""

    def __init__(self, device: Device, rows: int) -> None:
        sizes = [rows * width for width in COLUMN_BYTES]
        self.stream = device.driver.new_stream()
        self.host = [device.driver.pinned(size) for size in sizes]
        self.device = [device.empty(size, np.uint8) for size in sizes]
        self.tables = device.empty(rows * KEY_TABLE_BYTES, np.uint8)
        self.rows = range(0)
        """Rows whose verdicts are still to come."""

    @property
    def places(self) -> list[int]:
        """Return the addresses of keys, signatures and messages on the device."""
        return [array.address for array in self.device[:3]]


class DeviceVerifier:
    """Verifies batches on one device, from any thread, one batch at a time."""

    def __init__(self, device: Device, chunk: int = CHUNK_ROWS) -> None:
        """Take memory of the device, compile for it and judge the published vectors.

        chunk: signatures of one launch; see `memory_bytes`.
        Raises DeviceUnavailable for a device that refuses or has no room, VerdictDiffers if it
        judges one vector otherwise than the specification.
        """
        self.device_name = device.name
        self._device = device
        self._driver = device.driver
        self._lock = threading.Lock()
        self._chunk = chunk
        try:
            source, options = ed25519_source.source(), ed25519_source.options()
            self._kernel = self._driver.load_source(KERNEL, source, options)
            self._slots = [_Slot(device, chunk) for _ in range(SLOTS)]
            check(self)
        except DeviceFailed as error:
            raise DeviceUnavailable(
                f"the GPU cannot be used for signatures: {error}; they need"
                f" {memory_bytes(chunk)[1] >> 20} MiB of its memory; use the CPU"
            ) from error

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> NDArray[np.bool_]:
        """Judge each row by spec/signatures.md#verdict.

        public_keys: (n, 32), signatures: (n, 64), messages: (n, m) uint8 -> (n,) bool. Raises
        ValueError for other shapes, DeviceFailed where the device refuses: verify on the CPU then.
        """
        columns = (public_keys, signatures, messages)
        check_shapes(columns)
        rows = self.rows_max(messages.shape[1])
        out = np.zeros(len(public_keys), np.uint8)
        with self._lock:
            self._driver.enter()
            try:
                for turn, start in enumerate(range(0, len(out), rows)):
                    slot = self._slots[turn % SLOTS]
                    self._collect(slot, out)
                    self._start(slot, columns, range(start, min(start + rows, len(out))))
                for slot in self._slots:
                    self._collect(slot, out)
            finally:
                for slot in self._slots:
                    slot.rows = range(0)
        return out.view(np.bool_)

    def verify_resident(
        self, public_keys: int, signatures: int, messages: int, length: int, count: int
    ) -> NDArray[np.bool_]:
        """Judge `count` rows that are on the device, at these addresses, and stay there.

        Rows of 32, 64 and `length` bytes, complete before the call and at multiples of 16. Raises
        DeviceFailed.
        """
        out = np.zeros(count, np.uint8)
        with self._lock:
            self._driver.enter()
            try:
                for turn, start in enumerate(range(0, count, self._chunk)):
                    slot = self._slots[turn % SLOTS]
                    self._collect(slot, out)
                    rows = range(start, min(start + self._chunk, count))
                    places = (
                        public_keys + 32 * start,
                        signatures + 64 * start,
                        messages + length * start,
                    )
                    self._judge(slot, places, length, rows)
                for slot in self._slots:
                    self._collect(slot, out)
            finally:
                for slot in self._slots:
                    slot.rows = range(0)
        return out.view(np.bool_)

    def rows_max(self, length: int) -> int:
        """Return how many signatures over messages of `length` bytes one launch takes."""
        return chunk_rows(length, self._chunk)

    def kernel_ns(self, public_keys: U8, signatures: U8, messages: U8, repeat: int) -> list[int]:
        """Return how long the kernel alone takes for rows of one chunk, `repeat` times.

        Raises ValueError for more rows than one launch takes.
        """
        columns = (public_keys, signatures, messages)
        check_shapes(columns)
        count, length = messages.shape
        if count > self.rows_max(length):
            raise ValueError(f"{count} rows: one launch takes {self.rows_max(length)}")
        driver, answer = self._driver, []
        with self._lock:
            driver.enter()
            slot = self._slots[0]
            self._copy_in(slot, columns, range(count))
            for _ in range(repeat):
                first, last = (driver.new_event(is_timed=True) for _ in range(2))
                driver.record(first, slot.stream)
                self._launch(slot, slot.places, count, length)
                driver.record(last, slot.stream)
                driver.wait_event(last)
                answer.append(driver.elapsed_ns(first, last))
        return answer

    def close(self) -> None:
        """Give the memory back to the device and to the host."""
        with self._lock:
            for slot in self._slots:
                with contextlib.suppress(DeviceFailed):  # a device that is lost runs nothing
                    self._driver.wait(slot.stream)
            self._slots.clear()

    def _start(self, slot: _Slot, columns: tuple[U8, U8, U8], rows: range) -> None:
        """Send a chunk, its launch and the way back of its verdicts to the stream of a slot."""
        self._copy_in(slot, columns, rows)
        self._judge(slot, slot.places, columns[2].shape[1], rows)

    def _judge(self, slot: _Slot, places: Sequence[int], length: int, rows: range) -> None:
        """Send a launch over rows that are on the device, and the way back of its verdicts."""
        driver, verdicts = self._driver, slot.device[3].address
        driver.fill(verdicts, _NO_VERDICT, len(rows), slot.stream)
        with self._device.metered(KERNEL, len(rows), slot.stream):
            self._launch(slot, places, len(rows), length)
        with self._device.metered("copy_back", len(rows), slot.stream):
            driver.copy_out(slot.host[3].ctypes.data, verdicts, len(rows), slot.stream)
        slot.rows = rows

    def _copy_in(self, slot: _Slot, columns: tuple[U8, U8, U8], rows: range) -> None:
        for column, host, there in zip(columns, slot.host, slot.device, strict=False):
            part = column[rows.start : rows.stop]
            size = part.nbytes
            if size:
                host[:size].reshape(part.shape)[:] = part
                with self._device.metered("copy_in", size, slot.stream):
                    self._driver.copy_in(there.address, host.ctypes.data, size, slot.stream)

    def _launch(self, slot: _Slot, places: Sequence[int], count: int, length: int) -> None:
        """Launch on keys, signatures and messages at these addresses."""
        is_wide = int(length % _WIDE_BYTES == 0)
        words = (*places, length, is_wide, count, slot.tables.address, slot.device[3].address)
        blocks = -(-count // BLOCK_THREADS)
        self._driver.launch_source(self._kernel, blocks, BLOCK_THREADS, words, slot.stream)

    def _collect(self, slot: _Slot, out: U8) -> None:
        """Wait for the verdicts of a slot, if it has any to come."""
        self._driver.wait(slot.stream)
        verdicts = slot.host[3][: len(slot.rows)]
        if (verdicts > 1).any():
            raise DeviceFailed("signatures: a launch left rows without a verdict")
        out[slot.rows.start : slot.rows.stop] = verdicts
        slot.rows = range(0)


def check_shapes(columns: tuple[U8, U8, U8]) -> None:
    """Raise ValueError unless columns are (n, 32), (n, 64), (n, m) uint8."""
    count = len(columns[0])
    names = ("public_keys", "signatures", "messages")
    for name, array, width in zip(names, columns, (32, 64, None), strict=True):
        fits = array.ndim == 2 and len(array) == count and width in (None, array.shape[-1])
        if not fits or array.dtype != np.uint8:
            raise ValueError(
                f"{name} must be ({count}, {width or 'm'}) uint8, not {array.shape} {array.dtype}"
            )


def published_rows() -> tuple[U8, U8, U8]:
    """Return public keys, signatures and messages of the published vectors as columns."""
    texts = (
        [vector[0] for vector in VECTORS],
        [vector[1] + vector[2] for vector in VECTORS],
        [vector[3] for vector in VECTORS],
    )
    keys, signatures, messages = (
        np.frombuffer(bytes.fromhex("".join(text)), np.uint8).reshape(len(VECTORS), -1)
        for text in texts
    )
    return keys, signatures, messages


def check(verifier: Any) -> None:
    """Let a verifier judge the published vectors; raises VerdictDiffers at the first difference."""
    verdicts = verifier.verify(*published_rows()).tolist()
    for vector, verdict in zip(VECTORS, verdicts, strict=True):
        if verdict != vector[4]:
            raise VerdictDiffers(
                f"Ed25519 on {verifier.device_name}: signature {vector[1]}{vector[2]} by"
                f" {vector[0]} of {vector[3]} is {'valid' if vector[4] else 'not valid'}, but the"
                " device says otherwise; it must not be used: verify on the CPU, and report this"
                " device and its driver"
            )
