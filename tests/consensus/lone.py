"""One replica and the test in the place of everybody else: its peers, its disk, its executor.

The test speaks with every other validator's key. Calls of the executor are answered at once with
VALID unless a test takes that over (`verdict`, `answers`).
"""

from collections import deque
from dataclasses import replace
from typing import Any

from consensus.core import events as ev
from consensus.core import journal
from consensus.core.blocks import hash_header
from consensus.core.codec import proposal_bytes
from consensus.core.epochs import EpochContext, open_epoch
from consensus.core.replica import Replica
from consensus.core.safety import Rules
from consensus.core.types import (
    ZERO_HASH,
    BootId,
    Certificate,
    Chain,
    Epoch,
    Hash32,
    Header,
    Height,
    Kind,
    Message,
    PeerId,
    Proposal,
    Propose,
    Validator,
    View,
    Vote,
    VotesAnswer,
)
from tests.consensus.net import FakeCrypto, key_of, make_chain

WALL_MS = 10_000
COMMITMENT = Hash32(b"c" * 32)


class Lone:
    """The replica of validator `own` among `powers`."""

    def __init__(
        self,
        powers: list[int] | None = None,
        own: int = 0,
        *,
        disk: "Disk | None" = None,
        asks: bool = False,
        rules: Rules | None = None,
        chain: Chain | None = None,
        now_ms: int = 0,
        cut_bytes: int = 2**16,
        **changes: int,
    ) -> None:
        """Boot, with the first question for own votes answered unless `asks`."""
        self.chain = chain or make_chain(powers or [1, 1, 1, 1], None, **changes)
        self.own = own
        self.crypto = FakeCrypto(key_of(own))
        self.epoch = self.epoch_of(0, self.chain.validators[0], self.chain.genesis_hash)
        self.disk = disk or Disk()
        self.now_ms = now_ms
        self.wake_ms = 0
        self.sent: list[Message] = []
        self.effects: list[Any] = []
        self.calls: list[ev.Call] = []
        self.waiting: deque[ev.Event] = deque()
        self.is_busy = False
        self.verdict = ev.Verdict.VALID
        self.answers = True
        self.boot_id = BootId(b"b" * 16)
        self.genesis_said = self.chain.genesis_hash
        """by the executor"""
        self.replica = Replica(
            chain=self.chain,
            crypto=self.crypto,
            key=key_of(own),
            fee_recipient=key_of(own),
            boot=self.disk.boot(),
            now_ms=now_ms,
            wall_offset_ms=WALL_MS,
            rules=rules,
            journal_cut_bytes=cut_bytes,
        )
        self.give(ev.Started())
        if not asks:
            for index in range(len(self.epoch.keys)):
                if index != own:
                    answer = VotesAnswer(epoch=self.epoch.number, signer=own, votes=())
                    self.hear(answer, index)

    def epoch_of(
        self, number: int, validators: tuple[Validator, ...], seed: Hash32
    ) -> EpochContext:
        """Return an epoch as everybody sees it."""
        return open_epoch(
            chain=self.chain,
            crypto=self.crypto,
            rules=Rules(),
            number=number,
            validators=validators,
            seed=seed,
        )

    # --- the shell ------------------------------------------------------------------------------

    def give(self, event: ev.Event) -> list[Message]:
        """Deliver an event now; return the messages that left because of it."""
        before = len(self.sent)
        self.waiting.append(event)
        if not self.is_busy:
            self.is_busy = True
            while self.waiting:
                for effect in self.replica.handle(self.waiting.popleft(), self.now_ms):
                    self.perform(effect)
            self.is_busy = False
        return self.sent[before:]

    def perform(self, effect: ev.Effect) -> None:
        """Write, send, answer calls."""
        self.effects.append(effect)
        match effect:
            case ev.Persist():
                self.disk.write(effect)
                for then in effect.then:
                    self.perform(then)
            case ev.Send() | ev.Broadcast():
                self.sent.append(effect.message)
            case ev.WakeAt():
                self.wake_ms = effect.at_ms
            case ev.FetchPayload():
                arrived = ev.PayloadArrived(payload_commitment=effect.payload_commitment)
                self.give(arrived)
            case ev.Call():
                self.calls.append(effect)
                if self.answers:
                    self.give(self.answer(effect))

    def answer(self, call: ev.Call) -> ev.Answered:
        """Answer a call as an agreeing executor does."""
        request = call.request
        found: Any = ev.ForkchoiceDone()
        if isinstance(request, ev.GetStatus):
            found = ev.ExecutorStatus(
                genesis_hash=self.genesis_said,
                params_hash=self.chain.params_hash,
                finalized_height=Height(self.disk.executor_final[0]),
                finalized_hash=Hash32(self.disk.executor_final[1] or self.chain.genesis_hash),
                unfinalized=(),
            )
        elif isinstance(request, ev.NewPayload):
            found = ev.PayloadJudged(verdict=self.verdict)
        elif isinstance(request, ev.GetPayload):
            found = ev.PayloadBuilt(
                payload_commitment=COMMITMENT,
                payload_bytes=832,
                transaction_count=0,
                transactions_root=ZERO_HASH,
                state_hash=ZERO_HASH,
                receipts_hash=ZERO_HASH,
            )
        elif isinstance(request, ev.GetValidatorSet):
            found = ev.ValidatorsOf(validators=self.chain.validators[1])
        return ev.Answered(call_id=call.call_id, boot_id=self.boot_id, answer=found)

    def hear(self, message: Message, sender: int = 1) -> list[Message]:
        """Deliver a message of a peer; return what left because of it."""
        return self.give(ev.Received(peer=PeerId(key_of(sender)), message=message))

    def wait(self, ms: int) -> list[Message]:
        """Let time pass, waking as asked; return what left meanwhile."""
        before, until = len(self.sent), self.now_ms + ms
        while self.wake_ms <= until:
            self.now_ms = max(self.now_ms, self.wake_ms)
            self.give(ev.Woke())
        self.now_ms = until
        return self.sent[before:]

    # --- what peers say -------------------------------------------------------------------------

    def leader(self, view: int) -> int:
        """Return the leader of a view."""
        return self.epoch.leader(self.crypto, self.chain.genesis_hash, View(view))

    def header(self, view: int, parent: Header | None = None, **changes: Any) -> Header:
        """Return a right header of a view's leader on a parent (genesis)."""
        made = Header(
            version=1,
            chain_id=self.chain.chain_id,
            epoch=self.epoch.number,
            height=Height(1 if parent is None else parent.height + 1),
            parent_hash=self.chain.genesis_hash if parent is None else self.hash(parent),
            timestamp_ms=WALL_MS + self.now_ms + view,
            proposer=key_of(self.leader(view)),
            fee_recipient=key_of(self.leader(view)),
            validator_set_id=self.epoch.set_id,
            payload_commitment=Hash32(bytes([view % 256]) * 32),
            payload_bytes=832,
            transaction_count=0,
            transactions_root=ZERO_HASH,
            state_hash=ZERO_HASH,
            receipts_hash=ZERO_HASH,
        )
        return replace(made, **changes)

    def hash(self, header: Header) -> Hash32:
        """Return the block hash."""
        return hash_header(self.crypto, header)

    def pid(self, proposal: Proposal) -> Hash32:
        """Return the proposal id."""
        return self.crypto.hash("tos proposal v1", proposal_bytes(proposal))

    def vote(self, kind: Kind, view: int, pid: Hash32, signer: int) -> Vote:
        """Return a genuine vote of any validator."""
        message = self.epoch.vote_message(kind, View(view), pid)
        signature = FakeCrypto(self.epoch.keys[signer]).sign(message)
        return Vote(
            kind=kind,
            epoch=self.epoch.number,
            view=View(view),
            pid=pid,
            signer=signer,
            signature=signature,
        )

    def proposal(self, view: int, header: Header, parent_view: int) -> Proposal:
        """Return the proposal of a block in a view."""
        return Proposal(
            epoch=Epoch(self.epoch.number),
            view=View(view),
            parent_view=View(parent_view),
            block_hash=self.hash(header),
        )

    def propose(
        self, view: int, header: Header, parent_view: int, signer: int | None = None
    ) -> Propose:
        """Return the proposal message of a view's leader."""
        proposal = self.proposal(view, header, parent_view)
        leader = self.leader(view) if signer is None else signer
        vote = self.vote(Kind.NOTARIZE, view, self.pid(proposal), leader)
        return Propose(proposal=proposal, header=header, vote=vote)

    def certificate(
        self,
        kind: Kind,
        view: int,
        proposal: Proposal | None = None,
        signers: tuple[int, ...] | None = None,
    ) -> Certificate:
        """Return a certificate of everybody else, or of the given signers."""
        count = len(self.epoch.keys)
        chosen = tuple(i for i in range(count) if i != self.own) if signers is None else signers
        pid = ZERO_HASH if proposal is None else self.pid(proposal)
        return Certificate(
            kind=kind,
            epoch=self.epoch.number,
            view=View(view),
            proposal=proposal,
            validator_count=count,
            signers=sum(1 << i for i in chosen),
            signatures=tuple(self.vote(kind, view, pid, i).signature for i in chosen),
        )

    # --- what was seen --------------------------------------------------------------------------

    def votes(self, kind: Kind | None = None) -> list[tuple[Kind, int]]:
        """Return (kind, view) of every own vote that left, the first time it did."""
        found: list[Vote] = []
        for message in self.sent:
            vote = message.vote if isinstance(message, Propose) else message
            if isinstance(vote, Vote) and vote.signer == self.own and vote not in found:
                found.append(vote)
        return [(vote.kind, vote.view) for vote in found if kind in (None, vote.kind)]

    def seen(self, kind: type) -> list[Any]:
        """Return the effects of a kind so far."""
        return [effect for effect in self.effects if isinstance(effect, kind)]


class Disk:
    """What survives: journal and store, as a shell keeps them."""

    def __init__(self, records: tuple[bytes, ...] | None = None) -> None:
        """Begin with the journal of `init`, or a given one."""
        self.journal = list(records if records is not None else journal.empty_journal())
        self.finalized: list[Any] = []
        self.boundaries: list[Any] = []
        self.evidence: list[Any] = []
        self.executor_final: tuple[int, bytes] = (0, b"")

    def write(self, persist: ev.Persist) -> None:
        """Make durable."""
        self.finalized.extend(persist.finalized)
        self.evidence.extend(persist.evidence)
        if persist.boundary is not None:
            self.boundaries.append(persist.boundary)
        self.journal.extend(persist.append)
        if persist.cut is not None:
            self.journal = list(persist.cut)

    def boot(self) -> ev.Boot:
        """Return what a restart finds."""
        return ev.Boot(
            journal=tuple(self.journal),
            finalized=self.finalized[-1] if self.finalized else None,
            boundaries=tuple(self.boundaries),
        )
