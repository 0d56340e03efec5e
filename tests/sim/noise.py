"""What Byzantine validators say beside votes and proposals: repeated, renamed, forged, broken."""

from dataclasses import replace
from typing import TYPE_CHECKING

from consensus.core.codec import DecodeError, decode_message, encode_message
from consensus.core.types import (
    ZERO_HASH,
    Certificate,
    Epoch,
    Evidence,
    Final,
    Hash32,
    Kind,
    Message,
    Proposal,
    Propose,
    RangeAnswer,
    Request,
    Signature,
    View,
    Vote,
    Want,
)

if TYPE_CHECKING:
    from tests.sim.byzantine import Adversary


class Noise:
    """Messages that a correct node must survive and mostly ignore."""

    def __init__(self, adversary: "Adversary") -> None:
        """Speak with the keys and the memory of an adversary."""
        self.adversary = adversary

    def disturb(self, node: int, epoch: int, view: int) -> None:
        """Repeat old messages, also under other names, ask for things, send broken bytes."""
        how = self.adversary.strategy[node]
        if how == "mixed":
            how = self.adversary.rng.choice(("replay", "garbage", "none"))
        if how == "replay" and self.adversary.remembered:
            for _ in range(3):
                message = self.adversary.rng.choice(self.adversary.remembered)
                self.adversary.send(node, message, some=True)
                self.adversary.send(node, self._renamed(message, epoch, view), some=True)
            self.adversary.send(node, self._foreign(epoch, view))
        elif how == "garbage" and self.adversary.remembered:
            self.adversary.send(node, self._request(epoch, view), some=True)
            forged = self._forged(epoch, view)
            self.adversary.send(node, forged)
            self._pretend(node, forged)
            self._accuse(node)
            broken = bytearray(encode_message(self.adversary.rng.choice(self.adversary.remembered)))
            broken[self.adversary.rng.randrange(len(broken))] ^= 1 << self.adversary.rng.randrange(
                8
            )
            try:
                self.adversary.send(node, decode_message(bytes(broken)), some=True)
            except DecodeError:
                return  # a shell drops what does not decode

    def _request(self, epoch: int, view: int) -> Request:
        return Request(
            want=self.adversary.rng.choice(list(Want)),
            epoch=Epoch(self.adversary.rng.randint(0, epoch + 1)),
            first=self.adversary.rng.choice((0, 1, view, 2**64 - 1)),
            last=self.adversary.rng.choice((0, 1, view, 2**64 - 1)),
        )

    def _forged(self, epoch: int, view: int) -> Certificate:
        """Return a certificate of everybody in which no signature holds."""
        facts = self.adversary.facts(epoch)
        proposals = self.adversary.proposals.get((epoch, view))
        proposal = self.adversary.rng.choice(proposals) if proposals else None
        kinds = (Kind.NOTARIZE, Kind.FINALIZE) if proposal else (Kind.NULLIFY,)
        return Certificate(
            kind=self.adversary.rng.choice(kinds),
            epoch=Epoch(epoch),
            view=View(view),
            proposal=proposal,
            validator_count=len(facts.keys),
            signers=(1 << len(facts.keys)) - 1,
            signatures=tuple(Signature(self.adversary.rng.randbytes(64)) for _ in facts.keys),
        )

    def _pretend(self, node: int, forged: Certificate) -> None:
        """Send final blocks that are none, and a proposal for a view that another one leads."""
        checks, rng = self.adversary.world.checks, self.adversary.rng
        headers = [checks.headers[found] for found in checks.final[-3:] if found in checks.headers]
        if not headers:
            return
        kept = [m for m in self.adversary.remembered[-40:] if type(m) is Certificate and m.proposal]
        certificate = rng.choice(kept) if kept and rng.randrange(2) else forged
        self.adversary.send(
            node, Final(header=rng.choice(headers), certificate=certificate), some=True
        )
        wrong = replace(headers[-1], state_hash=headers[-1].receipts_hash)
        rows = rng.choice((tuple(headers), (wrong,), (headers[-1], headers[0])))
        self.adversary.send(node, RangeAnswer(headers=rows, certificate=certificate), some=True)
        proposal = Proposal(
            epoch=forged.epoch,
            view=View(forged.view + rng.choice((0, 1, 5, 50))),
            parent_view=View(rng.randrange(forged.view)),
            block_hash=Hash32(checks.arithmetic.block_hash(wrong)),
        )
        vote = self.adversary.signed(node, Kind.NOTARIZE, proposal.epoch, proposal.view, proposal)
        self.adversary.send(node, Propose(proposal=proposal, header=wrong, vote=vote), some=True)

    def _accuse(self, node: int) -> None:
        """Send two genuine votes of one signer that are legal together as evidence."""
        votes = [message for message in self.adversary.remembered[-40:] if type(message) is Vote]
        for first in votes:
            for second in votes:
                if first is not second and (first.signer, first.epoch, first.view) == (
                    second.signer, second.epoch, second.view
                ):  # fmt: skip
                    self.adversary.send(node, Evidence(first=first, second=second), some=True)
                    return

    def _renamed(self, message: Message, epoch: int, view: int) -> Message:
        """Move an old vote or certificate into the present epoch and view."""
        if type(message) is Vote:
            return replace(message, epoch=Epoch(epoch), view=View(self._near(message.view, view)))
        if type(message) is Certificate:
            at = View(self._near(message.view, view))
            proposal = message.proposal
            if proposal is not None:
                proposal = replace(proposal, epoch=Epoch(epoch), view=at)
            return replace(message, epoch=Epoch(epoch), view=at, proposal=proposal)
        return message

    def _near(self, old: int, view: int) -> int:
        return old if self.adversary.rng.randrange(2) else view

    def _foreign(self, epoch: int, view: int) -> Certificate:
        """Return a nullification of this view that the same validators made on another chain."""
        facts = self.adversary.facts(epoch)
        domain = Hash32(self.adversary.world.keyring.hash("tos nullify v1", b"another chain"))
        prefix = self.adversary.world.mutant.rules.vote_prefix(
            domain, Epoch(epoch), Hash32(facts.set_id)
        )
        message = prefix + view.to_bytes(8, "little") + ZERO_HASH
        return Certificate(
            kind=Kind.NULLIFY,
            epoch=Epoch(epoch),
            view=View(view),
            proposal=None,
            validator_count=len(facts.keys),
            signers=(1 << len(facts.keys)) - 1,
            signatures=tuple(
                Signature(self.adversary.world.keyring.sign(key, message)) for key in facts.keys
            ),
        )
