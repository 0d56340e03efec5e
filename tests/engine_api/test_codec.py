"""Messages: round trips, and foreign bytes of every kind."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_api import codec, streams
from engine_api.chunks import Collector, decode_chunk, encode_chunks
from engine_api.tos import engine_pb2 as pb
from engine_api.types import (
    CHUNK_BYTES_MAX,
    CONTROL_BYTES_MAX,
    SENTENCE_CHARACTERS_MAX,
    VALIDATORS_MAX,
    Attributes,
    BlockId,
    Body,
    BuiltPayload,
    EngineApiError,
    ErrorCode,
    ForkchoiceAnswer,
    ForkchoiceStatus,
    HealthAnswer,
    Limits,
    NewPayloadAnswer,
    PayloadAnswer,
    PayloadRequest,
    Retry,
    StatusAnswer,
    SubmitAnswer,
    Validator,
    ValidatorSetAnswer,
    Verdict,
    Versions,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
HASH = st.binary(min_size=32, max_size=32)
BOOT_ID = st.binary(min_size=16, max_size=16)
TEXT = st.text(max_size=40)
BLOCK_ID = st.builds(BlockId, height=U64, hash=HASH)
VERSIONS = st.builds(Versions, api=U32, header=U32, payload=U32, state=U32, software=TEXT)
REQUEST = st.builds(
    PayloadRequest,
    parent_hash=HASH,
    height=st.integers(1, 2**64 - 1),
    limits=st.builds(Limits, bytes=U64, transactions=U64, objects=U64),
    attributes=st.builds(Attributes, timestamp_ms=U64, fee_recipient=HASH),
    wait_ms=U32,
)
STATUS = st.builds(
    StatusAnswer,
    boot_id=BOOT_ID,
    genesis_hash=HASH,
    params_hash=HASH,
    finalized=BLOCK_ID,
    head=BLOCK_ID,
    unfinalized=st.lists(BLOCK_ID, max_size=16).map(tuple),
    versions=VERSIONS,
)
VERDICTS = st.one_of(
    st.builds(
        NewPayloadAnswer,
        boot_id=BOOT_ID,
        verdict=st.sampled_from([Verdict.VALID, Verdict.SYNCING, Verdict.MALFORMED]),
        detail=TEXT,
    ),
    st.builds(
        NewPayloadAnswer,
        boot_id=BOOT_ID,
        verdict=st.just(Verdict.INVALID),
        reason=st.integers(1, 2**32 - 1),
        latest_valid_hash=HASH,
        detail=TEXT,
    ),
)
VALIDATORS = st.dictionaries(HASH, st.integers(1, 2**63 - 1), min_size=1, max_size=8).map(
    lambda powers: tuple(Validator(key=key, power=powers[key]) for key in sorted(powers))
)


@given(REQUEST)
def test_payload_requests_come_back(request: PayloadRequest) -> None:
    """Encoding and decoding are inverses."""
    assert codec.decode_payload_request(codec.encode_payload_request(request)) == request


@given(STATUS, VERDICTS, BOOT_ID, st.sampled_from(ForkchoiceStatus))
def test_answers_come_back(
    status: StatusAnswer, verdict: NewPayloadAnswer, boot_id: bytes, choice: ForkchoiceStatus
) -> None:
    """The same for the answers about blocks."""
    assert codec.decode_status(codec.encode_status(status)) == status
    assert codec.decode_new_payload(codec.encode_new_payload(verdict)) == verdict
    answer = ForkchoiceAnswer(boot_id=boot_id, status=choice)
    assert codec.decode_forkchoice(codec.encode_forkchoice(answer)) == answer


@given(BOOT_ID, VALIDATORS, HASH, U64, TEXT, st.lists(st.integers(1, 3), max_size=50))
def test_other_answers_come_back(
    boot_id: bytes,
    validators: tuple[Validator, ...],
    set_id: bytes,
    number: int,
    text: str,
    results: list[int],
) -> None:
    """The same for validators, health and submitted records."""
    answer = ValidatorSetAnswer(
        boot_id=boot_id, epoch=number, validators=validators, validator_set_id=set_id
    )
    assert codec.decode_validator_set(codec.encode_validator_set(answer)) == answer
    health = HealthAnswer(
        boot_id=boot_id, not_serving=text, finalized_height=number, free_disk_bytes=number
    )
    assert codec.decode_health(codec.encode_health(health)) == health
    submitted = SubmitAnswer(boot_id=boot_id, results=bytes(results))
    assert codec.decode_submit(codec.encode_submit(submitted), len(results)) == submitted


@given(HASH, HASH, HASH, st.lists(HASH, min_size=1, max_size=64), st.integers(1, 64), U64)
def test_requests_come_back(
    head: bytes, safe: bytes, final: bytes, hashes: list[bytes], count: int, epoch: int
) -> None:
    """The same for the small requests."""
    encoded = codec.encode_forkchoice_request(head, safe, final)
    assert codec.decode_forkchoice_request(encoded) == (head, safe, final)
    assert codec.decode_hashes(codec.encode_hashes(hashes)) == hashes
    assert codec.decode_heights(codec.encode_heights(epoch // 2 + 1, count)) == (
        epoch // 2 + 1,
        count,
    )
    assert codec.decode_epoch(codec.encode_epoch(epoch)) == epoch


@given(st.sampled_from(ErrorCode), TEXT, BOOT_ID)
def test_errors_come_back(code: ErrorCode, sentence: str, boot_id: bytes) -> None:
    """Code, sentence and boot id travel; whether to retry follows from the code."""
    error = codec.decode_error(codec.encode_error(EngineApiError(code, sentence, boot_id=boot_id)))
    assert error is not None
    assert (error.code, error.sentence, error.boot_id) == (code, sentence, boot_id)
    assert error.retry is code.retry


def test_an_error_is_cut_and_always_encodable() -> None:
    """A sentence from anywhere, however long, fits into metadata."""
    error = EngineApiError(ErrorCode.INTERNAL, "\udcff" * 10_000)
    assert len(error.sentence) == SENTENCE_CHARACTERS_MAX
    assert codec.decode_error(codec.encode_error(error)) is not None
    assert codec.decode_error(b"\xff" * 10) is None
    assert codec.decode_error(pb.Error().SerializeToString()) is None
    assert EngineApiError(ErrorCode.PAYLOAD_NOT_HELD, "").retry is Retry.WITH_STREAM


REQUEST_DECODERS: tuple[Callable[[bytes], Any], ...] = (
    codec.decode_payload_request,
    codec.decode_forkchoice_request,
    codec.decode_hashes,
    codec.decode_heights,
    codec.decode_epoch,
    lambda data: decode_chunk(data),
    lambda data: streams.read_new_payload_head(iter([data])),
    lambda data: streams.collect_batch(iter([data, data])),
)
ANSWER_DECODERS: tuple[Callable[[bytes], Any], ...] = (
    codec.decode_status,
    codec.decode_new_payload,
    codec.decode_forkchoice,
    codec.decode_validator_set,
    codec.decode_health,
    lambda data: codec.decode_submit(data, 1),
    lambda data: streams.read_payload_answer(iter([data, data]), 2**20),
    lambda data: streams.read_body(iter([data, data]), 2**20),
)


def spoiled(data: bytes, at: int, value: int, cut: int) -> bytes:
    """Return bytes with one of them changed and the end cut off."""
    if not data:
        return bytes([value])
    changed = bytearray(data)
    changed[at % len(data)] = value
    return bytes(changed[: len(data) - cut % len(data)])


@given(
    st.binary(max_size=300), REQUEST, st.integers(0, 300), st.integers(0, 255), st.integers(0, 9)
)
def test_foreign_requests_are_explained(
    noise: bytes, request: PayloadRequest, at: int, value: int, cut: int
) -> None:
    """Whatever a client sends is understood, or refused by one of two codes."""
    for data in (noise, spoiled(codec.encode_payload_request(request), at, value, cut)):
        for decode in REQUEST_DECODERS:
            code = outcome(partial(decode, data))
            assert code in (None, ErrorCode.INVALID_ARGUMENT, ErrorCode.UNSUPPORTED)


@given(st.binary(max_size=300), STATUS, st.integers(0, 300), st.integers(0, 255), st.integers(0, 9))
def test_foreign_answers_are_internal(
    noise: bytes, status: StatusAnswer, at: int, value: int, cut: int
) -> None:
    """Whatever an executor answers is understood, or INTERNAL."""
    for data in (noise, spoiled(codec.encode_status(status), at, value, cut)):
        for decode in ANSWER_DECODERS:
            assert outcome(partial(decode, data)) in (None, ErrorCode.INTERNAL)


def payload_request(**attributes: object) -> pb.PayloadRequest:
    """Return a legal request as a message, with other attributes."""
    message = pb.PayloadRequest(parent_hash=bytes(32), height=1)
    message.limits.bytes = 1
    message.attributes.fee_recipient = bytes(32)
    for name, value in attributes.items():
        setattr(message.attributes, name, value)
    return message


def outcome(call: Callable[[], object]) -> ErrorCode | None:
    """Return the code of the error that a call raises, or None where it raises none."""
    try:
        call()
    except EngineApiError as error:
        return error.code
    return None


def code_of(call: Callable[[], object]) -> ErrorCode:
    """Return the code of the error that a call raises."""
    with pytest.raises(EngineApiError) as caught:
        call()
    return caught.value.code


def test_what_is_unknown_in_attributes_or_limits_is_unsupported() -> None:
    """A field that would change the payload is refused, also one without a name here."""
    good = payload_request()
    codec.decode_payload_request(good.SerializeToString())
    system = payload_request(system=b"\x01")
    unknown = payload_request()
    unknown.attributes.MergeFromString(b"\xa0\x06\x01")  # field 100, 1
    limits = payload_request()
    limits.limits.MergeFromString(b"\xa2\x06\x00")  # field 100, empty bytes
    for message in (system, unknown, limits):
        data = message.SerializeToString()
        assert code_of(partial(codec.decode_payload_request, data)) is (ErrorCode.UNSUPPORTED)
    outside = good.SerializeToString() + b"\xa0\x06\x01"
    assert codec.decode_payload_request(outside) == codec.decode_payload_request(
        good.SerializeToString()
    )


def test_missing_parts_are_invalid_arguments() -> None:
    """A field that is absent has a wrong length; attributes and limits must be there."""
    for name in ("parent_hash", "height", "limits", "attributes"):
        message = payload_request()
        message.ClearField(name)
        data = message.SerializeToString()
        assert code_of(partial(codec.decode_payload_request, data)) is (ErrorCode.INVALID_ARGUMENT)


def test_a_control_message_is_bounded() -> None:
    """64 KiB, also where the rest would be ignored."""
    fits = codec.encode_epoch(1) + b"\xa2\x06" + b"\xf4\xff\x03" + bytes(65_524)
    assert len(fits) <= CONTROL_BYTES_MAX
    assert codec.decode_epoch(fits) == 1
    assert code_of(lambda: codec.decode_epoch(fits + fits)) is ErrorCode.INVALID_ARGUMENT


def test_an_answer_says_one_thing() -> None:
    """A verdict with what belongs to another one is no answer."""
    boot_id, name = bytes(16), bytes(32)
    for message in (
        pb.NewPayloadAnswer(boot_id=boot_id, verdict="VERDICT_VALID", reason=1),
        pb.NewPayloadAnswer(boot_id=boot_id, verdict="VERDICT_VALID", latest_valid_hash=name),
        pb.NewPayloadAnswer(boot_id=boot_id, verdict="VERDICT_INVALID", reason=1),
        pb.NewPayloadAnswer(boot_id=boot_id, verdict="VERDICT_INVALID", latest_valid_hash=name),
        pb.NewPayloadAnswer(boot_id=boot_id),
        pb.NewPayloadAnswer(verdict="VERDICT_VALID"),
    ):
        data = message.SerializeToString()
        assert code_of(partial(codec.decode_new_payload, data)) is ErrorCode.INTERNAL


def test_a_validator_set_has_one_order_and_only_members() -> None:
    """Keys that do not ascend, a member without power, none, or too many: no answer."""
    one, other = (pb.Validator(key=bytes([n]) * 32, power=1) for n in (1, 2))
    idle = pb.Validator(key=bytes([3]) * 32)
    crowd = [pb.Validator(key=n.to_bytes(32, "big"), power=1) for n in range(VALIDATORS_MAX + 1)]
    for validators, is_good in (
        ([one], True), ([one, other], True), (crowd[1:], True),
        ([other, one], False), ([one, one], False), ([one, idle], False), ([], False),
        (crowd, False),
    ):  # fmt: skip
        message = pb.ValidatorSetAnswer(
            boot_id=bytes(16), validators=validators, validator_set_id=bytes(32)
        )
        decode = partial(codec.decode_validator_set, message.SerializeToString())
        if is_good:
            assert len(decode().validators) == len(validators)
        else:
            assert code_of(decode) is ErrorCode.INTERNAL


# Streams


@given(st.integers(0, 3 * CHUNK_BYTES_MAX))
def test_chunks_carry_every_length(length: int) -> None:
    """A payload of any length comes back, and protobuf reads the messages as we wrote them."""
    payload = bytes(range(251)) * (length // 251 + 1)
    payload = payload[:length]
    messages = list(encode_chunks(payload))
    assert len(messages) == -(-length // CHUNK_BYTES_MAX)
    for message in messages:
        assert pb.NewPayloadPart.FromString(message).chunk == bytes(decode_chunk(message))
    collected = streams.collect(iter(messages), length)
    assert collected == payload
    assert collected.readonly


def test_chunks_in_other_legal_encodings_are_read() -> None:
    """A longer length, an unknown field beside it, the chunk twice: as protobuf reads them."""
    for message in (
        b"\x12\x81\x00X",
        b"\x12\x81\x80\x80\x80\x00X",
        b"\xa0\x06\x01\x12\x01X",
        b"\x12\x01Y\x12\x01X",
    ):
        assert bytes(decode_chunk(message)) == b"X"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x12",
        b"\x12\x00",
        b"\x12\x02X",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01X",
        b"\x0a\x00",
        pb.SubmitPart(chunk=bytes(CHUNK_BYTES_MAX + 1)).SerializeToString(),
    ],
)
def test_what_is_no_chunk_is_refused(message: bytes) -> None:
    """Empty, cut, too long, or a second head."""
    assert code_of(lambda: decode_chunk(message)) is ErrorCode.INVALID_ARGUMENT


def test_a_stream_that_goes_on_is_not_read() -> None:
    """One chunk beyond what was announced is the last one that is taken."""
    taken = 0

    def messages() -> Any:
        nonlocal taken
        for message in encode_chunks(bytes(10 * CHUNK_BYTES_MAX)):
            taken += 1
            yield message

    payload = streams.collect(messages(), CHUNK_BYTES_MAX + 1)
    assert taken == 2
    assert len(payload) == 2 * CHUNK_BYTES_MAX
    assert len(streams.collect(iter([b"\x12\x01X"]), 5)) == 1


def test_a_collector_owns_what_it_returns() -> None:
    """The chunk's memory is not kept; the result cannot be written."""
    chunk = bytearray(b"abc")
    collector = Collector(3)
    assert collector.take(memoryview(chunk))
    chunk[:] = b"xyz"
    assert bytes(collector.result()) == b"abc"
    assert collector.received_bytes == 3


@given(BOOT_ID, HASH, st.binary(max_size=600), U64)
def test_heads_come_back(boot_id: bytes, name: bytes, payload: bytes, number: int) -> None:
    """A built payload and a body are what they were, and nothing may follow them."""
    built = BuiltPayload(
        payload=payload,
        payload_commitment=name,
        transaction_count=number,
        transactions_root=name,
        state_hash=name,
        receipts_hash=name,
    )
    for answer in (
        PayloadAnswer(boot_id=boot_id, built=built),
        PayloadAnswer(boot_id=boot_id, built=None),
    ):
        parts = [streams.encode_payload_head(answer)]
        if answer.built:
            parts += encode_chunks(payload)
        assert streams.read_payload_answer(iter(parts), 600) == answer
        for wrong in ([*parts, b"\x12\x01X"], parts[1:], []):
            assert code_of(partial(streams.read_payload_answer, iter(wrong), 600)) is (
                ErrorCode.INTERNAL
            )
    body = Body(boot_id=boot_id, header=bytes(400), payload=payload)
    parts = [streams.encode_body_head(body), *encode_chunks(payload)]
    assert streams.read_body(iter(parts), 600) == body
    if payload:
        assert code_of(lambda: streams.read_body(iter(parts), len(payload) - 1)) is (
            ErrorCode.INTERNAL
        )


def test_new_payload_heads_come_back() -> None:
    """Header and source; a source without a meaning is refused."""
    for payload in (b"abc", b"", None):
        parts = streams.encode_new_payload(b"h" * 400, payload)
        assert streams.read_new_payload_head(parts) == (b"h" * 400, payload is not None)
        assert len(list(parts)) == (1 if payload else 0)
    for head in (pb.NewPayloadHead(), pb.NewPayloadHead(source=7)):  # type: ignore[arg-type]  # no such source
        data = pb.NewPayloadPart(head=head).SerializeToString()
        assert code_of(partial(streams.read_new_payload_head, iter([data]))) is (
            ErrorCode.INVALID_ARGUMENT
        )
