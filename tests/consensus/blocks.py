"""Final blocks as a store may hold them: linked headers, certificates now and then."""

import numpy as np

from consensus.core.types import (
    Boundary,
    Certificate,
    Epoch,
    Evidence,
    FinalizedBlock,
    Hash32,
    Header,
    Height,
    Kind,
    Proposal,
    PublicKey,
    Signature,
    Validator,
    View,
    Vote,
)


def hash32(rng: np.random.Generator) -> Hash32:
    """Return random bytes of a hash."""
    return Hash32(rng.bytes(32))


def make_certificate(rng: np.random.Generator, epoch: int, block_hash: Hash32) -> Certificate:
    """Return something with the shape of a finalization."""
    view = View(int(rng.integers(2, 2**40)))
    proposal = Proposal(
        epoch=Epoch(epoch), view=view, parent_view=View(view - 1), block_hash=block_hash
    )
    return Certificate(
        kind=Kind.FINALIZE,
        epoch=Epoch(epoch),
        view=view,
        proposal=proposal,
        validator_count=4,
        signers=0b1011,
        signatures=tuple(Signature(rng.bytes(64)) for _ in range(3)),
    )


def make_block(
    rng: np.random.Generator, height: int, epoch: int, *, is_certified: bool
) -> FinalizedBlock:
    """Return a block at a height."""
    block_hash = hash32(rng)
    header = Header(
        version=1,
        chain_id=7,
        epoch=Epoch(epoch),
        height=Height(height),
        parent_hash=hash32(rng),
        timestamp_ms=1_000 * height,
        proposer=PublicKey(rng.bytes(32)),
        fee_recipient=PublicKey(rng.bytes(32)),
        validator_set_id=hash32(rng),
        payload_commitment=hash32(rng),
        payload_bytes=int(rng.integers(2**20)),
        transaction_count=int(rng.integers(2**10)),
        transactions_root=hash32(rng),
        state_hash=hash32(rng),
        receipts_hash=hash32(rng),
    )
    certificate = make_certificate(rng, epoch, block_hash) if is_certified else None
    return FinalizedBlock(block_hash=block_hash, header=header, certificate=certificate)


def make_boundary(rng: np.random.Generator, block: FinalizedBlock) -> Boundary:
    """Return the beginning of the epoch after a certified block's."""
    assert block.certificate is not None
    return Boundary(
        epoch=Epoch(block.header.epoch + 1),
        block_hash=block.block_hash,
        header=block.header,
        certificate=block.certificate,
        validators=tuple(
            Validator(public_key=PublicKey(bytes([n]) + rng.bytes(31)), power=n + 1)
            for n in range(int(rng.integers(1, 6)))
        ),
    )


def make_evidence(rng: np.random.Generator, epoch: int, view: int) -> Evidence:
    """Return two votes of one signer."""
    signer = int(rng.integers(4))
    first, second = (
        Vote(
            kind=Kind.NOTARIZE,
            epoch=Epoch(epoch),
            view=View(view),
            pid=hash32(rng),
            signer=signer,
            signature=Signature(rng.bytes(64)),
        )
        for _ in range(2)
    )
    return Evidence(first=first, second=second)
