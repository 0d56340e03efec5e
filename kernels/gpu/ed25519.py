"""Ed25519 verification on a CUDA device: arrays of the host in, verdicts out.

Rows go through the device in chunks, in two slots in turn. Each slot has pinned memory, device
memory and a stream of its own, so that one chunk is copied while the other is verified. What a
verifier holds does not depend on what it is asked: see `memory_bytes`.

CuPy is imported when a verifier is made, never on a node without a device. Read `ed25519.cu` for
the kernel, `ed25519_source` for its text. Spec: spec/signatures.md#verdict
"""

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kernels.backend import DeviceUnavailable
from kernels.gpu import ed25519_source
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

FAILURES: Final = (RuntimeError, MemoryError)
"""What CuPy's kinds of errors are: of the driver, of the runtime, and of a device without room."""
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


def require_cupy() -> Any:
    """Return CuPy if it can use a device; raises DeviceUnavailable, which says what is missing."""
    try:
        cupy = importlib.import_module("cupy")
        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        raise DeviceUnavailable(
            f"no GPU: CuPy cannot be imported ({error}); type `make venv-gpu`, or use the CPU"
        ) from error
    except Exception as error:  # CuPy's own kinds, which can only be named after the import
        raise DeviceUnavailable(
            f"no GPU: CUDA answers {error}; check the driver with nvidia-smi, or use the CPU"
        ) from error
    if count == 0:
        raise DeviceUnavailable(
            "no GPU: CUDA lists none; check CUDA_VISIBLE_DEVICES, or use the CPU"
        )
    return cupy


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what the driver raises into DeviceFailed."""
    try:
        yield
    except FAILURES as error:
        raise DeviceFailed(f"{what}: {error}") from error


class _Slot:
    """Memory and stream of one chunk in flight, on the host and on the device."""

    def __init__(self, cupy: Any, rows: int) -> None:
        sizes = [rows * width for width in COLUMN_BYTES]
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.pinned = [cupy.cuda.alloc_pinned_memory(size) for size in sizes]
        self.host: list[NDArray[np.uint8]] = [
            np.frombuffer(memory, np.uint8, size)
            for memory, size in zip(self.pinned, sizes, strict=True)
        ]
        self.device = [cupy.empty(size, np.uint8) for size in sizes]
        self.tables = cupy.empty(rows * KEY_TABLE_BYTES, np.uint8)
        self.rows = range(0)
        """Rows whose verdicts are still to come."""


class DeviceVerifier:
    """Verifies batches on one device, from any thread, one batch at a time."""

    def __init__(self, device: int = 0, chunk: int = CHUNK_ROWS) -> None:
        """Take memory of the device, compile for it and judge the published vectors.

        chunk: signatures of one launch; see `memory_bytes`.
        Raises DeviceUnavailable without a device that can be used and has room, VerdictDiffers if
        it judges one vector otherwise than the specification.
        """
        self._cupy = require_cupy()
        self._lock = threading.Lock()
        self._chunk = chunk
        try:
            self._device = self._cupy.cuda.Device(device)
            with self._device:
                self._open(device)
        except FAILURES as error:
            raise DeviceUnavailable(
                f"the GPU cannot be used for signatures: {error}; they need"
                f" {memory_bytes(chunk)[1] >> 20} MiB of its memory; use the CPU"
            ) from error
        check(self)

    def _open(self, device: int) -> None:
        properties = self._cupy.cuda.runtime.getDeviceProperties(device)
        self.device_name = str(properties["name"].decode())
        module = self._cupy.RawModule(
            code=ed25519_source.source(), options=ed25519_source.options(), backend="nvrtc"
        )
        self._kernel = module.get_function("verify")
        self._slots = [_Slot(self._cupy, self._chunk) for _ in range(SLOTS)]

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> NDArray[np.bool_]:
        """Judge each row by spec/signatures.md#verdict.

        public_keys: (n, 32), signatures: (n, 64), messages: (n, m) uint8 -> (n,) bool. Raises
        ValueError for other shapes, DeviceFailed where the device refuses: verify on the CPU then.
        """
        columns = (public_keys, signatures, messages)
        check_shapes(columns)
        rows = chunk_rows(messages.shape[1], self._chunk)
        out = np.zeros(len(public_keys), np.uint8)
        with self._lock, refusals("signatures"), self._device:
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
        with self._lock, refusals("signatures"), self._device:
            try:
                for turn, start in enumerate(range(0, count, self._chunk)):
                    slot = self._slots[turn % SLOTS]
                    self._collect(slot, out)
                    rows = range(start, min(start + self._chunk, count))
                    places = (
                        np.uint64(public_keys + 32 * start),
                        np.uint64(signatures + 64 * start),
                        np.uint64(messages + length * start),
                    )
                    self._judge(slot, places, length, rows)
                for slot in self._slots:
                    self._collect(slot, out)
            finally:
                for slot in self._slots:
                    slot.rows = range(0)
        return out.view(np.bool_)

    def kernel_ns(self, public_keys: U8, signatures: U8, messages: U8, repeat: int) -> list[int]:
        """Return how long the kernel alone takes for rows of one chunk, `repeat` times.

        Raises ValueError for more rows than one launch takes.
        """
        columns = (public_keys, signatures, messages)
        check_shapes(columns)
        count, length = messages.shape
        if count > chunk_rows(length, self._chunk):
            raise ValueError(f"{count} rows: one launch takes {chunk_rows(length, self._chunk)}")
        event = self._cupy.cuda.Event
        answer = []
        with self._lock, refusals("signatures"), self._device:
            slot = self._slots[0]
            self._copy_in(slot, columns, range(count))
            for _ in range(repeat):
                first, last = event(), event()
                first.record(slot.stream)
                self._launch(slot, slot.device[:3], count, length)
                last.record(slot.stream)
                last.synchronize()
                elapsed_ms = self._cupy.cuda.get_elapsed_time(first, last)
                answer.append(round(elapsed_ms * 1_000_000))
        return answer

    def close(self) -> None:
        """Give the memory back to the device and to the host."""
        # A device that is gone has no memory to take back, and says so.
        with self._lock, contextlib.suppress(*FAILURES), self._device:
            self._slots.clear()
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _start(self, slot: _Slot, columns: tuple[U8, U8, U8], rows: range) -> None:
        """Send a chunk, its launch and the way back of its verdicts to the stream of a slot."""
        self._copy_in(slot, columns, rows)
        self._judge(slot, slot.device[:3], columns[2].shape[1], rows)

    def _judge(self, slot: _Slot, rows_there: Any, length: int, rows: range) -> None:
        """Send a launch over rows that are on the device, and the way back of its verdicts."""
        slot.device[3].data.memset_async(_NO_VERDICT, len(rows), slot.stream)
        self._launch(slot, rows_there, len(rows), length)
        slot.device[3].data.copy_to_host_async(slot.pinned[3].ptr, len(rows), slot.stream)
        slot.rows = rows

    def _copy_in(self, slot: _Slot, columns: tuple[U8, U8, U8], rows: range) -> None:
        for column, host, memory, device in zip(
            columns, slot.host, slot.pinned, slot.device, strict=False
        ):
            part = column[rows.start : rows.stop]
            if part.nbytes:
                host[: part.nbytes].reshape(part.shape)[:] = part
                device.data.copy_from_host_async(memory.ptr, part.nbytes, slot.stream)

    def _launch(self, slot: _Slot, rows_there: Any, count: int, length: int) -> None:
        """Launch on keys, signatures and messages: arrays of CuPy, or addresses as uint64."""
        arguments = (
            *rows_there,
            np.uint32(length),
            np.uint32(length % _WIDE_BYTES == 0),
            np.uint32(count),
            slot.tables,
            slot.device[3],
        )
        with slot.stream:
            self._kernel((-(-count // BLOCK_THREADS),), (BLOCK_THREADS,), arguments)

    def _collect(self, slot: _Slot, out: U8) -> None:
        """Wait for the verdicts of a slot, if it has any to come."""
        slot.stream.synchronize()
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
