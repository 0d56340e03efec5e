"""What the two sides say to each other: every request, answer, number and limit.

Plain values without engine types: a hash is 32 bytes, a header is its 400 bytes, a payload is
opaque bytes. Lengths and ranges are checked by `checks.py`, over a socket before the engine is
called. Read `protocol.py` next. Spec: spec/engine_api.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

API_VERSION = 1

HASH_BYTES = 32
BOOT_ID_BYTES = 16
HEADER_BYTES = 400
PAYLOAD_BYTES_OFFSET = 192
"""of the field payload_bytes in a header; it bounds the stream before anybody judges the header"""
RECORD_BYTES = 192
"""of a transaction in `submit`"""

CONTROL_BYTES_MAX = 64 * 1024
"""a message without payload"""
CHUNK_BYTES_MAX = 1024 * 1024
"""a part of a payload in one message"""
BODIES_MAX = 64
"""blocks that one call for bodies names"""
SUBMIT_RECORDS_MAX = 32_768
"""records of one `submit`, so that its answer is a control message"""
VALIDATORS_MAX = 1_024
UNFINALIZED_MAX = 1_024
"""block ids in a status; the executor keeps 2K, this only bounds what a client reads"""
WAITING_MAX = 16
"""calls of NewPayload that wait while one executes"""
TIMEOUT_MS_MAX = 600_000
"""the farthest deadline of a call; every call over a socket has one"""
SENTENCE_CHARACTERS_MAX = 512
"""of an error or a detail; what is longer is cut, so that it fits into trailing metadata"""


class Verdict(IntEnum):
    """What NewPayload says of a block."""

    VALID = 1
    """executed, results equal to the header's, header and payload durable"""
    INVALID = 2
    """with reason and latest_valid_hash; confirmed by the serial arm"""
    SYNCING = 3
    """the parent is unknown; nothing was kept"""
    MALFORMED = 4
    """the bytes are not those that the header names: it says nothing about the block"""


class ForkchoiceStatus(IntEnum):
    """What ForkchoiceUpdated came to."""

    OK = 1
    SYNCING = 3
    """a hash is unknown; nothing has changed"""


class SubmitResult(IntEnum):
    """What became of one submitted record."""

    QUEUED = 1
    QUEUE_FULL = 2
    """not kept; may be sent again later"""
    REFUSED = 3
    """not kept: no payload can carry it, or the pool's rules refuse it at the present head"""


class Retry(IntEnum):
    """When the same call may succeed."""

    NO = 1
    WITH_STREAM = 2
    AFTER_FINALIZATION = 3
    WITH_NEW_TOKEN = 4
    LATER = 5


class ErrorCode(IntEnum):
    """Why there is no answer. The numbers are stable."""

    INVALID_ARGUMENT = 1
    UNSUPPORTED = 2
    CONFLICT = 3
    PAYLOAD_NOT_HELD = 4
    DEPTH_EXCEEDED = 5
    UNAUTHENTICATED = 6
    RESOURCE_EXHAUSTED = 7
    INTERNAL = 8
    DEADLINE_EXCEEDED = 9
    UNAVAILABLE = 10

    @property
    def retry(self) -> Retry:
        """When the same call may succeed; it follows from the code."""
        return _RETRIES[self]


_RETRIES = {
    ErrorCode.INVALID_ARGUMENT: Retry.NO,
    ErrorCode.UNSUPPORTED: Retry.NO,
    ErrorCode.CONFLICT: Retry.NO,
    ErrorCode.PAYLOAD_NOT_HELD: Retry.WITH_STREAM,
    ErrorCode.DEPTH_EXCEEDED: Retry.AFTER_FINALIZATION,
    ErrorCode.UNAUTHENTICATED: Retry.WITH_NEW_TOKEN,
    ErrorCode.RESOURCE_EXHAUSTED: Retry.LATER,
    ErrorCode.INTERNAL: Retry.LATER,
    ErrorCode.DEADLINE_EXCEEDED: Retry.LATER,
    ErrorCode.UNAVAILABLE: Retry.LATER,
}
assert set(_RETRIES) == set(ErrorCode)


class EngineApiError(Exception):
    """A call without an answer: a stable code, a sentence for people, and whether to retry.

    Never a verdict: it says nothing about a block. `boot_id` is that of the executor which said
    it, or empty where none did (it could not be reached, or the error was raised on this side).
    """

    def __init__(self, code: ErrorCode, sentence: str, *, boot_id: bytes = b"") -> None:
        """Keep code and sentence; the sentence is cut at SENTENCE_CHARACTERS_MAX."""
        # A file name may hold what no encoding takes.
        sentence = sentence[:SENTENCE_CHARACTERS_MAX].encode(errors="replace").decode()
        super().__init__(f"{code.name}: {sentence}")
        self.code = code
        self.sentence = sentence
        self.boot_id = boot_id

    @property
    def retry(self) -> Retry:
        """When the same call may succeed."""
        return self.code.retry


class SetupError(Exception):
    """A socket, secret or address that cannot be used: what, where, why, what to do.

    `code` is stable and begins with `engine_api.`.
    """

    def __init__(self, code: str, *, what: str, where: str, why: str, what_to_do: str) -> None:
        """Keep the code and the sentences for the person who starts the process."""
        super().__init__(
            f"{what}\n  where: {where}\n  why: {why}\n  what to do: {what_to_do}\n  code: {code}"
        )
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.what_to_do = what_to_do


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockId:
    """A block: its height and its hash."""

    height: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What the executor reads and writes."""

    api: int
    header: int
    payload: int
    state: int
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAnswer:
    """Where the executor stands, and for which chain it works."""

    boot_id: bytes
    genesis_hash: bytes
    params_hash: bytes
    finalized: BlockId
    head: BlockId
    unfinalized: tuple[BlockId, ...]
    """executed blocks above finalized, ascending by (height, hash)"""
    versions: Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds of a payload to build, each at most the genesis parameter."""

    bytes: int
    transactions: int
    objects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What the header of the block to build will say."""

    timestamp_ms: int
    fee_recipient: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadRequest:
    """A payload is wanted: on which block, how large at most, for which header."""

    parent_hash: bytes
    height: int
    """the parent's + 1"""
    limits: Limits
    attributes: Attributes
    wait_ms: int
    """answer as soon as there is work, at the latest after this, then possibly without any"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltPayload:
    """A payload with everything that a header says of it and of its result."""

    payload: bytes | memoryview
    """contiguous, one byte per item; nobody changes it any more"""
    payload_commitment: bytes
    transaction_count: int
    transactions_root: bytes
    state_hash: bytes
    receipts_hash: bytes

    @property
    def payload_bytes(self) -> int:
        """The length of the payload."""
        return len(self.payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadAnswer:
    """What GetPayload says."""

    boot_id: bytes
    built: BuiltPayload | None
    """None is SYNCING: the parent is unknown"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayloadAnswer:
    """What NewPayload says."""

    boot_id: bytes
    verdict: Verdict
    reason: int = 0
    """of INVALID: the number of a reason in spec/engine_api.md; else 0"""
    latest_valid_hash: bytes = b""
    """of INVALID: the nearest ancestor that is VALID, 32 bytes; else empty"""
    detail: str = ""
    """a sentence for people, in no rule's way"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkchoiceAnswer:
    """What ForkchoiceUpdated says."""

    boot_id: bytes
    status: ForkchoiceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One block that was asked for; `header` is empty where it is not held (NOT_FOUND)."""

    boot_id: bytes
    header: bytes
    payload: bytes | memoryview

    @property
    def is_found(self) -> bool:
        """Whether the block is held."""
        return bool(self.header)


Bodies = Iterator[Body]
"""One after the other, in the order asked for, each made when it is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """A member of a validator set."""

    key: bytes
    """Ed25519 public key, 32 bytes"""
    power: int
    """1 or more; the sum of a set is below 2^63"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorSetAnswer:
    """Who decides the blocks of an epoch."""

    boot_id: bytes
    epoch: int
    validators: tuple[Validator, ...]
    """ascending by key"""
    validator_set_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthAnswer:
    """Whether the executor serves."""

    boot_id: bytes
    not_serving: str
    """why not; empty while it serves"""
    finalized_height: int
    free_disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitAnswer:
    """What became of each submitted record, in their order."""

    boot_id: bytes
    results: bytes
    """one byte per record: the number of a SubmitResult"""
