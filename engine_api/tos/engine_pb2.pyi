from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Source(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_UNSPECIFIED: _ClassVar[Source]
    SOURCE_STREAM: _ClassVar[Source]
    SOURCE_ALREADY_HELD: _ClassVar[Source]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_VALID: _ClassVar[Verdict]
    VERDICT_INVALID: _ClassVar[Verdict]
    VERDICT_SYNCING: _ClassVar[Verdict]
    VERDICT_MALFORMED: _ClassVar[Verdict]

class ForkchoiceStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FORKCHOICE_STATUS_UNSPECIFIED: _ClassVar[ForkchoiceStatus]
    FORKCHOICE_STATUS_OK: _ClassVar[ForkchoiceStatus]
    FORKCHOICE_STATUS_SYNCING: _ClassVar[ForkchoiceStatus]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_INVALID_ARGUMENT: _ClassVar[ErrorCode]
    ERROR_CODE_UNSUPPORTED: _ClassVar[ErrorCode]
    ERROR_CODE_CONFLICT: _ClassVar[ErrorCode]
    ERROR_CODE_PAYLOAD_NOT_HELD: _ClassVar[ErrorCode]
    ERROR_CODE_DEPTH_EXCEEDED: _ClassVar[ErrorCode]
    ERROR_CODE_UNAUTHENTICATED: _ClassVar[ErrorCode]
    ERROR_CODE_RESOURCE_EXHAUSTED: _ClassVar[ErrorCode]
    ERROR_CODE_INTERNAL: _ClassVar[ErrorCode]
    ERROR_CODE_DEADLINE_EXCEEDED: _ClassVar[ErrorCode]
    ERROR_CODE_UNAVAILABLE: _ClassVar[ErrorCode]
SOURCE_UNSPECIFIED: Source
SOURCE_STREAM: Source
SOURCE_ALREADY_HELD: Source
VERDICT_UNSPECIFIED: Verdict
VERDICT_VALID: Verdict
VERDICT_INVALID: Verdict
VERDICT_SYNCING: Verdict
VERDICT_MALFORMED: Verdict
FORKCHOICE_STATUS_UNSPECIFIED: ForkchoiceStatus
FORKCHOICE_STATUS_OK: ForkchoiceStatus
FORKCHOICE_STATUS_SYNCING: ForkchoiceStatus
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_INVALID_ARGUMENT: ErrorCode
ERROR_CODE_UNSUPPORTED: ErrorCode
ERROR_CODE_CONFLICT: ErrorCode
ERROR_CODE_PAYLOAD_NOT_HELD: ErrorCode
ERROR_CODE_DEPTH_EXCEEDED: ErrorCode
ERROR_CODE_UNAUTHENTICATED: ErrorCode
ERROR_CODE_RESOURCE_EXHAUSTED: ErrorCode
ERROR_CODE_INTERNAL: ErrorCode
ERROR_CODE_DEADLINE_EXCEEDED: ErrorCode
ERROR_CODE_UNAVAILABLE: ErrorCode

class BlockId(_message.Message):
    __slots__ = ("height", "hash")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    height: int
    hash: bytes
    def __init__(self, height: _Optional[int] = ..., hash: _Optional[bytes] = ...) -> None: ...

class Versions(_message.Message):
    __slots__ = ("api", "header", "payload", "state", "software")
    API_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    api: int
    header: int
    payload: int
    state: int
    software: str
    def __init__(self, api: _Optional[int] = ..., header: _Optional[int] = ..., payload: _Optional[int] = ..., state: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusAnswer(_message.Message):
    __slots__ = ("boot_id", "genesis_hash", "params_hash", "finalized", "head", "unfinalized", "versions")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    GENESIS_HASH_FIELD_NUMBER: _ClassVar[int]
    PARAMS_HASH_FIELD_NUMBER: _ClassVar[int]
    FINALIZED_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    UNFINALIZED_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    genesis_hash: bytes
    params_hash: bytes
    finalized: BlockId
    head: BlockId
    unfinalized: _containers.RepeatedCompositeFieldContainer[BlockId]
    versions: Versions
    def __init__(self, boot_id: _Optional[bytes] = ..., genesis_hash: _Optional[bytes] = ..., params_hash: _Optional[bytes] = ..., finalized: _Optional[_Union[BlockId, _Mapping]] = ..., head: _Optional[_Union[BlockId, _Mapping]] = ..., unfinalized: _Optional[_Iterable[_Union[BlockId, _Mapping]]] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("bytes", "transactions", "objects")
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    transactions: int
    objects: int
    def __init__(self, bytes: _Optional[int] = ..., transactions: _Optional[int] = ..., objects: _Optional[int] = ...) -> None: ...

class Attributes(_message.Message):
    __slots__ = ("timestamp_ms", "fee_recipient", "system")
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    FEE_RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    timestamp_ms: int
    fee_recipient: bytes
    system: bytes
    def __init__(self, timestamp_ms: _Optional[int] = ..., fee_recipient: _Optional[bytes] = ..., system: _Optional[bytes] = ...) -> None: ...

class PayloadRequest(_message.Message):
    __slots__ = ("parent_hash", "height", "limits", "attributes", "wait_ms")
    PARENT_HASH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    parent_hash: bytes
    height: int
    limits: Limits
    attributes: Attributes
    wait_ms: int
    def __init__(self, parent_hash: _Optional[bytes] = ..., height: _Optional[int] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., attributes: _Optional[_Union[Attributes, _Mapping]] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class Built(_message.Message):
    __slots__ = ("payload_commitment", "payload_bytes", "transaction_count", "transactions_root", "state_hash", "receipts_hash")
    PAYLOAD_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONS_ROOT_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_HASH_FIELD_NUMBER: _ClassVar[int]
    payload_commitment: bytes
    payload_bytes: int
    transaction_count: int
    transactions_root: bytes
    state_hash: bytes
    receipts_hash: bytes
    def __init__(self, payload_commitment: _Optional[bytes] = ..., payload_bytes: _Optional[int] = ..., transaction_count: _Optional[int] = ..., transactions_root: _Optional[bytes] = ..., state_hash: _Optional[bytes] = ..., receipts_hash: _Optional[bytes] = ...) -> None: ...

class PayloadAnswerHead(_message.Message):
    __slots__ = ("boot_id", "built")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    BUILT_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    built: Built
    def __init__(self, boot_id: _Optional[bytes] = ..., built: _Optional[_Union[Built, _Mapping]] = ...) -> None: ...

class PayloadAnswerPart(_message.Message):
    __slots__ = ("head", "chunk")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    head: PayloadAnswerHead
    chunk: bytes
    def __init__(self, head: _Optional[_Union[PayloadAnswerHead, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class NewPayloadHead(_message.Message):
    __slots__ = ("header", "source")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    source: Source
    def __init__(self, header: _Optional[bytes] = ..., source: _Optional[_Union[Source, str]] = ...) -> None: ...

class NewPayloadPart(_message.Message):
    __slots__ = ("head", "chunk")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    head: NewPayloadHead
    chunk: bytes
    def __init__(self, head: _Optional[_Union[NewPayloadHead, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class NewPayloadAnswer(_message.Message):
    __slots__ = ("boot_id", "verdict", "reason", "latest_valid_hash", "detail")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LATEST_VALID_HASH_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    verdict: Verdict
    reason: int
    latest_valid_hash: bytes
    detail: str
    def __init__(self, boot_id: _Optional[bytes] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., reason: _Optional[int] = ..., latest_valid_hash: _Optional[bytes] = ..., detail: _Optional[str] = ...) -> None: ...

class ForkchoiceRequest(_message.Message):
    __slots__ = ("head", "safe", "finalized")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SAFE_FIELD_NUMBER: _ClassVar[int]
    FINALIZED_FIELD_NUMBER: _ClassVar[int]
    head: bytes
    safe: bytes
    finalized: bytes
    def __init__(self, head: _Optional[bytes] = ..., safe: _Optional[bytes] = ..., finalized: _Optional[bytes] = ...) -> None: ...

class ForkchoiceAnswer(_message.Message):
    __slots__ = ("boot_id", "status")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    status: ForkchoiceStatus
    def __init__(self, boot_id: _Optional[bytes] = ..., status: _Optional[_Union[ForkchoiceStatus, str]] = ...) -> None: ...

class BodiesByHashRequest(_message.Message):
    __slots__ = ("hashes",)
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class BodiesByRangeRequest(_message.Message):
    __slots__ = ("first_height", "count")
    FIRST_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first_height: int
    count: int
    def __init__(self, first_height: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class BodyHead(_message.Message):
    __slots__ = ("boot_id", "header", "payload_bytes")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    header: bytes
    payload_bytes: int
    def __init__(self, boot_id: _Optional[bytes] = ..., header: _Optional[bytes] = ..., payload_bytes: _Optional[int] = ...) -> None: ...

class BodyPart(_message.Message):
    __slots__ = ("head", "chunk")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    head: BodyHead
    chunk: bytes
    def __init__(self, head: _Optional[_Union[BodyHead, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ValidatorSetRequest(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class Validator(_message.Message):
    __slots__ = ("key", "power")
    KEY_FIELD_NUMBER: _ClassVar[int]
    POWER_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    power: int
    def __init__(self, key: _Optional[bytes] = ..., power: _Optional[int] = ...) -> None: ...

class ValidatorSetAnswer(_message.Message):
    __slots__ = ("boot_id", "epoch", "validators", "validator_set_id")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VALIDATORS_FIELD_NUMBER: _ClassVar[int]
    VALIDATOR_SET_ID_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    epoch: int
    validators: _containers.RepeatedCompositeFieldContainer[Validator]
    validator_set_id: bytes
    def __init__(self, boot_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., validators: _Optional[_Iterable[_Union[Validator, _Mapping]]] = ..., validator_set_id: _Optional[bytes] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthAnswer(_message.Message):
    __slots__ = ("boot_id", "not_serving", "finalized_height", "free_disk_bytes")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    NOT_SERVING_FIELD_NUMBER: _ClassVar[int]
    FINALIZED_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    FREE_DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    not_serving: str
    finalized_height: int
    free_disk_bytes: int
    def __init__(self, boot_id: _Optional[bytes] = ..., not_serving: _Optional[str] = ..., finalized_height: _Optional[int] = ..., free_disk_bytes: _Optional[int] = ...) -> None: ...

class SubmitHead(_message.Message):
    __slots__ = ("record_count",)
    RECORD_COUNT_FIELD_NUMBER: _ClassVar[int]
    record_count: int
    def __init__(self, record_count: _Optional[int] = ...) -> None: ...

class SubmitPart(_message.Message):
    __slots__ = ("head", "chunk")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    head: SubmitHead
    chunk: bytes
    def __init__(self, head: _Optional[_Union[SubmitHead, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class SubmitAnswer(_message.Message):
    __slots__ = ("boot_id", "results")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    boot_id: bytes
    results: bytes
    def __init__(self, boot_id: _Optional[bytes] = ..., results: _Optional[bytes] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "sentence", "boot_id")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    code: ErrorCode
    sentence: str
    boot_id: bytes
    def __init__(self, code: _Optional[_Union[ErrorCode, str]] = ..., sentence: _Optional[str] = ..., boot_id: _Optional[bytes] = ...) -> None: ...
