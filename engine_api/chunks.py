"""Payload bytes in a stream: cut into chunks, put together again, and never more than announced.

Every stream is a head and then chunks. Each of its messages has the head as field 1 and the chunk
as field 2, so a message with a chunk is a tag, a length and the bytes. These three are written and
read here by hand: protobuf would copy every payload twice more. Spec: spec/engine_api.md#streams.
"""

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from engine_api.checks import invalid_argument
from engine_api.codec import Failure
from engine_api.tos import engine_pb2 as pb
from engine_api.types import CHUNK_BYTES_MAX, CONTROL_BYTES_MAX

CHUNK_TAG = b"\x12"
"""field 2, length-delimited"""
MESSAGE_BYTES_MAX = CHUNK_BYTES_MAX + CONTROL_BYTES_MAX
"""of any message; the rest is for the tag and the length, and for a sentence instead of a cut"""
LENGTH_BYTES_MAX = 4
"""of a length up to 2^28 - 1, far above MESSAGE_BYTES_MAX"""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_chunks(payload: bytes | memoryview) -> Iterator[bytes]:
    """Yield the messages that carry a payload, each with at most CHUNK_BYTES_MAX of it."""
    view = memoryview(payload).cast("B")
    for start in range(0, len(view), CHUNK_BYTES_MAX):
        chunk = view[start : start + CHUNK_BYTES_MAX]
        yield b"".join((CHUNK_TAG, _varint(len(chunk)), chunk))


def decode_chunk(data: bytes, failure: Failure = invalid_argument) -> memoryview:
    """Return the chunk in a message of a stream, not copied."""
    chunk = _plain_chunk(data)
    if chunk is None:
        chunk = _parsed_chunk(data, failure)
    if not 1 <= len(chunk) <= CHUNK_BYTES_MAX:
        raise failure(f"a chunk has {len(chunk)} bytes; it has 1 to {CHUNK_BYTES_MAX}")
    return chunk


def _plain_chunk(data: bytes) -> memoryview | None:
    """Return the chunk where the message is one field and nothing else."""
    if data[:1] != CHUNK_TAG:
        return None
    length = 0
    for index, byte in enumerate(data[1 : 1 + LENGTH_BYTES_MAX]):
        length |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            view = memoryview(data)[2 + index :]
            return view if len(view) == length else None
    return None


def _parsed_chunk(data: bytes, failure: Failure) -> memoryview:
    """Return the chunk of a message that another encoder wrote in another legal way."""
    try:
        # The chunk is field 2 of every stream's message, so any of them reads all of them.
        message = pb.SubmitPart.FromString(data)
    except DecodeError as error:
        raise failure(f"these {len(data)} bytes are no chunk: {error}") from error
    if message.WhichOneof("part") != "chunk":
        raise failure("after the head of a stream there are only chunks")
    return memoryview(message.chunk)


class Collector:
    """Puts the chunks of one payload together; owns the only copy of it."""

    __slots__ = ("_buffer", "_expected_bytes", "_extra", "_filled_bytes", "_view")

    def __init__(self, expected_bytes: int) -> None:
        """Expect so many bytes. The memory becomes real only as chunks arrive."""
        self._buffer = bytearray(expected_bytes)
        self._view = memoryview(self._buffer)
        self._expected_bytes = expected_bytes
        self._filled_bytes = 0
        self._extra: memoryview | None = None

    @property
    def is_over(self) -> bool:
        """Whether more came than was announced: nothing else is taken then."""
        return self._extra is not None

    @property
    def received_bytes(self) -> int:
        """How many bytes came, the one chunk included that was too much."""
        return self._filled_bytes + (len(self._extra) if self._extra is not None else 0)

    def take(self, chunk: memoryview) -> bool:
        """Keep a chunk; return False when it goes beyond what was announced."""
        assert not self.is_over, "a stream that is over is not read on"
        end = self._filled_bytes + len(chunk)
        if end > self._expected_bytes:
            self._extra = chunk
            return False
        self._view[self._filled_bytes : end] = chunk
        self._filled_bytes = end
        return True

    def result(self) -> memoryview:
        """Return what came, read-only: the announced length, or less, or one chunk more."""
        filled = self._view[: self._filled_bytes].toreadonly()
        if self._extra is None:
            return filled
        return memoryview(b"".join((filled, self._extra)))
