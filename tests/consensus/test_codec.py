"""Messages as bytes: one encoding per message, and nothing hostile gets through."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.core import types as t
from consensus.core.codec import (
    CERTIFICATE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    DecodeError,
    decode_header,
    decode_message,
    encode_header,
    encode_message,
)

U64 = st.integers(0, 2**64 - 1)
HASHES = st.binary(min_size=32, max_size=32)
PIDS = HASHES.filter(lambda pid: pid != bytes(32))
SIGNATURES = st.binary(min_size=64, max_size=64)
HEADERS = st.builds(
    t.Header,
    version=st.integers(0, 2**32 - 1),
    chain_id=st.integers(0, 2**32 - 1),
    **dict.fromkeys(("epoch", "height", "timestamp_ms", "payload_bytes", "transaction_count"), U64),
    **dict.fromkeys(
        (
            "parent_hash",
            "proposer",
            "fee_recipient",
            "validator_set_id",
            "payload_commitment",
            "transactions_root",
            "state_hash",
            "receipts_hash",
            "system_hash",
            "next_validator_set_hash",
            "reserved",
        ),
        HASHES,
    ),
)


@st.composite
def votes(draw: Any, kind: t.Kind | None = None, epoch: int | None = None) -> t.Vote:
    """Draw a vote that some validator can mean."""
    chosen = kind or draw(st.sampled_from(list(t.Kind)))
    return t.Vote(
        kind=chosen,
        epoch=t.Epoch(draw(U64) if epoch is None else epoch),
        view=draw(st.integers(1, 2**64 - 1)),
        pid=t.ZERO_HASH if chosen == t.Kind.NULLIFY else t.Hash32(draw(PIDS)),
        signer=draw(st.integers(0, 1023)),
        signature=draw(SIGNATURES),
    )


@st.composite
def certificates(draw: Any) -> t.Certificate:
    """Draw a certificate of the right form."""
    kind = draw(st.sampled_from(list(t.Kind)))
    view, epoch = draw(st.integers(1, 2**64 - 1)), draw(U64)
    count = draw(st.integers(1, 40))
    signers = draw(st.integers(0, 2**count - 1))
    proposal = None
    if kind != t.Kind.NULLIFY:
        proposal = t.Proposal(
            epoch=epoch,
            view=view,
            parent_view=draw(st.integers(0, view - 1)),
            block_hash=draw(HASHES),
        )
    return t.Certificate(
        kind=kind,
        epoch=epoch,
        view=view,
        proposal=proposal,
        validator_count=count,
        signers=signers,
        signatures=tuple(draw(SIGNATURES) for _ in range(signers.bit_count())),
    )


@st.composite
def proposes(draw: Any) -> t.Propose:
    """Draw a proposal message whose parts agree."""
    vote = draw(votes(kind=t.Kind.NOTARIZE))
    proposal = t.Proposal(
        epoch=vote.epoch,
        view=vote.view,
        parent_view=draw(st.integers(0, vote.view - 1)),
        block_hash=draw(HASHES),
    )
    return t.Propose(proposal=proposal, header=draw(HEADERS), vote=vote)


@st.composite
def votes_answers(draw: Any) -> t.VotesAnswer:
    """Draw votes of one signer in one epoch."""
    epoch, signer = draw(U64), draw(st.integers(0, 1023))
    made = draw(st.lists(votes(epoch=epoch), max_size=3))
    fixed = tuple(
        t.Vote(
            kind=v.kind,
            epoch=v.epoch,
            view=v.view,
            pid=v.pid,
            signer=signer,
            signature=v.signature,
        )
        for v in made
    )
    return t.VotesAnswer(epoch=epoch, signer=signer, votes=fixed)


REQUESTS = st.builds(
    lambda want, epoch, first, more, block_hash: t.Request(
        want=want,
        epoch=epoch,
        first=first,
        last=min(first + more, 2**64 - 1),
        block_hash=block_hash,
    ),
    st.sampled_from(list(t.Want)),
    U64,
    U64,
    st.integers(0, 1000),
    HASHES,
)
MESSAGES = st.one_of(
    votes(),
    proposes(),
    certificates(),
    REQUESTS,
    votes_answers(),
    st.builds(t.BlockAnswer, header=HEADERS),
    st.builds(
        t.RangeAnswer,
        headers=st.lists(HEADERS, min_size=1, max_size=3).map(tuple),
        certificate=certificates(),
    ),
    st.builds(t.Final, header=HEADERS, certificate=certificates()),
    st.builds(t.Evidence, first=votes(), second=votes()),
)


@given(HEADERS)
def test_a_header_survives(header: t.Header) -> None:
    """400 bytes and back."""
    data = encode_header(header)
    assert len(data) == 400
    assert decode_header(data) == header


@given(MESSAGES)
def test_a_message_survives(message: t.Message) -> None:
    """Every message decodes to what was encoded, and is below the limit."""
    data = encode_message(message)
    assert len(data) <= MESSAGE_BYTES_MAX
    assert decode_message(data) == message


@given(MESSAGES, st.data())
def test_changed_bytes_are_refused_or_mean_something_else(
    message: t.Message, data: st.DataObject
) -> None:
    """One content has one encoding: a flipped bit, a cut or an added byte never means the same."""
    encoded = bytearray(encode_message(message))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= 1 << data.draw(st.integers(0, 7))
    for hostile in (bytes(encoded), encode_message(message)[:-1], encode_message(message) + b"\0"):
        try:
            decoded = decode_message(hostile)
        except DecodeError:
            continue
        assert decoded != message
        assert encode_message(decoded) == hostile


@given(st.binary(max_size=700))
def test_garbage_is_refused_or_is_a_message(data: bytes) -> None:
    """Random bytes raise DecodeError and nothing else, or encode to themselves again."""
    try:
        message = decode_message(data)
    except DecodeError:
        return
    assert encode_message(message) == data


def vote_bytes(
    kind: int = 1, view: int = 1, pid: bytes = b"p" * 32, signer: int = 0, epoch: int = 0
) -> bytes:
    """Return an encoded vote, unchecked."""
    numbers = epoch.to_bytes(8, "little") + view.to_bytes(8, "little")
    return bytes([1, kind]) + numbers + pid + signer.to_bytes(2, "little") + bytes(64)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\x0a" + bytes(200),
        bytes(MESSAGE_BYTES_MAX + 1),
        vote_bytes(kind=0),
        vote_bytes(kind=4),
        vote_bytes(view=0),
        vote_bytes(pid=bytes(32)),
        vote_bytes(kind=2),
        vote_bytes(signer=1024),
        b"\3" + b"\2\2" + bytes(8) + b"\1" + bytes(7) + bytes(40) + b"\4\0" + b"\0",
        b"\3" + b"\2\1" + bytes(8) + b"\1" + bytes(7) + bytes(40) + b"\4\0" + b"\x10" + bytes(64),
        b"\3" + b"\2\1" + bytes(8) + b"\1" + bytes(7) + bytes(40) + b"\0\0",
        b"\3" + b"\2\1" + bytes(8) + b"\1" + bytes(7) + bytes(40) + b"\1\4" + bytes(129),
        b"\7" + b"\0\0",
        b"\7" + b"\x41\0" + bytes(400 * 65),
    ],
)
def test_what_no_peer_means_is_refused(data: bytes) -> None:
    """Kinds, views, pids, signers, schemes, bitmaps and counts out of range."""
    with pytest.raises(DecodeError):
        decode_message(data)


def test_the_largest_certificate_fits() -> None:
    """1,024 signatures are below the limits of a certificate and a message."""
    proposal = t.Proposal(
        epoch=t.Epoch(0), view=t.View(1), parent_view=t.View(0), block_hash=t.Hash32(b"b" * 32)
    )
    largest = t.Certificate(
        kind=t.Kind.FINALIZE,
        epoch=t.Epoch(0),
        view=t.View(1),
        proposal=proposal,
        validator_count=1024,
        signers=2**1024 - 1,
        signatures=(t.Signature(b"s" * 64),) * 1024,
    )
    data = encode_message(largest)
    assert len(data) == 1 + CERTIFICATE_BYTES_MAX
    assert decode_message(data) == largest
