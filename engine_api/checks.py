"""Lengths and ranges of a call's arguments: what is wrong is INVALID_ARGUMENT, with its name.

An engine calls these first, so that a caller in its own process is told what one at a socket is
told. Spec: spec/engine_api.md#errors.
"""

from collections.abc import Sequence

from engine_api.types import (
    BODIES_MAX,
    HASH_BYTES,
    RECORD_BYTES,
    SUBMIT_RECORDS_MAX,
    EngineApiError,
    ErrorCode,
    PayloadRequest,
)

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1


def invalid_argument(sentence: str) -> EngineApiError:
    """Return the error of an argument with a wrong length or range."""
    return EngineApiError(ErrorCode.INVALID_ARGUMENT, sentence)


def check_length(name: str, value: bytes, expected: int = HASH_BYTES) -> None:
    """Raise unless a field has its one legal length."""
    if len(value) != expected:
        raise invalid_argument(f"{name} has {len(value)} bytes; it has {expected}")


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise unless low <= value <= high."""
    if not low <= value <= high:
        raise invalid_argument(f"{name} is {value}; it is {low} to {high}")


def check_payload_request(request: PayloadRequest) -> None:
    """Raise unless lengths and widths are right; what the chain allows is not looked at."""
    check_length("parent_hash", request.parent_hash)
    check_length("attributes.fee_recipient", request.attributes.fee_recipient)
    check_range("height", request.height, 1, U64_MAX)
    check_range("wait_ms", request.wait_ms, 0, U32_MAX)
    check_range("attributes.timestamp_ms", request.attributes.timestamp_ms, 0, U64_MAX)
    for name in ("bytes", "transactions", "objects"):
        check_range(f"limits.{name}", getattr(request.limits, name), 0, U64_MAX)


def check_forkchoice(head: bytes, safe: bytes, finalized: bytes) -> None:
    """Raise unless the three are hashes."""
    check_length("head", head)
    check_length("safe", safe)
    check_length("finalized", finalized)


def check_hashes(hashes: Sequence[bytes]) -> None:
    """Raise unless these are 1 to BODIES_MAX hashes."""
    check_range("the count of hashes", len(hashes), 1, BODIES_MAX)
    for index, value in enumerate(hashes):
        check_length(f"hashes[{index}]", value)


def check_heights(first_height: int, count: int) -> None:
    """Raise unless this is a range of 1 to BODIES_MAX heights above genesis."""
    check_range("count", count, 1, BODIES_MAX)
    check_range("first_height", first_height, 1, U64_MAX - count)


def check_batch(batch: bytes | memoryview) -> None:
    """Raise unless these are 1 to SUBMIT_RECORDS_MAX whole records."""
    count, rest = divmod(len(batch), RECORD_BYTES)
    if rest:
        raise invalid_argument(
            f"a batch has {len(batch)} bytes; it is made of records of {RECORD_BYTES}"
        )
    check_range("the count of records", count, 1, SUBMIT_RECORDS_MAX)
