"""The four streams: their heads, and reading one to its end within its bound.

A head comes first and alone; then come chunks. How the chunks look is in `chunks.py`.
Spec: spec/engine_api.md#streams.
"""

from collections.abc import Iterator

from engine_api import checks
from engine_api.chunks import Collector, decode_chunk, encode_chunks
from engine_api.codec import boot_id, broken_answer, parse
from engine_api.tos import engine_pb2 as pb
from engine_api.types import (
    BOOT_ID_BYTES,
    HASH_BYTES,
    HEADER_BYTES,
    PAYLOAD_BYTES_OFFSET,
    RECORD_BYTES,
    SUBMIT_RECORDS_MAX,
    Body,
    BuiltPayload,
    PayloadAnswer,
)

# What a client sends, read by the server.


def encode_new_payload(header: bytes, payload: bytes | memoryview | None) -> Iterator[bytes]:
    """Yield the messages of a NewPayload request."""
    source = pb.SOURCE_ALREADY_HELD if payload is None else pb.SOURCE_STREAM
    head = pb.NewPayloadHead(header=header, source=source)
    yield pb.NewPayloadPart(head=head).SerializeToString()
    if payload is not None:
        yield from encode_chunks(payload)


def read_new_payload_head(parts: Iterator[bytes]) -> tuple[bytes, bool]:
    """Return the header, of any length, and whether a stream follows; raises INVALID_ARGUMENT."""
    message = parse(pb.NewPayloadPart, _first(parts))
    if message.WhichOneof("part") != "head":
        raise checks.invalid_argument("a NewPayload stream begins with its head")
    if message.head.source not in (pb.SOURCE_STREAM, pb.SOURCE_ALREADY_HELD):
        raise checks.invalid_argument(f"source is {message.head.source}; it is 1 or 2")
    return message.head.header, message.head.source == pb.SOURCE_STREAM


def announced_bytes(header: bytes) -> int:
    """Return payload_bytes of a header; 0 where there is no header to read it from."""
    if len(header) != HEADER_BYTES:
        return 0
    return int.from_bytes(header[PAYLOAD_BYTES_OFFSET : PAYLOAD_BYTES_OFFSET + 8], "little")


def collect(parts: Iterator[bytes], expected_bytes: int) -> memoryview:
    """Return the payload of a stream, as far as it is wanted.

    Less than expected comes back as it is; a stream that goes on beyond is not read any further
    and comes back with the one chunk that was too much. Either is MALFORMED to the engine.
    """
    collector = Collector(expected_bytes)
    for part in parts:
        if not collector.take(decode_chunk(part)):
            break
    return collector.result()


def expect_end(parts: Iterator[bytes]) -> None:
    """Raise INVALID_ARGUMENT where a stream goes on."""
    for _ in parts:
        raise checks.invalid_argument("source is ALREADY_HELD, and yet chunks follow")


def encode_batch(batch: bytes | memoryview) -> Iterator[bytes]:
    """Yield the messages of a Submit request; the batch was checked."""
    head = pb.SubmitHead(record_count=len(batch) // RECORD_BYTES)
    yield pb.SubmitPart(head=head).SerializeToString()
    yield from encode_chunks(batch)


def collect_batch(parts: Iterator[bytes]) -> memoryview:
    """Return the records of a Submit request; raises INVALID_ARGUMENT."""
    message = parse(pb.SubmitPart, _first(parts))
    if message.WhichOneof("part") != "head":
        raise checks.invalid_argument("a Submit stream begins with its head")
    count = message.head.record_count
    checks.check_range("record_count", count, 1, SUBMIT_RECORDS_MAX)
    collector = Collector(count * RECORD_BYTES)
    for part in parts:
        if not collector.take(decode_chunk(part)):
            break
    if collector.received_bytes != count * RECORD_BYTES:
        raise checks.invalid_argument(
            f"{collector.received_bytes} bytes or more are not {count} records of {RECORD_BYTES}"
        )
    return collector.result()


def _first(parts: Iterator[bytes]) -> bytes:
    part = next(parts, None)
    if part is None:
        raise checks.invalid_argument("the stream is empty; it begins with its head")
    return part


# What a server sends, read by the client: whatever breaks the contract is INTERNAL.


def encode_payload_head(answer: PayloadAnswer) -> bytes:
    """Serialize the head of a GetPayload answer."""
    head = pb.PayloadAnswerHead(boot_id=answer.boot_id)
    if answer.built is not None:
        built = answer.built
        head.built.CopyFrom(
            pb.Built(
                payload_commitment=built.payload_commitment,
                payload_bytes=built.payload_bytes,
                transaction_count=built.transaction_count,
                transactions_root=built.transactions_root,
                state_hash=built.state_hash,
                receipts_hash=built.receipts_hash,
            )
        )
    return pb.PayloadAnswerPart(head=head).SerializeToString()


def read_payload_answer(parts: Iterator[bytes], payload_bytes_max: int) -> PayloadAnswer:
    """Return what GetPayload says; raises INTERNAL."""
    message = parse(pb.PayloadAnswerPart, _answer_first(parts), broken_answer)
    if message.WhichOneof("part") != "head":
        raise broken_answer("a GetPayload stream begins with its head")
    head = message.head
    _check_lengths(head, {"boot_id": BOOT_ID_BYTES})
    built = None
    if head.HasField("built"):
        names = ("payload_commitment", "transactions_root", "state_hash", "receipts_hash")
        _check_lengths(head.built, dict.fromkeys(names, HASH_BYTES))
        built = BuiltPayload(
            payload=_read_payload(parts, head.built.payload_bytes, payload_bytes_max),
            payload_commitment=head.built.payload_commitment,
            transaction_count=head.built.transaction_count,
            transactions_root=head.built.transactions_root,
            state_hash=head.built.state_hash,
            receipts_hash=head.built.receipts_hash,
        )
    if next(parts, None) is not None:
        raise broken_answer("bytes follow the end of the payload")
    return PayloadAnswer(boot_id=head.boot_id, built=built)


def encode_body_head(body: Body) -> bytes:
    """Serialize the head of one body; of one that is not found nothing else follows."""
    assert len(body.header) in (0, HEADER_BYTES)
    assert body.header or not len(body.payload)
    head = pb.BodyHead(boot_id=body.boot_id, header=body.header, payload_bytes=len(body.payload))
    return pb.BodyPart(head=head).SerializeToString()


def read_body(parts: Iterator[bytes], payload_bytes_max: int) -> Body:
    """Return the next body; raises INTERNAL."""
    message = parse(pb.BodyPart, _answer_first(parts), broken_answer)
    if message.WhichOneof("part") != "head":
        raise broken_answer("a body begins with its head")
    head = message.head
    if len(head.header) not in (0, HEADER_BYTES) or (not head.header and head.payload_bytes):
        raise broken_answer(
            f"a body with a header of {len(head.header)} and a payload of {head.payload_bytes} "
            "bytes"
        )
    payload = _read_payload(parts, head.payload_bytes, payload_bytes_max)
    return Body(boot_id=boot_id(head.boot_id), header=head.header, payload=payload)


def _read_payload(parts: Iterator[bytes], payload_bytes: int, payload_bytes_max: int) -> memoryview:
    """Return exactly the announced bytes; what follows them is left in the stream."""
    if payload_bytes > payload_bytes_max:
        raise broken_answer(f"a payload of {payload_bytes} bytes; at most {payload_bytes_max}")
    collector = Collector(payload_bytes)
    while collector.received_bytes < payload_bytes:
        part = next(parts, None)
        if part is None:
            raise broken_answer(
                f"{collector.received_bytes} of {payload_bytes} bytes of the payload came"
            )
        if not collector.take(decode_chunk(part, broken_answer)):
            raise broken_answer(f"more than {payload_bytes} bytes of a payload came")
    return collector.result()


def _answer_first(parts: Iterator[bytes]) -> bytes:
    part = next(parts, None)
    if part is None:
        raise broken_answer("the stream ended too early")
    return part


def _check_lengths(message: pb.PayloadAnswerHead | pb.Built, lengths: dict[str, int]) -> None:
    for name, expected in lengths.items():
        actual = len(getattr(message, name))
        if actual != expected:
            raise broken_answer(f"{name} has {actual} bytes; it has {expected}")
