"""The values of consensus: headers, proposals, votes, certificates, validator sets, parameters.

Bytes and limits: spec/consensus.md#messages; how they are encoded: `codec.py`. Next: `events.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType, Protocol

Height = NewType("Height", int)
"""Number of a block; genesis is 0."""
Epoch = NewType("Epoch", int)
"""Number of a span of heights with a fixed validator set; the first is 0."""
View = NewType("View", int)
"""One leader's attempt within an epoch; view 0 is the anchor, the first real one is 1."""
Hash32 = NewType("Hash32", bytes)
"""32 bytes of hash."""
PublicKey = NewType("PublicKey", bytes)
"""32 bytes of Ed25519; of a validator: in the prime-order subgroup."""
Signature = NewType("Signature", bytes)
"""64 bytes of Ed25519."""
PeerId = NewType("PeerId", bytes)
"""Who the transport says that a peer is: a validator's public key, or another 1 to 64 bytes."""
BootId = NewType("BootId", bytes)
"""16 bytes that an executor draws when it starts."""

ZERO_HASH = Hash32(bytes(32))
HEADER_VERSION = 1
VALIDATOR_COUNT_MAX = 1_024
RANGE_HEADERS_MAX = 64
"""headers of one range answer; unfinalized_max is at most half of it"""


class Kind(IntEnum):
    """What a vote says of its view, and a certificate with it. Spec: spec/consensus.md#votes."""

    NOTARIZE = 1
    """this proposal is right (many views may be notarized)"""
    NULLIFY = 2
    """this view may be skipped"""
    FINALIZE = 3
    """this view is notarized and will not be nullified by me"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A block as validators sign it; 400 bytes, in this order. Spec: spec/block.md#header."""

    version: int
    chain_id: int
    epoch: Epoch
    height: Height
    parent_hash: Hash32
    timestamp_ms: int
    proposer: PublicKey
    fee_recipient: PublicKey
    validator_set_id: Hash32
    payload_commitment: Hash32
    payload_bytes: int
    transaction_count: int
    transactions_root: Hash32
    state_hash: Hash32
    receipts_hash: Hash32
    system_hash: Hash32 = ZERO_HASH
    next_validator_set_hash: Hash32 = ZERO_HASH
    reserved: bytes = ZERO_HASH


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """M2: a block in a view. Its hash is the proposal id (pid) that votes name."""

    epoch: Epoch
    view: View
    parent_view: View
    """the view whose block this one stands on, or whose block this is (re-proposal)"""
    block_hash: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """M3: one validator's word on one view."""

    kind: Kind
    epoch: Epoch
    view: View
    pid: Hash32
    """proposal id; zero for NULLIFY"""
    signer: int
    """index into the epoch's set, which is sorted by key"""
    signature: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """M4: a proposal, its header, and the leader's own NOTARIZE vote, which signs it."""

    proposal: Proposal
    header: Header
    vote: Vote


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """M5: votes of a quorum for one thing."""

    kind: Kind
    epoch: Epoch
    view: View
    proposal: Proposal | None
    """None for NULLIFY"""
    validator_count: int
    """members of the epoch's set, which is the width of the bitmap"""
    signers: int
    """bitmap: bit i is set when validator i of the set signed"""
    signatures: tuple[Signature, ...]
    """one per set bit, in ascending order of bits"""


class Want(IntEnum):
    """What a request asks for. Spec: spec/consensus.md#requests."""

    VIEWS = 1
    """first..last: views of `epoch`; answered by certificates, own votes and proposals"""
    VOTES_OF = 2
    """first: signer index; answered by VotesAnswer"""
    BLOCK = 3
    """block_hash; answered by BlockAnswer"""
    RANGE = 4
    """first: lowest height wanted; answered by RangeAnswer"""
    FINAL = 5
    """answered by the latest Final"""
    BOUNDARY = 6
    """answered by the Final of the last block of `epoch`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """M6: one fixed-width question. Fields that a kind does not use are zero."""

    want: Want
    epoch: Epoch = Epoch(0)
    first: int = 0
    last: int = 0
    block_hash: Hash32 = ZERO_HASH


@dataclass(frozen=True, slots=True, kw_only=True)
class VotesAnswer:
    """Votes of one signer that the answerer holds above its last final view; maybe none."""

    epoch: Epoch
    signer: int
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockAnswer:
    """The header whose hash was asked for."""

    header: Header


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeAnswer:
    """Q1: final headers of ascending height; the certificate finalizes the last of them."""

    headers: tuple[Header, ...]
    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """A block with the certificate that finalizes it."""

    header: Header
    certificate: Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """X1: two votes of one signer that no honest validator makes both."""

    first: Vote
    second: Vote


Message = (
    Vote
    | Propose
    | Certificate
    | Request
    | VotesAnswer
    | BlockAnswer
    | RangeAnswer
    | Final
    | Evidence
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """A member of a set."""

    public_key: PublicKey
    power: int
    """1 or more; the sum over a set is below 2^63"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """P2: what genesis fixes; milliseconds, heights, bytes. Spec: spec/genesis.md#parameters."""

    heights_per_epoch: int
    delta_ms: int
    execute_max_ms: int
    transfer_max_ms: int
    block_interval_ms: int
    idle_interval_ms: int
    retransmit_interval_ms: int
    unfinalized_max: int
    payload_bytes_max: int
    transactions_max: int
    objects_max: int
    drift_ms: int
    evidence_window_epochs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What all nodes of a chain agree on before the first block."""

    chain_id: int
    genesis_hash: Hash32
    params_hash: Hash32
    timestamp_ms: int
    """of genesis"""
    parameters: Parameters
    validators: tuple[tuple[Validator, ...], tuple[Validator, ...]]
    """the sets of epochs 0 and 1, both fixed by genesis (H1)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizedBlock:
    """F2: what the store keeps for ever of a height."""

    block_hash: Hash32
    header: Header
    certificate: Certificate | None
    """None when a certificate of a higher block made it final (C2)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """H2: the beginning of an epoch above 0; kept for ever."""

    epoch: Epoch
    """the epoch that begins"""
    block_hash: Hash32
    """of the last block of the epoch before: the anchor (S2)"""
    header: Header
    certificate: Certificate
    validators: tuple[Validator, ...]
    """of the epoch that begins"""


class Crypto(Protocol):
    """Hashing and signatures, given by whoever owns the key.

    The node gives BLAKE3 and Ed25519, the simulator something faster with the same meaning.
    """

    def hash(self, context: str, data: bytes) -> Hash32:
        """Return the hash of data under a context; no two contexts agree on anything."""
        ...

    def is_public_key(self, key: PublicKey) -> bool:
        """Say whether somebody's key can be these bytes. Called for new sets, never for votes."""
        ...

    def sign(self, message: bytes) -> Signature:
        """Sign with the own key. Called only for what the safety rules allow."""
        ...

    def verify(self, public_key: PublicKey, message: bytes, signature: Signature) -> bool:
        """Say whether a signature is valid."""
        ...

    def verify_many(
        self, public_keys: Sequence[PublicKey], message: bytes, signatures: Sequence[Signature]
    ) -> bool:
        """Say whether every signature is valid, all over the same message."""
        ...
