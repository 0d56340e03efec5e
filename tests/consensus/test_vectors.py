"""The published vectors and the oracle, with the node's real cryptography."""

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from consensus.core.certificates import is_valid
from consensus.core.codec import (
    decode_message,
    encode_header,
    encode_message,
    validator_set_bytes,
)
from consensus.core.epochs import hash_set, open_epoch
from consensus.core.leader import leader_index
from consensus.core.safety import Rules
from consensus.core.state import State
from consensus.core.types import (
    Certificate,
    Chain,
    Epoch,
    Hash32,
    Header,
    Height,
    Kind,
    Proposal,
    PublicKey,
    Validator,
    View,
    Vote,
)
from spec import oracle
from tests.consensus.crypto import RealCrypto
from tests.consensus.net import PARAMETERS

FILE = Path(__file__).parents[1] / "vectors" / "consensus.json"
CASES: list[dict[str, Any]] = json.loads(FILE.read_text())
SIGNING_KEYS = [SigningKey(bytes([i]) * 32) for i in range(1, 5)]
CRYPTO = RealCrypto(SIGNING_KEYS[0])


def world(case: dict[str, Any]) -> tuple[Chain, tuple[Validator, ...]]:
    """Return the chain and the set of a case."""
    members = tuple(
        Validator(public_key=PublicKey(bytes.fromhex(key)), power=int(power))
        for key, power in case["validators"]
    )
    chain = Chain(
        chain_id=7,
        genesis_hash=Hash32(bytes.fromhex(case["genesis_hash"])),
        params_hash=Hash32(bytes(32)),
        timestamp_ms=0,
        parameters=PARAMETERS,
        validators=(members, members),
    )
    return chain, members


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['kind']}-{c['epoch']}-{c['view']}")
def test_the_core_gives_the_vectors(case: dict[str, Any]) -> None:
    """Set id, quorum, leader, pid, signed message, vote and certificate, bit for bit."""
    chain, members = world(case)
    seed = Hash32(bytes.fromhex(case["genesis_hash"]))
    epoch = open_epoch(
        chain=chain,
        crypto=CRYPTO,
        rules=Rules(),
        number=int(case["epoch"]),
        validators=members,
        seed=seed,
    )
    kind, view = Kind(int(case["kind"])), View(int(case["view"]))
    assert epoch.set_id.hex() == case["validator_set_id"]
    assert epoch.quorum == int(case["quorum"])
    powers = [member.power for member in members]
    leader = leader_index(
        CRYPTO, chain.genesis_hash, epoch.number, view, seed, list(accumulate(powers))
    )
    assert leader == int(case["leader"])
    pid = Hash32(bytes.fromhex(case["pid"]))
    assert epoch.vote_message(kind, view, pid).hex() == case["signed_message"]
    st = State(chain, CRYPTO, Rules(), None, 0)
    proposal = Proposal(
        epoch=epoch.number,
        view=view,
        parent_view=View(int(case["parent_view"])),
        block_hash=Hash32(bytes.fromhex(case["block_hash"])),
    )
    if kind != Kind.NULLIFY:
        assert st.pid(proposal) == pid
    vote = decode_message(bytes.fromhex(case["vote"]))
    assert isinstance(vote, Vote)
    assert (vote.kind, vote.epoch, vote.view, vote.pid) == (kind, epoch.number, view, pid)
    assert CRYPTO.verify(
        epoch.keys[vote.signer], epoch.vote_message(kind, view, pid), vote.signature
    )
    assert encode_message(vote).hex() == case["vote"]
    certificate = decode_message(bytes.fromhex(case["certificate"]))
    assert isinstance(certificate, Certificate)
    assert encode_message(certificate).hex() == case["certificate"]
    assert is_valid(st, epoch, certificate) is case["valid"]
    signatures = (certificate.signatures[1], *certificate.signatures[1:])
    assert not is_valid(st, epoch, replace(certificate, signatures=signatures))


def test_the_oracle_hashes_headers_the_same() -> None:
    """Block hashes of the core and of the page on blocks agree on a header full of values."""
    names = [name for name, _ in oracle.HEADER_FIELDS]
    values: dict[str, Any] = {
        name: (i + 1) if width < 32 else bytes([i + 1]) * 32
        for i, (name, width) in enumerate(oracle.HEADER_FIELDS)
    }
    header = Header(**values)
    assert list(Header.__dataclass_fields__) == names
    assert encode_header(header) == oracle.encode_header(values)
    st = State(world(CASES[0])[0], CRYPTO, Rules(), None, 0)
    assert st.hash_of(header) == oracle.block_hash(oracle.encode_header(values))
    assert header.height == Height(4)


def test_set_bytes_are_those_of_genesis() -> None:
    """The id of a set is the one that genesis and headers name."""
    _, members = world(CASES[0])
    pairs = [(member.public_key, member.power) for member in members]
    assert validator_set_bytes(tuple(pairs)) == oracle.validator_set_bytes(pairs)
    assert hash_set(CRYPTO, members) == oracle.validator_set_id(pairs)
    assert Epoch(0) == 0
