"""Planted bugs: each breaks one rule in every honest node, and the checks have to find it.

Rules are exchanged by passing another `Rules` to the replica, a few functions of the core are
replaced while a world runs; what is the shell's duty (syncing, reading its journal, keeping
payloads) is broken in the simulated shell. Nothing in the core knows.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any
from unittest import mock

from consensus.core import certificates, journal
from consensus.core.blocks import Block
from consensus.core.epochs import EpochContext
from consensus.core.events import Boot, Effect, ForkchoiceUpdated, Persist
from consensus.core.safety import HeaderRules, Rules
from consensus.core.state import State
from consensus.core.tally import FINALIZE, NOTARIZE, ViewState, signers_of
from consensus.core.types import (
    Certificate,
    Epoch,
    Evidence,
    Hash32,
    Header,
    Height,
    PeerId,
    Proposal,
    Propose,
    View,
    Vote,
)


@dataclass(slots=True, kw_only=True)
class Mutant:
    """How the nodes of a world differ from correct ones; `rules` belongs to one world."""

    name: str
    rules: Rules
    sends_before_sync: bool = False
    forgets_journal: bool = False
    forgets_payloads: bool = False
    patch: tuple[ModuleType | type, str, Callable[..., Any]] | None = None
    """a function of the core that is another one while the world runs"""

    def planted(self) -> AbstractContextManager[object]:
        """Return what has to surround a run."""
        return mock.patch.object(*self.patch) if self.patch else nullcontext()

    @property
    def transforms(self) -> bool:
        """Say whether effects have to pass through `effects`."""
        return self.sends_before_sync

    def boot(self, boot: Boot) -> Boot:
        """Return what a replica gets of its disk."""
        if self.forgets_journal:
            return replace(boot, journal=journal.empty_journal())
        return boot

    def effects(self, effects: list[Effect]) -> list[Effect]:
        """Return what the shell performs."""
        moved: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Persist):
                moved += effect.then
                moved.append(replace(effect, then=()))
            else:
                moved.append(effect)
        return moved


class QuorumMinusOne(Rules):
    """P1 off by one."""

    def quorum(self, total_power: int) -> int:
        """Return one too few."""
        return 2 * total_power // 3


class Unweighted(Rules):
    """P1: heads are counted, not power."""

    def __init__(self) -> None:
        """Count the validators that `weight` is asked for."""
        self._count = 0

    def weight(self, power: int) -> int:
        """Return one for everybody."""
        self._count += 1
        return 1

    def quorum(self, total_power: int) -> int:
        """Return two thirds of the heads."""
        count, self._count = self._count, 0
        return 2 * count // 3 + 1


class NoNullifyCheck(Rules):
    """V1: views between parent and proposal need no nullification."""

    def missing_views(
        self, views: Mapping[int, ViewState], last_final: View, parent_view: View, view: View
    ) -> tuple[int, int] | None:
        """Look for the parent's notarization only."""
        if parent_view > last_final and not self.is_parent_certified(views.get(parent_view)):
            return parent_view, parent_view
        return None


class NoParentCheck(Rules):
    """V1: the parent needs no notarization."""

    def is_parent_certified(self, view: ViewState | None) -> bool:
        """Take everything."""
        return view is not None


class FinalizeAfterNullify(Rules):
    """V3: an own NULLIFY does not keep from FINALIZE."""

    def may_finalize(self, view: ViewState) -> bool:
        """Forget the own NULLIFY."""
        return view.certificates[NOTARIZE] is not None and view.own[FINALIZE] is None


class EpochMissing(Rules):
    """M3: epoch and set are not in what is signed."""

    def vote_prefix(self, domain: Hash32, epoch: Epoch, validator_set_id: Hash32) -> bytes:
        """Return a prefix that is the same in every epoch."""
        return domain + bytes(40)


class ChainMissing(Rules):
    """P3: the domain does not name the chain."""

    def vote_prefix(self, domain: Hash32, epoch: Epoch, validator_set_id: Hash32) -> bytes:
        """Return a prefix that is the same on every chain, and for every kind."""
        return Rules.vote_prefix(self, Hash32(bytes(32)), epoch, validator_set_id)


class ExecutionSkipped(Rules):
    """V1, V3: a vote without the executor's verdict."""

    def is_executed(self, block: Block) -> bool:
        """Trust the leader."""
        return True

    def must_halt(self, block: Block) -> bool:
        """Never mind the executor."""
        return False


class SafeAboveHead(Rules):
    """F1: safe runs ahead of head."""

    def forkchoice(self, best: Block, finalized: Block) -> ForkchoiceUpdated:
        """Return safe above head."""
        return ForkchoiceUpdated(
            head=finalized.block_hash, safe=best.block_hash, finalized=finalized.block_hash
        )


class CertificatesNotJournalled(Rules):
    """W1: the certificates that a vote stands on are not written."""

    def records_of_vote(
        self, vote: Vote, propose: Propose | None, certificates: tuple[Certificate, ...]
    ) -> tuple[bytes, ...]:
        """Write the vote alone."""
        return Rules.records_of_vote(self, vote, propose, ())


class VoteNotJournalled(Rules):
    """W1: the vote itself is not written."""

    def records_of_vote(
        self, vote: Vote, propose: Propose | None, certificates: tuple[Certificate, ...]
    ) -> tuple[bytes, ...]:
        """Write everything but the vote."""
        return Rules.records_of_vote(self, vote, propose, certificates)[:-1]


class ReproposalRefused(Rules):
    """V1: a block may not be proposed twice."""

    def is_reproposal(self, proposal: Proposal, parent: Block) -> bool:
        """See a new block in every proposal."""
        return False


class NextSetUnchecked(Rules):
    """V1: whatever next set a boundary header names."""

    def is_next_set_right(self, header: Header, rules: HeaderRules) -> bool:
        """Take everything."""
        return True


class BoundaryIgnored(Rules):
    """H2: a block that ends the epoch may have children in it."""

    def header_defect(self, header: Header, parent: Block, rules: HeaderRules) -> str | None:
        """Forget the first check."""
        defect = Rules.header_defect(self, header, parent, rules)
        return None if defect == "parent ends the epoch" else defect


class Careless(Rules):
    """V1: no header check at all."""

    def header_defect(self, header: Header, parent: Block, rules: HeaderRules) -> str | None:
        """Find every header right."""
        return None


class ClockIgnored(Rules):
    """V1: a block from the future needs no waiting."""

    def must_wait(
        self, header: Header, rules: HeaderRules, final_height: Height, wall_ms: int
    ) -> str | None:
        """Look at the clock of the header itself."""
        return Rules.must_wait(self, header, rules, final_height, header.timestamp_ms)


_keep_proposal, _is_valid = certificates.keep_proposal, certificates.is_valid


def keep_last_proposal(st: State, peer: PeerId, state: ViewState, propose: Propose) -> None:
    """V1: vote for every proposal of a view, not for the first one only."""
    _keep_proposal(st, peer, state, propose)
    if state.propose is not propose and state.number == st.view:
        state.propose, state.propose_peer = propose, peer
        state.own[NOTARIZE], state.defect = None, None
    state.equivocated = False


def forget_evidence(st: State, evidence: Evidence) -> None:
    """X2: see two votes that cannot both be honest, and say nothing."""


def believe_certificate(st: State, epoch: EpochContext, certificate: Certificate) -> bool:
    """M5: count the bits of a certificate and verify no signature."""
    power = sum(epoch.weights[at] for at in signers_of(certificate) if at < len(epoch.weights))
    return _is_valid(st, epoch, certificate) or power >= epoch.quorum


def notarized_only(view: ViewState) -> Proposal | None:
    """C3: a finalization is no notarization, also where one is required."""
    certificate = view.certificates[NOTARIZE]
    return None if certificate is None else certificate.proposal


Maker = Callable[[str], Mutant]


def _of_patch(module: ModuleType | type, name: str, planted: Callable[..., Any]) -> Maker:
    return lambda mutant: Mutant(name=mutant, rules=Rules(), patch=(module, name, planted))


def _of_rules(rules: type[Rules]) -> Maker:
    return lambda name: Mutant(name=name, rules=rules())


MAKERS: dict[str, Maker] = {
    "quorum-minus-one": _of_rules(QuorumMinusOne),
    "no-nullify-check": _of_rules(NoNullifyCheck),
    "finalize-after-nullify": _of_rules(FinalizeAfterNullify),
    "double-notarize": _of_patch(certificates, "keep_proposal", keep_last_proposal),
    "journal-amnesia": lambda name: Mutant(name=name, rules=Rules(), forgets_journal=True),
    "sync-after-send": lambda name: Mutant(name=name, rules=Rules(), sends_before_sync=True),
    "epoch-missing": _of_rules(EpochMissing),
    "chain-missing": _of_rules(ChainMissing),
    "execution-skipped": _of_rules(ExecutionSkipped),
    "votes-unweighted": _of_rules(Unweighted),
    "safe-above-head": _of_rules(SafeAboveHead),
    "payload-not-durable": lambda name: Mutant(name=name, rules=Rules(), forgets_payloads=True),
    "certificates-not-journalled": _of_rules(CertificatesNotJournalled),
    "vote-not-journalled": _of_rules(VoteNotJournalled),
    "reproposal-refused": _of_rules(ReproposalRefused),
    "next-set-unchecked": _of_rules(NextSetUnchecked),
    "finalization-no-parent": _of_patch(ViewState, "certified", notarized_only),
    "no-parent-check": _of_rules(NoParentCheck),
    "boundary-ignored": _of_rules(BoundaryIgnored),
    "headers-unchecked": _of_rules(Careless),
    "clock-ignored": _of_rules(ClockIgnored),
    "evidence-forgotten": _of_patch(certificates, "report", forget_evidence),
    "signatures-unchecked": _of_patch(certificates, "is_valid", believe_certificate),
}


def names() -> list[str]:
    """Return all names."""
    return list(MAKERS)


def make(name: str | None) -> Mutant:
    """Return a mutant for one world; None: the correct node."""
    if name is None:
        return Mutant(name="correct", rules=Rules())
    return MAKERS[name](name)
