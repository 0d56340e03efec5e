"""`chain.json` of a home: what all nodes of the chain agree on before the first block.

The executor alone reads genesis; it prints this (`python -m engine genesis show --json`), and the
home keeps it. That both mean the same chain is compared again at every start: the executor's
status names genesis_hash and params_hash.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from consensus.core import state
from consensus.core.types import (
    VALIDATOR_COUNT_MAX,
    Chain,
    Hash32,
    Parameters,
    PublicKey,
    Validator,
)
from engine_api.parameters import UNFINALIZED_MAX, objection
from runtime.decoding import decodable
from runtime.errors import ExplainedError
from runtime.keypair import is_public_key

assert UNFINALIZED_MAX == state.UNFINALIZED_MAX, "spec/consensus.md, P2"

CHAIN_NAME = "chain.json"
FILE_BYTES_MAX = 2**20
POWER_END = 2**63
"""of a set, exclusive; spec/genesis.md#validators"""
Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Positive = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class ChainError(ExplainedError):
    """A `chain.json` that cannot be used. Codes begin with `chain.`"""


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A validator as the file names it."""

    public_key: Hex32
    power: Positive


Members = Annotated[tuple[Member, ...], Meta(min_length=1, max_length=VALIDATOR_COUNT_MAX)]


@decodable
class ChainFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file: printed by the executor's command, never written by hand."""

    chain_id: Positive
    genesis_hash: Hex32
    params_hash: Hex32
    timestamp_ms: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    address_prefix: str
    symbol: str
    accounts: int
    parameters: Parameters
    validator_sets: tuple[Members, Members]
    """of epochs 0 and 1"""

    @property
    def chain(self) -> Chain:
        """What the replica is built from."""
        first, second = (
            tuple(
                Validator(public_key=PublicKey(bytes.fromhex(item.public_key)), power=item.power)
                for item in members
            )
            for members in self.validator_sets
        )
        return Chain(
            chain_id=self.chain_id,
            genesis_hash=Hash32(bytes.fromhex(self.genesis_hash)),
            params_hash=Hash32(bytes.fromhex(self.params_hash)),
            timestamp_ms=self.timestamp_ms,
            parameters=self.parameters,
            validators=(first, second),
        )


def parse_chain(data: bytes, where: str) -> ChainFile:
    """Return what the bytes say; raises ChainError."""
    try:
        found = msgspec.json.decode(data, type=ChainFile, strict=True)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _bad(where, str(error)) from error
    for members in found.validator_sets:
        keys = [member.public_key for member in members]
        if sorted(set(keys)) != keys:
            raise _bad(where, "a validator set is not ascending by key")
        if sum(member.power for member in members) >= POWER_END:
            raise _bad(where, "the power of a validator set is not below 2^63")
        for key in keys:
            if not is_public_key(bytes.fromhex(key)):
                why = (
                    "encodes no point of Ed25519's prime-order subgroup, as a validator's key does"
                )
                raise _bad(where, f"the key {key} {why}")
    wrong = objection(asdict(found.parameters))
    if wrong is not None:
        raise _bad(where, f"parameters.{wrong.name}: {wrong.what}; {wrong.why}")
    return found


def read_chain(path: Path) -> ChainFile:
    """Return the chain of a home; raises ChainError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _bad(str(path), error.strerror or str(error)) from error
    if len(data) > FILE_BYTES_MAX:
        raise _bad(str(path), f"it has more than {FILE_BYTES_MAX} bytes")
    return parse_chain(data, str(path))


def _bad(where: str, why: str) -> ChainError:
    return ChainError(
        "chain.file",
        what="this does not describe a chain",
        where=where,
        why=why,
        what_to_do="write it again: python -m engine genesis show --genesis FILE --json",
    )
