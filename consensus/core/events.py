"""All that reaches a replica and all that it asks for: the whole border of the core.

The shell calls `Replica.handle(event, now_ms)` with `now_ms` of a clock that never goes back, one
event after the other, and performs the effects in the order in which they stand. What may leave
only after something is durable stands inside `Persist.then`: a shell that performs effects in
order cannot send too early. The first event is `Started`. Spec: spec/consensus.md#shell.
"""

from dataclasses import dataclass
from enum import IntEnum

from consensus.core.types import (
    BootId,
    Boundary,
    Evidence,
    FinalizedBlock,
    Hash32,
    Header,
    Height,
    Message,
    PeerId,
    PublicKey,
    Request,
    Validator,
)

# --- what a replica is built from ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """W2: everything that survived, as the shell found it on disk."""

    journal: tuple[bytes, ...]
    """whole records in the order of their writing; the shell has dropped a torn tail (a last record
    whose frame or checksum is broken). Never empty: `init` makes it of `journal.empty_journal()`;
    an imported key, a missing or damaged journal: of `journal.observer_journal(wall_ms)` (W3)"""
    finalized: FinalizedBlock | None
    """the highest of the store, which has a certificate; None: only genesis"""
    boundaries: tuple[Boundary, ...]
    """the latest of the store, at most EPOCHS_HELD_MAX, ascending; empty in epoch 0"""


# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first event: network, disk and executor may be used from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Woke:
    """The time of the last `WakeAt` has come. Harmless when it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WallClock:
    """The difference between wall clock (since 1970) and `now_ms` is now this many ms."""

    offset_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A message that decoded (`codec.decode_message`), from an authenticated peer.

    Nothing else about it is checked yet. Order, loss and repetition are all legal.
    """

    peer: PeerId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadArrived:
    """The shell holds all bytes under this commitment, each chunk checked against it."""

    payload_commitment: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadFailed:
    """The shell gave up a `FetchPayload`: nobody asked had it in time. It may be asked again."""

    payload_commitment: Hash32


class Verdict(IntEnum):
    """The answer to NewPayload. Spec: spec/engine_api.md#newpayload."""

    VALID = 1
    """executed, results equal, header and payload durable"""
    INVALID = 2
    SYNCING = 3
    """parent unknown; nothing was kept"""
    MALFORMED = 4
    """the bytes are not those of the header; says nothing about the block"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorStatus:
    """Answer to GetStatus."""

    genesis_hash: Hash32
    params_hash: Hash32
    finalized_height: Height
    finalized_hash: Hash32
    unfinalized: tuple[tuple[Height, Hash32], ...]
    """executed blocks above finalized, ascending"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadBuilt:
    """Answer to GetPayload; the shell holds the bytes as after PayloadArrived."""

    payload_commitment: Hash32
    payload_bytes: int
    transaction_count: int
    transactions_root: Hash32
    state_hash: Hash32
    receipts_hash: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadJudged:
    """Answer to NewPayload."""

    verdict: Verdict
    reason: int = 0
    """number of the reason when INVALID, for people"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkchoiceDone:
    """Answer to ForkchoiceUpdated: OK."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorSyncing:
    """Answer to GetPayload or ForkchoiceUpdated: a block is unknown there, nothing changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorsOf:
    """Answer to GetValidatorSet."""

    validators: tuple[Validator, ...]
    """sorted by key"""


Answer = (
    ExecutorStatus | PayloadBuilt | PayloadJudged | ForkchoiceDone | ExecutorSyncing | ValidatorsOf
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The executor's answer to a `Call`."""

    call_id: int
    boot_id: BootId
    answer: Answer


class CallError(IntEnum):
    """Why a call has no answer. Spec: spec/engine_api.md#errors."""

    INVALID_ARGUMENT = 1
    UNSUPPORTED = 2
    CONFLICT = 3
    PAYLOAD_NOT_HELD = 4
    DEPTH_EXCEEDED = 5
    UNAUTHENTICATED = 6
    RESOURCE_EXHAUSTED = 7
    INTERNAL = 8
    DEADLINE_EXCEEDED = 9
    """no answer within `timeout_ms`; whether it was executed is unknown"""
    UNAVAILABLE = 10
    """no connection, or it broke"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed:
    """A `Call` ended without an answer. An error is never a verdict; the core tries again."""

    call_id: int
    error: CallError


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What `LoadFinalized` asked for: ascending heights without a gap, maybe fewer, maybe none."""

    blocks: tuple[FinalizedBlock, ...]


Event = (
    Started
    | Woke
    | WallClock
    | Received
    | PayloadArrived
    | PayloadFailed
    | Answered
    | CallFailed
    | Loaded
)

# --- calls of the executor ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GetStatus:
    """Who the executor is and where it stands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GetPayload:
    """Build on a block; the answer may be empty of transactions."""

    parent_hash: Hash32
    height: Height
    payload_bytes_max: int
    transactions_max: int
    objects_max: int
    timestamp_ms: int
    fee_recipient: PublicKey
    wait_ms: int
    """return as soon as there is work, at the latest after this"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayload:
    """Execute and make durable. The shell streams the payload that it holds under the header's
    commitment; holding none it says ALREADY_HELD, and PAYLOAD_NOT_HELD may be the answer."""

    block_hash: Hash32
    header: Header


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkchoiceUpdated:
    """F1, F2: follow, certified, irreversible."""

    head: Hash32
    safe: Hash32
    finalized: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class GetValidatorSet:
    """The set of an epoch; known from the boundary of the epoch before the one before it (H1)."""

    epoch: int


CallRequest = GetStatus | GetPayload | NewPayload | ForkchoiceUpdated | GetValidatorSet

# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send to one peer. May be lost: the core repeats what matters (R1)."""

    peer: PeerId
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """Send to every validator of the current epoch's set and of the next one, except oneself."""

    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPayload:
    """Push a payload to every validator, chunk by chunk, unasked.

    The bytes are held since PayloadBuilt; after a restart the executor has them by block hash.
    """

    block_hash: Hash32
    payload_commitment: Hash32
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Call the executor. Exactly one `Answered` or `CallFailed` with this id follows.

    Calls are started in the order of their ids; at most CALLS_MAX are open. The shell ends a call
    with DEADLINE_EXCEEDED after `timeout_ms`.
    """

    call_id: int
    request: CallRequest
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFromStore:
    """Answer a peer's request from the store of final blocks; nothing there: no answer.

    BLOCK: BlockAnswer. BOUNDARY: Final. FINAL: Final of the highest. RANGE: RangeAnswer with the
    headers of one epoch from `first` on, at most RANGE_HEADERS_MAX, up to the highest one of those
    that has a certificate; none of them has one: no answer.
    """

    peer: PeerId
    request: Request


SendEffect = Send | Broadcast | PushPayload | Call | AnswerFromStore
"""What may stand behind a sync."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """W1, W4, F2, H2, X2: make durable, in the order of the fields, then perform `then` in order.

    All `Persist` of a replica are one queue: nothing of `then` leaves before everything of this
    and of all earlier ones is durable. One with nothing to write is only a place in that queue: it
    needs no sync of its own. The core goes on meanwhile and is not told. A write that fails stops
    the node.
    """

    finalized: tuple[FinalizedBlock, ...] = ()
    """to the store by height and by block hash, ascending, all or nothing"""
    boundary: Boundary | None = None
    """to the store, in the same transaction as `finalized`"""
    evidence: tuple[Evidence, ...] = ()
    """to the store, by (signer, epoch, view, kinds): after a restart the same may come again"""
    append: tuple[bytes, ...] = ()
    """to the journal's end, framed and checksummed by the shell; one fdatasync for all"""
    cut: tuple[bytes, ...] | None = None
    """not None: the journal becomes exactly these records (new file, fdatasync, rename, directory
    sync); `append` is then empty"""
    then: tuple[SendEffect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAt:
    """Deliver `Woke` at this `now_ms`. There is one such time: a later effect replaces it."""

    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPayload:
    """Get a payload from peers, the named ones first; PayloadArrived or PayloadFailed follows.

    Bytes pushed to us under this commitment count. Asked again while under way: more peers to try,
    and only one event follows. An arrived payload is held until `DropPayload`.
    """

    block_hash: Hash32
    payload_commitment: Hash32
    payload_bytes: int
    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropPayload:
    """Stop fetching and holding these bytes: the executor has them, or nobody wants them."""

    payload_commitment: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFinalized:
    """Read final blocks of the own store; `Loaded` follows."""

    first: Height
    count: int
    """1 to RANGE_HEADERS_MAX"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalize:
    """A peer sent what no honest peer sends; ban it for a while."""

    peer: PeerId
    reason: str


class AlarmCode(IntEnum):
    """What a person must hear of."""

    INVALID_NOTARIZED = 1
    """V4: a quorum certified a block that is INVALID here; this node stops voting"""
    CONFLICTING_CERTIFICATES = 2
    """two certificates that cannot both exist with less than a third of faulty power"""
    LOST_SIGNATURE = 3
    """W3: an own signature turned up that the journal lacks; this node is an observer now"""
    WRONG_EXECUTOR = 4
    """the executor has another genesis, other parameters or another final block; nothing is done"""
    WRONG_VALIDATOR_SET = 5
    """the executor's set is not the one that a final boundary header names; this node stops"""
    EXECUTOR_FAILING = 6
    """a call failed in a way that a repetition does not mend; it is repeated all the same"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Tell people, loudly."""

    code: AlarmCode
    detail: str


Effect = (
    Persist | SendEffect | WakeAt | FetchPayload | DropPayload | LoadFinalized | Penalize | Alarm
)
