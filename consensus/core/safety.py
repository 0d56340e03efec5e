"""What a validator may sign, V1 to V4, and what counts as decided. Nothing else can lose money.

Why it is safe, in three lines. Two quorums share an honest validator (P1). It gives one NOTARIZE
per view (V1), so at most one proposal of a view is notarized. It never gives both NULLIFY and
FINALIZE (V2, V3), so a final view has no nullification, and since a proposal must account for every
view between itself and its parent, every later notarized proposal descends from the final one.

All rules are methods of `Rules`, small and without state: a test exchanges one of them and the
network simulator must then find the crime. Spec: spec/consensus.md#safety.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from consensus.core import journal
from consensus.core.blocks import Block
from consensus.core.events import ForkchoiceUpdated, Verdict
from consensus.core.tally import FINALIZE, NOTARIZE, NULLIFY, ViewState
from consensus.core.types import (
    HEADER_VERSION,
    ZERO_HASH,
    Certificate,
    Epoch,
    Hash32,
    Header,
    Height,
    Kind,
    Parameters,
    Proposal,
    Propose,
    PublicKey,
    View,
    Vote,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRules:
    """What V1 compares a new header with, besides its parent."""

    parameters: Parameters
    chain_id: int
    epoch: Epoch
    epoch_end: Height
    """the last height of the epoch"""
    validator_set_id: Hash32
    leader: PublicKey
    next_validator_set_hash: Hash32 | None
    """of epoch + 1 as the executor says; None while it has not said"""


class Rules:
    """The safety rules of one node. Stateless; `ViewState` and `Block` are only read."""

    # --- P1, P3: quorums, power, what is signed -------------------------------------------------

    def quorum(self, total_power: int) -> int:
        """P1: the least power that decides; two such share more than a third."""
        return 2 * total_power // 3 + 1

    def weight(self, power: int) -> int:
        """P1: what a vote counts: its signer's power."""
        return power

    def vote_prefix(self, domain: Hash32, epoch: Epoch, validator_set_id: Hash32) -> bytes:
        """M3: the head of what is signed: chain and kind (domain), epoch, set."""
        return domain + epoch.to_bytes(8, "little") + validator_set_id

    # --- V1: NOTARIZE ---------------------------------------------------------------------------

    def may_notarize(self, view: ViewState, current: View) -> bool:
        """V1: once per view, in the current view, and not after giving it up."""
        return (
            view.number == current
            and view.own[NOTARIZE] is None
            and view.own[NULLIFY] is None
            and not view.equivocated
        )

    def missing_views(
        self, views: Mapping[int, ViewState], last_final: View, parent_view: View, view: View
    ) -> tuple[int, int] | None:
        """V1, B1: return (lowest, highest) view that lacks what a proposal on parent_view needs.

        That is the notarization of parent_view (the anchor and the last final view need none: S2,
        C3) and the nullification of every view between. None: nothing is missing.
        """
        missing = [
            number
            for number in range(max(parent_view, last_final) + 1, view)
            if not self.is_nullified(views.get(number))
        ]
        if parent_view > last_final and not self.is_parent_certified(views.get(parent_view)):
            missing.insert(0, parent_view)
        return (missing[0], missing[-1]) if missing else None

    def is_nullified(self, view: ViewState | None) -> bool:
        """Say whether a view may be skipped."""
        return view is not None and view.certificates[NULLIFY] is not None

    def is_parent_certified(self, view: ViewState | None) -> bool:
        """C3: a finalization counts as a notarization wherever one is required."""
        return view is not None and (
            view.certificates[NOTARIZE] is not None or view.certificates[FINALIZE] is not None
        )

    def is_reproposal(self, proposal: Proposal, parent: Block) -> bool:
        """V1: the parent view's block again; it was judged when it was new."""
        return proposal.block_hash == parent.block_hash

    def header_defect(self, header: Header, parent: Block, rules: HeaderRules) -> str | None:
        """V1, new block: return what makes the header wrong for ever, or None.

        What time or certificates can mend (`must_wait`) is no defect.
        """
        limits = rules.parameters
        checks = (
            ("parent ends the epoch", parent.height < rules.epoch_end),
            ("version", header.version == HEADER_VERSION),
            ("chain_id", header.chain_id == rules.chain_id),
            ("parent_hash", header.parent_hash == parent.block_hash),
            ("height", header.height == parent.height + 1),
            ("epoch", header.epoch == rules.epoch),
            ("validator_set_id", header.validator_set_id == rules.validator_set_id),
            ("proposer", header.proposer == rules.leader),
            ("timestamp", header.timestamp_ms > parent.timestamp_ms),
            ("payload_bytes", header.payload_bytes <= limits.payload_bytes_max),
            ("transaction_count", header.transaction_count <= limits.transactions_max),
            ("system_hash", header.system_hash == ZERO_HASH),
            ("reserved", header.reserved == ZERO_HASH),
            ("next_validator_set_hash", self.is_next_set_right(header, rules)),
        )
        for name, passes in checks:
            if not passes:
                return name
        return None

    def is_next_set_right(self, header: Header, rules: HeaderRules) -> bool:
        """V1: the executor's answer at a boundary, zero elsewhere."""
        if header.height != rules.epoch_end:
            return header.next_validator_set_hash == ZERO_HASH
        # Unknown here is for must_wait, which keeps such a block from a vote.
        known = rules.next_validator_set_hash
        return known is None or header.next_validator_set_hash == known

    def must_wait(
        self, header: Header, rules: HeaderRules, final_height: Height, wall_ms: int
    ) -> str | None:
        """V1: return what keeps a new block pending, or None: clock, depth, unknown next set."""
        if header.timestamp_ms > wall_ms + rules.parameters.drift_ms:
            return "timestamp"
        if header.height - final_height > rules.parameters.unfinalized_max:
            return "depth"
        if header.height == rules.epoch_end and rules.next_validator_set_hash is None:
            return "next set"
        return None

    def is_executed(self, block: Block) -> bool:
        """V1, V3: the own executor recomputed every result and made the payload durable."""
        return block.verdict == Verdict.VALID

    # --- V2: NULLIFY ----------------------------------------------------------------------------

    def may_nullify(self, view: ViewState, current: View) -> bool:
        """V2: once, in the current view, never after FINALIZE; NOTARIZE before is legal."""
        return view.number == current and view.own[NULLIFY] is None and view.own[FINALIZE] is None

    # --- V3: FINALIZE ---------------------------------------------------------------------------

    def may_finalize(self, view: ViewState) -> bool:
        """V3: once, for what is notarized here, never after NULLIFY; that the block is VALID here
        is asked beside it (`is_executed`)."""
        return (
            view.certificates[NOTARIZE] is not None
            and view.own[FINALIZE] is None
            and view.own[NULLIFY] is None
        )

    # --- V4 -------------------------------------------------------------------------------------

    def must_halt(self, block: Block) -> bool:
        """V4: a certified block that is INVALID here: one of the two is badly wrong."""
        return block.verdict == Verdict.INVALID

    # --- W1, F1 ---------------------------------------------------------------------------------

    def records_of_vote(
        self, vote: Vote, propose: Propose | None, certificates: tuple[Certificate, ...]
    ) -> tuple[bytes, ...]:
        """W1: what one sync makes durable before a vote leaves.

        `certificates`: all held above the last final view that are not in the journal yet, the one
        that entered the view among them. `propose`: what a NOTARIZE names, so that the header
        outlives a power cut of all nodes, and what B3 sends again.
        """
        records = [journal.certificate_record(certificate) for certificate in certificates]
        if propose is not None and vote.kind == Kind.NOTARIZE:
            records.append(journal.propose_record(propose))
        records.append(journal.vote_record(vote))
        return tuple(records)

    def forkchoice(self, best: Block, finalized: Block) -> ForkchoiceUpdated:
        """F1: head = safe = the block of the highest view notarized and VALID here."""
        return ForkchoiceUpdated(
            head=best.block_hash, safe=best.block_hash, finalized=finalized.block_hash
        )
