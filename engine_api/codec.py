"""Contract values to protobuf and back: one pair of functions per message, both strict.

`decode_*` takes serialized bytes from the other side. What a client may have sent is judged as
INVALID_ARGUMENT or UNSUPPORTED; an answer of an executor that breaks the contract is INTERNAL. What
is neither (a field twice, unknown fields outside attributes and limits) means what protobuf says.
Payload bytes are in `chunks.py`. Spec: spec/engine_api.md.
"""

from collections.abc import Callable
from enum import IntEnum
from itertools import pairwise
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from engine_api import checks
from engine_api.tos import engine_pb2 as pb
from engine_api.types import (
    BOOT_ID_BYTES,
    CONTROL_BYTES_MAX,
    HASH_BYTES,
    SENTENCE_CHARACTERS_MAX,
    UNFINALIZED_MAX,
    VALIDATORS_MAX,
    Attributes,
    BlockId,
    EngineApiError,
    ErrorCode,
    ForkchoiceAnswer,
    ForkchoiceStatus,
    HealthAnswer,
    Limits,
    NewPayloadAnswer,
    PayloadRequest,
    StatusAnswer,
    SubmitAnswer,
    SubmitResult,
    Validator,
    ValidatorSetAnswer,
    Verdict,
    Versions,
)

M = TypeVar("M", bound=Message)
N = TypeVar("N", bound=IntEnum)
Failure = Callable[[str], EngineApiError]


def broken_answer(sentence: str) -> EngineApiError:
    """Return the error of an executor that answers outside the contract."""
    return EngineApiError(ErrorCode.INTERNAL, f"the executor's answer is not usable: {sentence}")


def parse(kind: type[M], data: bytes, failure: Failure = checks.invalid_argument) -> M:
    """Return the message in at most CONTROL_BYTES_MAX bytes."""
    name = kind.DESCRIPTOR.name
    if len(data) > CONTROL_BYTES_MAX:
        raise failure(f"{name} has {len(data)} bytes; a message without payload has at most 65536")
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise failure(f"these {len(data)} bytes are no {name}: {error}") from error
    return message


def _answer(kind: type[M], data: bytes) -> M:
    return parse(kind, data, broken_answer)


def _length(name: str, value: bytes, expected: int = HASH_BYTES) -> bytes:
    if len(value) != expected:
        raise broken_answer(f"{name} has {len(value)} bytes; it has {expected}")
    return value


def boot_id(value: bytes) -> bytes:
    """Return the boot id of an answer, or raise INTERNAL."""
    return _length("boot_id", value, BOOT_ID_BYTES)


def _number(kind: type[N], value: int) -> N:
    try:
        return kind(value)
    except ValueError as error:
        raise broken_answer(f"{value} is no {kind.__name__}") from error


# GetStatus


def _encode_block_id(value: BlockId) -> pb.BlockId:
    return pb.BlockId(height=value.height, hash=value.hash)


def _decode_block_id(name: str, message: pb.BlockId) -> BlockId:
    return BlockId(height=message.height, hash=_length(name, message.hash))


def encode_status(answer: StatusAnswer) -> bytes:
    """Serialize a StatusAnswer."""
    assert len(answer.unfinalized) <= UNFINALIZED_MAX
    versions = answer.versions
    return pb.StatusAnswer(
        boot_id=answer.boot_id,
        genesis_hash=answer.genesis_hash,
        params_hash=answer.params_hash,
        finalized=_encode_block_id(answer.finalized),
        head=_encode_block_id(answer.head),
        unfinalized=[_encode_block_id(block) for block in answer.unfinalized],
        versions=pb.Versions(
            api=versions.api,
            header=versions.header,
            payload=versions.payload,
            state=versions.state,
            software=versions.software,
        ),
    ).SerializeToString()


def decode_status(data: bytes) -> StatusAnswer:
    """Return the StatusAnswer; raises INTERNAL."""
    message = _answer(pb.StatusAnswer, data)
    if len(message.unfinalized) > UNFINALIZED_MAX:
        raise broken_answer(f"{len(message.unfinalized)} unfinalized blocks are too many")
    versions = message.versions
    return StatusAnswer(
        boot_id=boot_id(message.boot_id),
        genesis_hash=_length("genesis_hash", message.genesis_hash),
        params_hash=_length("params_hash", message.params_hash),
        finalized=_decode_block_id("finalized.hash", message.finalized),
        head=_decode_block_id("head.hash", message.head),
        unfinalized=tuple(
            _decode_block_id("unfinalized.hash", block) for block in message.unfinalized
        ),
        versions=Versions(
            api=versions.api,
            header=versions.header,
            payload=versions.payload,
            state=versions.state,
            software=versions.software,
        ),
    )


# GetPayload


def encode_payload_request(request: PayloadRequest) -> bytes:
    """Serialize a PayloadRequest; raises INVALID_ARGUMENT where a number does not fit."""
    checks.check_payload_request(request)
    limits, attributes = request.limits, request.attributes
    return pb.PayloadRequest(
        parent_hash=request.parent_hash,
        height=request.height,
        limits=pb.Limits(
            bytes=limits.bytes, transactions=limits.transactions, objects=limits.objects
        ),
        attributes=pb.Attributes(
            timestamp_ms=attributes.timestamp_ms, fee_recipient=attributes.fee_recipient
        ),
        wait_ms=request.wait_ms,
    ).SerializeToString()


def decode_payload_request(data: bytes) -> PayloadRequest:
    """Return the PayloadRequest; raises INVALID_ARGUMENT, UNSUPPORTED.

    A field of limits or attributes that this version does not know would change what is built, so
    it is refused and never ignored.
    """
    message = parse(pb.PayloadRequest, data)
    for name in ("limits", "attributes"):
        if not message.HasField(name):
            raise checks.invalid_argument(f"{name} is missing")
        unknown = UnknownFieldSet(getattr(message, name))
        if len(unknown):
            raise EngineApiError(
                ErrorCode.UNSUPPORTED,
                f"{name} has the field {unknown[0].field_number}, unknown to API version 1",
            )
    if message.attributes.system:
        raise EngineApiError(
            ErrorCode.UNSUPPORTED,
            f"attributes.system has {len(message.attributes.system)} bytes; in API version 1 it "
            "is empty",
        )
    request = PayloadRequest(
        parent_hash=message.parent_hash,
        height=message.height,
        limits=Limits(
            bytes=message.limits.bytes,
            transactions=message.limits.transactions,
            objects=message.limits.objects,
        ),
        attributes=Attributes(
            timestamp_ms=message.attributes.timestamp_ms,
            fee_recipient=message.attributes.fee_recipient,
        ),
        wait_ms=message.wait_ms,
    )
    checks.check_payload_request(request)
    return request


# NewPayload, ForkchoiceUpdated


def encode_new_payload(answer: NewPayloadAnswer) -> bytes:
    """Serialize a NewPayloadAnswer."""
    invalid = answer.verdict is Verdict.INVALID
    assert (answer.reason != 0) is invalid, answer
    assert len(answer.latest_valid_hash) == (HASH_BYTES if invalid else 0), answer
    return pb.NewPayloadAnswer(
        boot_id=answer.boot_id,
        verdict=f"VERDICT_{answer.verdict.name}",
        reason=answer.reason,
        latest_valid_hash=answer.latest_valid_hash,
        detail=answer.detail[:SENTENCE_CHARACTERS_MAX],
    ).SerializeToString()


def decode_new_payload(data: bytes) -> NewPayloadAnswer:
    """Return the NewPayloadAnswer; raises INTERNAL.

    VALID with a reason or INVALID without one says two things at once and is no answer.
    """
    message = _answer(pb.NewPayloadAnswer, data)
    verdict = _number(Verdict, message.verdict)
    if (message.reason != 0) is not (verdict is Verdict.INVALID):
        raise broken_answer(f"{verdict.name} with reason {message.reason}")
    _length(
        "latest_valid_hash",
        message.latest_valid_hash,
        HASH_BYTES if verdict is Verdict.INVALID else 0,
    )
    return NewPayloadAnswer(
        boot_id=boot_id(message.boot_id),
        verdict=verdict,
        reason=message.reason,
        latest_valid_hash=message.latest_valid_hash,
        detail=message.detail[:SENTENCE_CHARACTERS_MAX],
    )


def encode_forkchoice_request(head: bytes, safe: bytes, finalized: bytes) -> bytes:
    """Serialize a ForkchoiceRequest; raises INVALID_ARGUMENT."""
    checks.check_forkchoice(head, safe, finalized)
    return pb.ForkchoiceRequest(head=head, safe=safe, finalized=finalized).SerializeToString()


def decode_forkchoice_request(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return head, safe, finalized; raises INVALID_ARGUMENT."""
    message = parse(pb.ForkchoiceRequest, data)
    checks.check_forkchoice(message.head, message.safe, message.finalized)
    return message.head, message.safe, message.finalized


def encode_forkchoice(answer: ForkchoiceAnswer) -> bytes:
    """Serialize a ForkchoiceAnswer."""
    return pb.ForkchoiceAnswer(
        boot_id=answer.boot_id, status=f"FORKCHOICE_STATUS_{answer.status.name}"
    ).SerializeToString()


def decode_forkchoice(data: bytes) -> ForkchoiceAnswer:
    """Return the ForkchoiceAnswer; raises INTERNAL."""
    message = _answer(pb.ForkchoiceAnswer, data)
    return ForkchoiceAnswer(
        boot_id=boot_id(message.boot_id), status=_number(ForkchoiceStatus, message.status)
    )


# Bodies


def encode_hashes(hashes: list[bytes]) -> bytes:
    """Serialize a BodiesByHashRequest; raises INVALID_ARGUMENT."""
    checks.check_hashes(hashes)
    return pb.BodiesByHashRequest(hashes=hashes).SerializeToString()


def decode_hashes(data: bytes) -> list[bytes]:
    """Return the hashes; raises INVALID_ARGUMENT."""
    hashes = list(parse(pb.BodiesByHashRequest, data).hashes)
    checks.check_hashes(hashes)
    return hashes


def encode_heights(first_height: int, count: int) -> bytes:
    """Serialize a BodiesByRangeRequest; raises INVALID_ARGUMENT."""
    checks.check_heights(first_height, count)
    return pb.BodiesByRangeRequest(first_height=first_height, count=count).SerializeToString()


def decode_heights(data: bytes) -> tuple[int, int]:
    """Return the first height and the count; raises INVALID_ARGUMENT."""
    message = parse(pb.BodiesByRangeRequest, data)
    checks.check_heights(message.first_height, message.count)
    return message.first_height, message.count


# GetValidatorSet, Health, Submit


def encode_epoch(epoch: int) -> bytes:
    """Serialize a ValidatorSetRequest; raises INVALID_ARGUMENT."""
    checks.check_range("epoch", epoch, 0, checks.U64_MAX)
    return pb.ValidatorSetRequest(epoch=epoch).SerializeToString()


def decode_epoch(data: bytes) -> int:
    """Return the epoch; raises INVALID_ARGUMENT."""
    return parse(pb.ValidatorSetRequest, data).epoch


def encode_validator_set(answer: ValidatorSetAnswer) -> bytes:
    """Serialize a ValidatorSetAnswer."""
    return pb.ValidatorSetAnswer(
        boot_id=answer.boot_id,
        epoch=answer.epoch,
        validators=[pb.Validator(key=one.key, power=one.power) for one in answer.validators],
        validator_set_id=answer.validator_set_id,
    ).SerializeToString()


def decode_validator_set(data: bytes) -> ValidatorSetAnswer:
    """Return the ValidatorSetAnswer; raises INTERNAL, also where keys do not ascend."""
    message = _answer(pb.ValidatorSetAnswer, data)
    validators = tuple(
        Validator(key=_length("key", one.key), power=one.power) for one in message.validators
    )
    keys = [one.key for one in validators]
    if not 1 <= len(keys) <= VALIDATORS_MAX or any(a >= b for a, b in pairwise(keys)):
        raise broken_answer(f"{len(keys)} validators, or not in ascending order of keys")
    if any(one.power == 0 for one in validators):
        raise broken_answer("a validator without power")
    return ValidatorSetAnswer(
        boot_id=boot_id(message.boot_id),
        epoch=message.epoch,
        validators=validators,
        validator_set_id=_length("validator_set_id", message.validator_set_id),
    )


def encode_health(answer: HealthAnswer) -> bytes:
    """Serialize a HealthAnswer."""
    return pb.HealthAnswer(
        boot_id=answer.boot_id,
        not_serving=answer.not_serving[:SENTENCE_CHARACTERS_MAX],
        finalized_height=answer.finalized_height,
        free_disk_bytes=answer.free_disk_bytes,
    ).SerializeToString()


def decode_health(data: bytes) -> HealthAnswer:
    """Return the HealthAnswer; raises INTERNAL."""
    message = _answer(pb.HealthAnswer, data)
    return HealthAnswer(
        boot_id=boot_id(message.boot_id),
        not_serving=message.not_serving[:SENTENCE_CHARACTERS_MAX],
        finalized_height=message.finalized_height,
        free_disk_bytes=message.free_disk_bytes,
    )


def encode_submit(answer: SubmitAnswer) -> bytes:
    """Serialize a SubmitAnswer."""
    return pb.SubmitAnswer(boot_id=answer.boot_id, results=answer.results).SerializeToString()


def decode_submit(data: bytes, record_count: int) -> SubmitAnswer:
    """Return the SubmitAnswer about so many records; raises INTERNAL."""
    message = _answer(pb.SubmitAnswer, data)
    _length("results", message.results, record_count)
    for number in sorted(set(message.results)):
        _number(SubmitResult, number)
    return SubmitAnswer(boot_id=boot_id(message.boot_id), results=message.results)


# Errors


def encode_error(error: EngineApiError) -> bytes:
    """Serialize an error for the trailing metadata."""
    return pb.Error(
        code=f"ERROR_CODE_{error.code.name}", sentence=error.sentence, boot_id=error.boot_id
    ).SerializeToString()


def decode_error(data: bytes) -> EngineApiError | None:
    """Return the error in trailing metadata, or None where the bytes are none that we know."""
    try:
        message = pb.Error.FromString(data)
        code = ErrorCode(message.code)
    except (DecodeError, ValueError):
        return None
    return EngineApiError(code, message.sentence, boot_id=message.boot_id)
