"""Quorums, signed bytes, certificates and leaders once more, shared with nothing of the core.

Written from spec/consensus.md alone: a mistake of the core in one of these must not be repeated by
the checks that look for it.
"""

import struct
from typing import TYPE_CHECKING

from consensus.core.types import Certificate, Header, Kind, Proposal, Vote
from tests.sim.keys import digest

if TYPE_CHECKING:
    from tests.sim.world import World

NAMES = {Kind.NOTARIZE: "notarize", Kind.NULLIFY: "nullify", Kind.FINALIZE: "finalize"}
_PROPOSAL = struct.Struct("<QQQ32s")
_HEADER = struct.Struct("<II QQ 32s Q 32s 32s 32s 32s QQ 32s 32s 32s 32s 32s 32s")


def header_bytes(header: Header) -> bytes:
    """Return the 400 bytes of a header."""
    return _HEADER.pack(
        header.version, header.chain_id, header.epoch, header.height, header.parent_hash,
        header.timestamp_ms, header.proposer, header.fee_recipient, header.validator_set_id,
        header.payload_commitment, header.payload_bytes, header.transaction_count,
        header.transactions_root, header.state_hash, header.receipts_hash, header.system_hash,
        header.next_validator_set_hash, header.reserved,
    )  # fmt: skip


class EpochFacts:
    """What is fixed for one epoch: members in the order of keys, powers, faulty power."""

    def __init__(self, world: "World", epoch: int) -> None:
        """Read the scenario."""
        keys, digest = world.keyring.public_keys, world.keyring.hash
        row = sorted((keys[node], node, power) for node, power in world.scenario.sets_at(epoch))
        self.keys = [key for key, _, _ in row]
        self.nodes = [node for _, node, _ in row]
        """by signer index"""
        self.powers = [power for _, _, power in row]
        self.signer_of = {node: at for at, node in enumerate(self.nodes)}
        self.faulty_signers = {at for at, node in enumerate(self.nodes) if node in world.byzantine}
        self.total = sum(self.powers)
        self.faulty = sum(self.powers[at] for at in self.faulty_signers)
        assert 3 * self.faulty < self.total, "a scenario keeps faulty power below a third"
        text = len(row).to_bytes(8, "little")
        text += b"".join(key + power.to_bytes(8, "little") for key, _, power in row)
        self.set_id = digest("tos validator set v1", text)
        genesis = world.chain.genesis_hash
        self._heads = {
            kind: digest(f"tos {name} v1", genesis) + epoch.to_bytes(8, "little") + self.set_id
            for kind, name in NAMES.items()
        }

    def is_quorum(self, power: int) -> bool:
        """Say whether power is more than two thirds."""
        return 3 * power > 2 * self.total

    def message(self, kind: Kind, view: int, pid: bytes) -> bytes:
        """Return what a vote signs."""
        return self._heads[kind] + view.to_bytes(8, "little") + pid


class Arithmetic:
    """The facts of all epochs of a world, computed when first needed."""

    def __init__(self, world: "World") -> None:
        """Remember the world; everything else is computed."""
        self._world = world
        self._hash = world.keyring.hash
        self._epochs: dict[int, EpochFacts] = {}
        self._leaders: dict[tuple[int, int], int] = {}
        self._good: dict[tuple[Kind, int, int, bytes, int, tuple[bytes, ...]], bool] = {}

    def proposal_id(self, proposal: Proposal) -> bytes:
        """Return what a vote for a proposal names."""
        epoch, view, parent = proposal.epoch, proposal.view, proposal.parent_view
        data = _PROPOSAL.pack(epoch, view, parent, proposal.block_hash)
        return self._hash("tos proposal v1", data)

    def block_hash(self, header: Header) -> bytes:
        """Return the hash that names a block."""
        return self._hash("tos header v1", header_bytes(header))

    def epoch(self, epoch: int) -> EpochFacts:
        """Return an epoch's facts."""
        found = self._epochs.get(epoch)
        if found is None:
            found = self._epochs[epoch] = EpochFacts(self._world, epoch)
        return found

    def leader(self, epoch: int, view: int, seed: bytes) -> int:
        """Return the node that leads a view; `seed`: hash of the boundary block of epoch - 2."""
        found = self._leaders.get((epoch, view))
        if found is None:
            facts = self.epoch(epoch)
            data = self._world.chain.genesis_hash + epoch.to_bytes(8, "little")
            text = self._hash("tos leader v1", data + view.to_bytes(8, "little") + seed)
            point = int.from_bytes(text, "little") % facts.total
            at = 0
            while point >= facts.powers[at]:
                point -= facts.powers[at]
                at += 1
            found = self._leaders[epoch, view] = facts.nodes[at]
        return found

    def is_signed(self, vote: Vote) -> bool:
        """Say whether a vote carries its signer's signature."""
        facts = self.epoch(vote.epoch)
        if vote.signer >= len(facts.keys):
            return False
        message = facts.message(vote.kind, vote.view, vote.pid)
        return self._world.keyring.verify(facts.keys[vote.signer], message, vote.signature)

    def is_certificate(self, certificate: Certificate) -> bool:
        """Say whether a certificate holds: members, power, every signature."""
        kind, proposal = certificate.kind, certificate.proposal
        pid = bytes(32) if proposal is None else self.proposal_id(proposal)
        key = (kind, certificate.epoch, certificate.view, pid, certificate.signers,
               certificate.signatures)  # fmt: skip
        found = self._good.get(key)
        if found is None:
            found = self._good[key] = self._judge(certificate, pid)
        return found

    def _judge(self, certificate: Certificate, pid: bytes) -> bool:
        facts = self.epoch(certificate.epoch)
        proposal = certificate.proposal
        if (certificate.kind == Kind.NULLIFY) != (proposal is None) or (
            proposal is not None
            and (proposal.epoch, proposal.view) != (certificate.epoch, certificate.view)
        ):
            return False
        signers = [at for at in range(len(facts.keys)) if certificate.signers >> at & 1]
        if certificate.signers >> len(facts.keys) or len(signers) != len(certificate.signatures):
            return False
        if certificate.validator_count != len(facts.keys):
            return False
        message = facts.message(certificate.kind, certificate.view, pid)
        return facts.is_quorum(sum(facts.powers[at] for at in signers)) and all(
            self._world.keyring.verify(facts.keys[at], message, signature)
            for at, signature in zip(signers, certificate.signatures, strict=True)
        )


def execute_serially(balances: list[int], payload: bytes) -> tuple[bytes, bytes]:
    """Apply a payload to `balances` in place; answer (state_hash, receipts_hash)."""
    receipts = b""
    for at in range(0, len(payload), 4):
        sender, recipient = payload[at], payload[at + 1]
        amount = payload[at + 2] | payload[at + 3] << 8
        if amount <= balances[sender]:
            balances[sender] -= amount
            balances[recipient] += amount
            receipts += b"\1"
        else:
            receipts += b"\0"
    state = b"".join(balance.to_bytes(4, "little") for balance in balances)
    return digest("toy state", state), digest("toy receipts", receipts)
