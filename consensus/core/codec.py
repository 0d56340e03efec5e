"""Messages and headers as bytes: fixed widths, one encoding per value, nothing left over.

What is signed or hashed is never one of these messages but a struct of its own (`vote_message`,
`proposal_bytes`), so a change of the wire cannot change what a signature means (P3).
Spec: spec/consensus.md#messages. Next: `safety.py`.
"""

import struct
from collections.abc import Callable
from typing import Any

from consensus.core.types import (
    RANGE_HEADERS_MAX,
    VALIDATOR_COUNT_MAX,
    ZERO_HASH,
    BlockAnswer,
    Certificate,
    Epoch,
    Evidence,
    Final,
    Hash32,
    Header,
    Kind,
    Message,
    Proposal,
    Propose,
    RangeAnswer,
    Request,
    Signature,
    View,
    Vote,
    VotesAnswer,
    Want,
)

HEADER_BYTES = 400
PROPOSAL_BYTES = 56
VOTE_BYTES = 115
SIGNATURE_BYTES = 64
SCHEME_ED25519 = 1
"""the one way to write a certificate now; an aggregate scheme would be another number"""
VOTES_ANSWER_MAX = 256
"""votes of one answer"""
CERTIFICATE_BYTES_MAX = 60 + VALIDATOR_COUNT_MAX // 8 + SIGNATURE_BYTES * VALIDATOR_COUNT_MAX
MESSAGE_BYTES_MAX = 2**17
"""of any message"""

_HEADER = struct.Struct("<II QQ 32s Q 32s 32s 32s 32s QQ 32s 32s 32s 32s 32s 32s")
_PROPOSAL = struct.Struct("<QQQ 32s")
_VOTE = struct.Struct("<B QQ 32s H 64s")
_CERTIFICATE = struct.Struct("<BB QQQ 32s H")
_REQUEST = struct.Struct("<B QQQ 32s")
_VOTES_HEAD = struct.Struct("<QHH")
_U16 = struct.Struct("<H")

assert _HEADER.size == HEADER_BYTES
assert _PROPOSAL.size == PROPOSAL_BYTES
assert _VOTE.size == VOTE_BYTES
assert CERTIFICATE_BYTES_MAX + HEADER_BYTES * RANGE_HEADERS_MAX + 3 <= MESSAGE_BYTES_MAX

_HEADER_FIELDS = tuple(Header.__dataclass_fields__)


class DecodeError(Exception):
    """Bytes that are no message; whoever sent them is wrong or hostile: ban the peer."""


def encode_header(header: Header) -> bytes:
    """Return the 400 bytes whose hash names the block."""
    return _HEADER.pack(*[getattr(header, name) for name in _HEADER_FIELDS])


def decode_header(data: bytes) -> Header:
    """Return the header in 400 bytes; all such bytes are one. Raises DecodeError (length)."""
    if len(data) != HEADER_BYTES:
        raise DecodeError(f"{len(data)} bytes are no header; a header has {HEADER_BYTES}")
    return Header(**dict(zip(_HEADER_FIELDS, _HEADER.unpack(data), strict=True)))


def proposal_bytes(proposal: Proposal) -> bytes:
    """Return the 56 bytes whose hash is the proposal id (M2)."""
    return _PROPOSAL.pack(proposal.epoch, proposal.view, proposal.parent_view, proposal.block_hash)


def encode_vote(vote: Vote) -> bytes:
    """Return the 115 bytes of a vote."""
    return _VOTE.pack(vote.kind, vote.epoch, vote.view, vote.pid, vote.signer, vote.signature)


def decode_vote(data: bytes) -> Vote:
    """Return the vote in 115 bytes; raises DecodeError for what no validator can mean."""
    if len(data) != VOTE_BYTES:
        raise DecodeError(f"{len(data)} bytes are no vote; a vote has {VOTE_BYTES}")
    kind, epoch, view, pid, signer, signature = _VOTE.unpack(data)
    if not 1 <= kind <= 3:
        raise DecodeError(f"votes of kind {kind} do not exist")
    if view == 0:
        raise DecodeError("nobody votes in view 0")
    if (kind == Kind.NULLIFY) != (pid == ZERO_HASH):
        raise DecodeError("a NULLIFY vote names no proposal, every other vote names one")
    if signer >= VALIDATOR_COUNT_MAX:
        raise DecodeError(f"signer {signer} is beyond the largest set")
    return Vote(
        kind=Kind(kind),
        epoch=Epoch(epoch),
        view=View(view),
        pid=Hash32(pid),
        signer=signer,
        signature=Signature(signature),
    )


def encode_certificate(certificate: Certificate) -> bytes:
    """Return the bytes of a certificate: head, bitmap, signatures."""
    proposal = certificate.proposal
    head = _CERTIFICATE.pack(
        certificate.kind,
        SCHEME_ED25519,
        certificate.epoch,
        certificate.view,
        0 if proposal is None else proposal.parent_view,
        ZERO_HASH if proposal is None else proposal.block_hash,
        certificate.validator_count,
    )
    width = (certificate.validator_count + 7) // 8
    return head + certificate.signers.to_bytes(width, "little") + b"".join(certificate.signatures)


def decode_certificate(data: bytes) -> Certificate:
    """Return the certificate in exactly these bytes; raises DecodeError. Nothing is verified."""
    if len(data) < _CERTIFICATE.size:
        raise DecodeError("too short for a certificate")
    kind, scheme, epoch, view, parent_view, block_hash, count = _CERTIFICATE.unpack_from(data)
    if not 1 <= kind <= 3 or scheme != SCHEME_ED25519:
        raise DecodeError(f"certificates of kind {kind} and scheme {scheme} do not exist")
    if not 1 <= count <= VALIDATOR_COUNT_MAX:
        raise DecodeError(f"a set of {count} validators does not exist")
    start = _CERTIFICATE.size + (count + 7) // 8
    signers = int.from_bytes(data[_CERTIFICATE.size : start], "little")
    if signers >> count:
        raise DecodeError("the bitmap has a bit beyond the set")
    signature_count = signers.bit_count()
    if len(data) != start + SIGNATURE_BYTES * signature_count:
        raise DecodeError(f"{len(data)} bytes do not hold {signature_count} signatures")
    if kind == Kind.NULLIFY:
        if parent_view or block_hash != ZERO_HASH:
            raise DecodeError("a nullification names no proposal")
        proposal = None
    else:
        proposal = Proposal(epoch=epoch, view=view, parent_view=parent_view, block_hash=block_hash)
        if parent_view >= view:
            raise DecodeError("a proposal stands on a lower view")
    if view == 0:
        raise DecodeError("nobody certifies view 0")
    return Certificate(
        kind=Kind(kind),
        epoch=epoch,
        view=view,
        proposal=proposal,
        validator_count=count,
        signers=signers,
        signatures=tuple(
            Signature(data[i : i + SIGNATURE_BYTES])
            for i in range(start, len(data), SIGNATURE_BYTES)
        ),
    )


def encode_propose(propose: Propose) -> bytes:
    """Return proposal, header and the leader's vote, one after the other."""
    return (
        proposal_bytes(propose.proposal) + encode_header(propose.header) + encode_vote(propose.vote)
    )


def decode_propose(data: bytes) -> Propose:
    """Return the proposal message in exactly these bytes; raises DecodeError."""
    if len(data) != PROPOSAL_BYTES + HEADER_BYTES + VOTE_BYTES:
        raise DecodeError(f"{len(data)} bytes are no proposal message")
    epoch, view, parent_view, block_hash = _PROPOSAL.unpack_from(data)
    vote = decode_vote(data[PROPOSAL_BYTES + HEADER_BYTES :])
    if parent_view >= view:
        raise DecodeError("a proposal stands on a lower view")
    if vote.kind != Kind.NOTARIZE or vote.epoch != epoch or vote.view != view:
        raise DecodeError("a proposal carries the leader's NOTARIZE vote of its view")
    return Propose(
        proposal=Proposal(epoch=epoch, view=view, parent_view=parent_view, block_hash=block_hash),
        header=decode_header(data[PROPOSAL_BYTES : PROPOSAL_BYTES + HEADER_BYTES]),
        vote=vote,
    )


def _encode_request(request: Request) -> bytes:
    return _REQUEST.pack(
        request.want, request.epoch, request.first, request.last, request.block_hash
    )


def _decode_request(data: bytes) -> Request:
    if len(data) != _REQUEST.size:
        raise DecodeError(f"{len(data)} bytes are no request")
    want, epoch, first, last, block_hash = _REQUEST.unpack(data)
    if not 1 <= want <= len(Want):
        raise DecodeError(f"nothing is asked for by the number {want}")
    if first > last and want == Want.VIEWS:
        raise DecodeError("the range of views is empty")
    return Request(want=Want(want), epoch=epoch, first=first, last=last, block_hash=block_hash)


def _encode_votes_answer(answer: VotesAnswer) -> bytes:
    assert len(answer.votes) <= VOTES_ANSWER_MAX
    head = _VOTES_HEAD.pack(answer.epoch, answer.signer, len(answer.votes))
    return head + b"".join(encode_vote(vote) for vote in answer.votes)


def _decode_votes_answer(data: bytes) -> VotesAnswer:
    if len(data) < _VOTES_HEAD.size:
        raise DecodeError("too short for votes")
    epoch, signer, count = _VOTES_HEAD.unpack_from(data)
    if count > VOTES_ANSWER_MAX or len(data) != _VOTES_HEAD.size + VOTE_BYTES * count:
        raise DecodeError(f"{len(data)} bytes do not hold {count} votes")
    votes = tuple(
        decode_vote(data[i : i + VOTE_BYTES])
        for i in range(_VOTES_HEAD.size, len(data), VOTE_BYTES)
    )
    if any(vote.epoch != epoch or vote.signer != signer for vote in votes):
        raise DecodeError("a vote is not of the epoch and signer that the answer names")
    return VotesAnswer(epoch=epoch, signer=signer, votes=votes)


def _encode_block_answer(answer: BlockAnswer) -> bytes:
    return encode_header(answer.header)


def _decode_block_answer(data: bytes) -> BlockAnswer:
    return BlockAnswer(header=decode_header(data))


def _encode_range(answer: RangeAnswer) -> bytes:
    assert 1 <= len(answer.headers) <= RANGE_HEADERS_MAX
    headers = b"".join(encode_header(header) for header in answer.headers)
    return _U16.pack(len(answer.headers)) + headers + encode_certificate(answer.certificate)


def _decode_range(data: bytes) -> RangeAnswer:
    count = int.from_bytes(data[:2], "little")
    end = 2 + HEADER_BYTES * count
    if not 1 <= count <= RANGE_HEADERS_MAX or len(data) < end:
        raise DecodeError(f"{len(data)} bytes do not hold {count} headers")
    return RangeAnswer(
        headers=tuple(
            decode_header(data[i : i + HEADER_BYTES]) for i in range(2, end, HEADER_BYTES)
        ),
        certificate=decode_certificate(data[end:]),
    )


def _encode_final(final: Final) -> bytes:
    return encode_header(final.header) + encode_certificate(final.certificate)


def _decode_final(data: bytes) -> Final:
    return Final(
        header=decode_header(data[:HEADER_BYTES]),
        certificate=decode_certificate(data[HEADER_BYTES:]),
    )


def _encode_evidence(evidence: Evidence) -> bytes:
    return encode_vote(evidence.first) + encode_vote(evidence.second)


def _decode_evidence(data: bytes) -> Evidence:
    if len(data) != 2 * VOTE_BYTES:
        raise DecodeError(f"{len(data)} bytes are no evidence")
    return Evidence(first=decode_vote(data[:VOTE_BYTES]), second=decode_vote(data[VOTE_BYTES:]))


_MESSAGES: dict[int, tuple[type, Callable[[Any], bytes], Callable[[bytes], Message]]] = {
    1: (Vote, encode_vote, decode_vote),
    2: (Propose, encode_propose, decode_propose),
    3: (Certificate, encode_certificate, decode_certificate),
    4: (Request, _encode_request, _decode_request),
    5: (VotesAnswer, _encode_votes_answer, _decode_votes_answer),
    6: (BlockAnswer, _encode_block_answer, _decode_block_answer),
    7: (RangeAnswer, _encode_range, _decode_range),
    8: (Final, _encode_final, _decode_final),
    9: (Evidence, _encode_evidence, _decode_evidence),
}
_ENCODERS = {made: (bytes([number]), encode) for number, (made, encode, _) in _MESSAGES.items()}


def encode_message(message: Message) -> bytes:
    """Return a message as it travels: its number, then its bytes."""
    number, encode = _ENCODERS[type(message)]
    return number + encode(message)


def decode_message(data: bytes) -> Message:
    """Return the one message in these bytes; raises DecodeError. Nothing is verified.

    `encode_message` of the result gives the same bytes again.
    """
    if not 1 <= len(data) <= MESSAGE_BYTES_MAX:
        raise DecodeError(f"a message has 1 to {MESSAGE_BYTES_MAX} bytes, not {len(data)}")
    if data[0] not in _MESSAGES:
        raise DecodeError(f"messages of number {data[0]} do not exist")
    return _MESSAGES[data[0]][2](data[1:])


def validator_set_bytes(validators: tuple[tuple[bytes, int], ...]) -> bytes:
    """Return the bytes of a validator set, sorted by key. Spec: spec/genesis.md#validators."""
    rows = [key + power.to_bytes(8, "little") for key, power in sorted(validators)]
    return len(rows).to_bytes(8, "little") + b"".join(rows)
