"""The adversary: all Byzantine validators as one mind that sees every message when it is sent.

It votes for everything, also for what contradicts itself, leads with two blocks, stale parents,
withheld payloads, wrong headers and wrong sets, forms certificates and shows them to some, and
repeats what was said in other epochs and on another chain. `twins` are two correct replicas with
one key (in `World`).
"""

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from consensus.core.types import (
    HEADER_VERSION,
    ZERO_HASH,
    Certificate,
    Epoch,
    Final,
    Hash32,
    Header,
    Height,
    Kind,
    Message,
    Proposal,
    Propose,
    PublicKey,
    Signature,
    View,
    Vote,
)
from tests.sim import events as sim
from tests.sim import ledger
from tests.sim.arithmetic import NAMES, EpochFacts
from tests.sim.keys import digest
from tests.sim.noise import Noise

if TYPE_CHECKING:
    from tests.sim.world import World

LEADING = ("equivocate", "stale", "withhold", "partial", "garbage", "honest")
REMEMBERED_MAX = 400
"""messages kept to be repeated"""
PROPOSALS_PER_VIEW_MAX = 6
Slot = tuple[Kind, int, int, bytes]


class Adversary:
    """Everything that Byzantine validators (twins aside) do."""

    def __init__(self, world: "World") -> None:
        """Take over the Byzantine validators of a world."""
        self.world = world
        self.rng = random.Random(f"adversary {world.scenario.seed}")
        self.strategy = {
            node: strategy
            for node, strategy in zip(
                world.scenario.byzantine, world.scenario.strategies, strict=True
            )
            if strategy != "twins"
        }
        self.payloads: dict[bytes, bytes] = {}
        self._states: dict[bytes, ledger.State] = {world.chain.genesis_hash: ledger.OPENING_STATE}
        self.proposals: dict[tuple[int, int], list[Proposal]] = {}
        self._notarized: dict[int, dict[int, Proposal]] = {}
        self._votes: dict[Slot, dict[int, Signature]] = {}
        self._shown: set[Slot] = set()
        self._begun: set[tuple[int, int]] = set()
        self.noise = Noise(self)
        self._seen: set[tuple[bytes, int]] = set()
        self.remembered: list[Message] = []

    def begin(self) -> None:
        """Wait for the first view."""
        if self.strategy:
            self._enter(0, 1)

    def entered(self) -> set[tuple[int, int]]:
        """Return the (epoch, view) pairs that the adversary has seen begin."""
        return self._begun

    # --- seeing -------------------------------------------------------------------------------

    def saw(self, message: Message) -> None:
        """See what somebody sends, before it arrives anywhere."""
        if not self.strategy:
            return
        if type(message) is Vote:
            self._saw_vote(message)
        elif type(message) is Propose:
            self._saw_proposal(message)
        elif type(message) is Certificate:
            self._saw_certificate(message)
        elif isinstance(message, Final):
            self._saw_certificate(message.certificate)

    def _saw_vote(self, vote: Vote) -> None:
        slot = (vote.kind, vote.epoch, vote.view, vote.pid)
        votes = self._votes.setdefault(slot, {})
        if vote.signer in votes:
            return
        votes[vote.signer] = vote.signature
        self._remember(vote)
        self._enter(vote.epoch, vote.view)
        self._try_certificate(slot)

    def _saw_proposal(self, message: Propose) -> None:
        proposal = message.proposal
        known = self.proposals.setdefault((proposal.epoch, proposal.view), [])
        if proposal in known or len(known) >= PROPOSALS_PER_VIEW_MAX:
            return
        known.append(proposal)
        self.world.checks.learn(message)
        self._enter(proposal.epoch, proposal.view)
        self._saw_vote(message.vote)
        for node in self._members(proposal.epoch):
            self._plan("vote", node, Kind.NOTARIZE, proposal)

    def _saw_certificate(self, certificate: Certificate) -> None:
        key = (certificate.signatures[0], certificate.kind)
        if key in self._seen:
            return
        self._seen.add(key)
        self._remember(certificate)
        proposal = certificate.proposal
        if proposal is not None:
            self._notarized.setdefault(certificate.epoch, {})[certificate.view] = proposal
            for node in self._members(certificate.epoch):
                self._plan("vote", node, Kind.FINALIZE, proposal)
        self._enter(certificate.epoch, certificate.view + 1)

    def _remember(self, message: Message) -> None:
        if len(self.remembered) < REMEMBERED_MAX:
            self.remembered.append(message)
        else:
            self.remembered[self.rng.randrange(REMEMBERED_MAX)] = message

    def _members(self, epoch: int) -> list[int]:
        facts = self.world.checks.arithmetic.epoch(epoch)
        return [node for node in self.strategy if node in facts.signer_of]

    def _plan(self, what: str, node: int, *rest: Any) -> None:
        delay_ms = self.rng.choice((0, 0, 5, 30, self.world.scenario.delta_ms))
        self.world.push(delay_ms, sim.ADVERSARY, 0, 0, (what, node, *rest))

    def _enter(self, epoch: int, view: int) -> None:
        if (epoch, view) in self._begun:
            return
        self._begun.add((epoch, view))
        members = self._members(epoch)
        for node in members:
            self._plan("view", node, epoch, view)
        if members:
            self.world.push(1, sim.ADVERSARY, 0, 0, ("lead", members[0], epoch, view))

    # --- acting -------------------------------------------------------------------------------

    def act(self, data: tuple[Any, ...]) -> None:
        """Do something that was planned."""
        what, node, *rest = data
        if self.strategy.get(node) == "silent":
            return
        if what == "vote":
            kind, proposal = rest
            if self.rng.randrange(5):
                self._vote(node, kind, proposal.epoch, proposal.view, proposal)
        elif what == "view":
            epoch, view = rest
            if self.rng.randrange(2):
                self._vote(node, Kind.NULLIFY, epoch, view, None)
            self.noise.disturb(node, epoch, view)
        else:
            assert what == "lead", what
            self._lead(*rest)

    def facts(self, epoch: int) -> EpochFacts:
        """Return what is fixed for an epoch."""
        return self.world.checks.arithmetic.epoch(epoch)

    def signed(
        self, node: int, kind: Kind, epoch: int, view: int, proposal: Proposal | None
    ) -> Vote:
        """Sign a vote with a Byzantine validator's key."""
        facts = self.facts(epoch)
        pid = (
            ZERO_HASH
            if proposal is None
            else Hash32(self.world.checks.arithmetic.proposal_id(proposal))
        )
        message = self._message(facts, kind, epoch, view, pid)
        key = facts.keys[facts.signer_of[node]]
        return Vote(
            kind=kind,
            epoch=Epoch(epoch),
            view=View(view),
            pid=pid,
            signer=facts.signer_of[node],
            signature=Signature(self.world.keyring.sign(key, message)),
        )

    def _message(self, facts: EpochFacts, kind: Kind, epoch: int, view: int, pid: bytes) -> bytes:
        """Return what a vote signs, by the rules that this world's nodes follow."""
        domain = Hash32(
            self.world.keyring.hash(f"tos {NAMES[kind]} v1", self.world.chain.genesis_hash)
        )
        prefix = self.world.mutant.rules.vote_prefix(domain, Epoch(epoch), Hash32(facts.set_id))
        return prefix + view.to_bytes(8, "little") + pid

    def _vote(
        self, node: int, kind: Kind, epoch: int, view: int, proposal: Proposal | None
    ) -> None:
        vote = self.signed(node, kind, epoch, view, proposal)
        self._votes.setdefault((kind, epoch, view, vote.pid), {})[vote.signer] = vote.signature
        self.send(node, vote, some=self.rng.randrange(3) == 0)
        self._try_certificate((kind, epoch, view, vote.pid))

    def send(self, node: int, message: Message, *, some: bool = False) -> None:
        """Send to everybody, or to some."""
        for to in range(self.world.scenario.nodes):
            if to != node and not (some and self.rng.randrange(2)):
                self.world.carry(node, to, message)

    # --- certificates -------------------------------------------------------------------------

    def _try_certificate(self, slot: Slot) -> None:
        """Form a certificate as soon as honest votes and all Byzantine ones suffice."""
        kind, epoch, view, pid = slot
        if slot in self._shown:
            return
        facts, votes = self.facts(epoch), self._votes[slot]
        own = {facts.signer_of[node]: node for node in self._members(epoch)}
        power = sum(facts.powers[s] for s in {*votes, *own} if s < len(facts.powers))
        if not facts.is_quorum(power):
            return
        proposal = None
        if kind != Kind.NULLIFY:
            proposal = self.world.checks.proposals.get(pid)
            if proposal is None:
                return
        self._shown.add(slot)
        for signer, node in own.items():
            if signer not in votes:
                votes[signer] = self.signed(node, kind, epoch, view, proposal).signature
        signers = sorted(votes)
        certificate = Certificate(
            kind=kind,
            epoch=Epoch(epoch),
            view=View(view),
            proposal=proposal,
            validator_count=len(facts.keys),
            signers=sum(1 << signer for signer in signers),
            signatures=tuple(votes[signer] for signer in signers),
        )
        if proposal is not None:
            self._notarized.setdefault(epoch, {})[view] = proposal
        if own and self.rng.randrange(2):
            sender = self.rng.choice(sorted(own.values()))
            self.world.carry(sender, self.rng.randrange(self.world.scenario.nodes), certificate)

    # --- leading ------------------------------------------------------------------------------

    def _lead(self, epoch: int, view: int) -> None:
        world = self.world
        boundary = max(0, (epoch - 1) * world.scenario.heights_per_epoch)
        if boundary >= len(world.checks.final):
            return
        leader = world.checks.arithmetic.leader(epoch, view, world.checks.final[boundary])
        if leader not in self.strategy:
            return
        how = self.strategy[leader]
        if how == "silent":
            return
        if how not in LEADING or self.rng.randrange(4) == 0:
            how = self.rng.choice(LEADING)
        parents = self._parents(epoch, view)
        if not parents:
            return
        best = parents[-1]
        if how == "stale" and len(parents) > 1:
            best = self.rng.choice(parents[-4:-1])
            if self.rng.randrange(2):
                self._propose(leader, epoch, view, parents[-1], how)
        self._propose(leader, epoch, view, best, how)
        if how == "equivocate" or (how == "garbage" and self.rng.randrange(2)):
            self._propose(leader, epoch, view, self.rng.choice(parents[-2:]), how)

    def _parents(self, epoch: int, view: int) -> list[tuple[int, bytes]]:
        """Return (view, block hash) of what could be built on, ascending."""
        anchor = epoch * self.world.scenario.heights_per_epoch
        found = []
        if anchor < len(self.world.checks.final):
            found.append((0, self.world.checks.final[anchor]))
        notarized = self._notarized.get(epoch, {})
        found += [(v, notarized[v].block_hash) for v in sorted(notarized) if v < view]
        return found

    def _propose(
        self, leader: int, epoch: int, view: int, parent: tuple[int, bytes], how: str
    ) -> None:
        parent_view, parent_hash = parent
        length = self.world.scenario.heights_per_epoch
        ends = parent_hash in self.world.checks.headers and (
            self.world.checks.headers[parent_hash].height == (epoch + 1) * length
        )
        header: Header | None
        if parent_view and (self.rng.randrange(8) == 0 or (ends and self.rng.randrange(3))):
            header = self.world.checks.headers.get(parent_hash)
        else:
            header = self._header(leader, epoch, parent_hash, how)
        if header is None:
            return
        proposal = Proposal(
            epoch=Epoch(epoch),
            view=View(view),
            parent_view=View(parent_view),
            block_hash=Hash32(self.world.checks.arithmetic.block_hash(header)),
        )
        vote = self.signed(leader, Kind.NOTARIZE, epoch, view, proposal)
        message = Propose(proposal=proposal, header=header, vote=vote)
        self._saw_proposal(message)
        self.send(leader, message, some=how == "partial" or self.rng.randrange(8) == 0)
        payload = self.payloads.get(header.payload_commitment)
        if payload is not None:
            for to in range(self.world.scenario.nodes):
                if how != "withhold" or self.rng.randrange(3) == 0:
                    self.world.carry_payload(leader, to, header.payload_commitment, payload)

    def _header(self, leader: int, epoch: int, parent_hash: bytes, how: str) -> Header | None:
        """Build a block with a random payload; `garbage` makes one field of it wrong."""
        world, rng = self.world, self.rng
        state = self._state(parent_hash)
        if state is None:
            return None
        parent = world.checks.headers.get(parent_hash)
        height = parent.height + 1 if parent else 1
        parent_ms = parent.timestamp_ms if parent else world.genesis_time_ms
        payload = world.transfers(rng.randint(0, 4))
        result = ledger.execute(state, payload)
        commitment = Hash32(ledger.commitment(payload))
        self.payloads[commitment] = payload
        is_end = height % world.scenario.heights_per_epoch == 0
        next_set = self.facts(epoch + 1).set_id if is_end else ZERO_HASH
        if is_end and how != "honest" and rng.randrange(2):
            next_set = digest("wrong", next_set)
        header = Header(
            version=HEADER_VERSION,
            chain_id=world.chain.chain_id,
            epoch=Epoch(epoch),
            height=Height(height),
            parent_hash=Hash32(parent_hash),
            timestamp_ms=max(parent_ms + 1, world.genesis_time_ms + world.now_ms),
            proposer=PublicKey(world.keyring.public_keys[leader]),
            fee_recipient=PublicKey(world.keyring.public_keys[leader]),
            validator_set_id=Hash32(self.facts(epoch).set_id),
            payload_commitment=commitment,
            payload_bytes=len(payload),
            transaction_count=len(payload) // ledger.TRANSFER_BYTES,
            transactions_root=Hash32(result.transactions_root),
            state_hash=Hash32(result.state_hash),
            receipts_hash=Hash32(result.receipts_hash),
            next_validator_set_hash=Hash32(next_set),
        )
        return self._spoiled(header) if how == "garbage" else header

    def _spoiled(self, header: Header) -> Header:
        wrong = Hash32(digest("wrong", header.state_hash))
        changes: tuple[dict[str, Any], ...] = (
            {"state_hash": wrong},
            {"receipts_hash": wrong},
            {"validator_set_id": wrong},
            {"system_hash": wrong},
            {"reserved": bytes(wrong)},
            {"height": Height(header.height + 1)},
            {"epoch": Epoch(header.epoch + 1)},
            {"timestamp_ms": header.timestamp_ms + 10**6},
            {"timestamp_ms": 0},
            {"chain_id": header.chain_id + 1},
            {"payload_bytes": header.payload_bytes + 1},
            {"next_validator_set_hash": wrong},
        )
        return replace(header, **self.rng.choice(changes))

    def _state(self, found: bytes) -> ledger.State | None:
        """Return the state after a block, executing what is not known yet."""
        path = []
        while found not in self._states:
            header = self.world.checks.headers.get(found)
            if header is None:
                return None
            path.append((found, header))
            found = header.parent_hash
        state = self._states[found]
        for block, header in reversed(path):
            payload = self._payload(block, header.payload_commitment)
            if payload is None or not ledger.is_well_formed(payload):
                return None
            state = self._states[block] = ledger.execute(state, payload).state
        return state

    def _payload(self, found: bytes, commitment: bytes) -> bytes | None:
        payload = self.payloads.get(commitment)
        if payload is None:
            for node in self.world.honest:
                payload = node.bytes_of(found, commitment)
                if payload is not None:
                    self.payloads[commitment] = payload
                    break
        return payload

    def serve(self, commitment: bytes) -> bytes | None:
        """Answer somebody who asks a Byzantine validator for a payload: often not."""
        return self.payloads.get(commitment) if self.rng.randrange(3) == 0 else None
