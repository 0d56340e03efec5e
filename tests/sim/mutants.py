"""Planted bugs: each breaks one rule in every honest node, and the checks have to find it.

Rules are exchanged by passing another `Rules` to the replica; what is the shell's duty (syncing,
reading its journal, keeping payloads) is broken in the simulated shell. Nothing in the core knows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from consensus.core import journal
from consensus.core.blocks import Block
from consensus.core.events import Boot, Effect, ForkchoiceUpdated, Persist
from consensus.core.safety import HeaderRules, Rules
from consensus.core.tally import FINALIZE, NOTARIZE, NULLIFY, ViewState
from consensus.core.types import (
    Certificate,
    Epoch,
    Hash32,
    Header,
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


class FinalizationNoParent(Rules):
    """C3: only a notarization is a notarization."""

    def missing_views(
        self, views: Mapping[int, ViewState], last_final: View, parent_view: View, view: View
    ) -> tuple[int, int] | None:
        """Ask for the parent's notarization even where it is final."""
        missing = Rules.missing_views(self, views, last_final, parent_view, view)
        if missing is None and 0 < parent_view <= last_final:
            state = views.get(parent_view)
            if state is None or state.certificates[NOTARIZE] is None:
                return parent_view, parent_view
        return missing

    def is_parent_certified(self, view: ViewState | None) -> bool:
        """Want the one certificate."""
        return view is not None and view.certificates[NOTARIZE] is not None


class FinalizeAfterNullify(Rules):
    """V3: an own NULLIFY does not keep from FINALIZE."""

    def may_finalize(self, view: ViewState) -> bool:
        """Forget the own NULLIFY."""
        return view.certificates[NOTARIZE] is not None and view.own[FINALIZE] is None


class NullifyAfterFinalize(Rules):
    """V2: an own FINALIZE does not keep from NULLIFY."""

    def may_nullify(self, view: ViewState, current: View) -> bool:
        """Forget the own FINALIZE; and the view, which FINALIZE ends."""
        return view.own[NULLIFY] is None and view.number >= current - 1


class DoubleNotarize(Rules):
    """V1: a second NOTARIZE in a view."""

    def may_notarize(self, view: ViewState, current: View) -> bool:
        """Forget the own NOTARIZE."""
        return view.number == current


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


Maker = Callable[[str], Mutant]


def _of_rules(rules: type[Rules]) -> Maker:
    return lambda name: Mutant(name=name, rules=rules())


MAKERS: dict[str, Maker] = {
    "quorum-minus-one": _of_rules(QuorumMinusOne),
    "no-nullify-check": _of_rules(NoNullifyCheck),
    "finalize-after-nullify": _of_rules(FinalizeAfterNullify),
    "nullify-after-finalize": _of_rules(NullifyAfterFinalize),
    "double-notarize": _of_rules(DoubleNotarize),
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
    "finalization-no-parent": _of_rules(FinalizationNoParent),
    "no-parent-check": _of_rules(NoParentCheck),
    "boundary-ignored": _of_rules(BoundaryIgnored),
    "headers-unchecked": _of_rules(Careless),
}


def names() -> list[str]:
    """Return all names."""
    return list(MAKERS)


def make(name: str | None) -> Mutant:
    """Return a mutant for one world; None: the correct node."""
    if name is None:
        return Mutant(name="correct", rules=Rules())
    return MAKERS[name](name)
