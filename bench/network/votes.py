"""Whether anybody voted twice, from everything that is signed: journals, certificates, evidence.

A journal forgets what lies below its last cut, so it is read again and again while a network runs,
and once more whenever a process has been killed. What is collected is one row per (epoch, signer,
view): the proposals that it notarized, those that it finalized, and whether it nullified. Spec:
spec/consensus.md#evidence says which pairs nobody may sign.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consensus.core import journal as records
from consensus.core.codec import proposal_bytes
from consensus.core.types import ZERO_HASH, Certificate, Kind, Vote
from consensus.journal import JournalDamaged, read_journal
from engine.constants import derive_key

PROPOSAL_CONTEXT = "tos proposal v1"
VOTES_MAX = 2**22
"""rows that are kept; more are counted in `forgotten`"""


@dataclass(slots=True)
class _Row:
    """What one validator signed in one view."""

    notarized: set[bytes] = field(default_factory=set)
    finalized: set[bytes] = field(default_factory=set)
    is_nullified: bool = False

    def offences(self) -> list[str]:
        """Return what nobody may sign together."""
        found = []
        if len(self.notarized) > 1:
            found.append("NOTARIZE of two proposals")
        if len(self.finalized) > 1:
            found.append("FINALIZE of two proposals")
        if self.finalized and self.is_nullified:
            found.append("FINALIZE and NULLIFY")
        return found


class VoteLedger:
    """All votes that were seen."""

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: dict[tuple[int, int, int], _Row] = {}
        self.votes_seen = 0
        self.forgotten = 0
        self.damaged: list[str] = []
        """journals of processes that do not run, which could not be read"""

    def add_vote(self, kind: Kind, epoch: int, view: int, signer: int, pid: bytes) -> None:
        """Take one vote down."""
        place = (epoch, signer, view)
        if place not in self._rows and len(self._rows) >= VOTES_MAX:
            self.forgotten += 1
            return
        row = self._rows.setdefault(place, _Row())
        self.votes_seen += 1
        if kind == Kind.NULLIFY:
            row.is_nullified = True
        elif kind == Kind.NOTARIZE:
            row.notarized.add(pid)
        else:
            row.finalized.add(pid)

    def add_votes(self, votes: Iterable[Vote]) -> None:
        """Take votes down."""
        for vote in votes:
            self.add_vote(vote.kind, vote.epoch, vote.view, vote.signer, vote.pid)

    def add_certificate(self, certificate: Certificate) -> None:
        """Take down what every signer of a certificate has signed."""
        proposal = certificate.proposal
        pid = ZERO_HASH if proposal is None else derive_pid(proposal_bytes(proposal))
        for signer in range(certificate.validator_count):
            if certificate.signers >> signer & 1:
                self.add_vote(certificate.kind, certificate.epoch, certificate.view, signer, pid)

    def add_evidence(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Take down what a page of evidence shows."""
        for item in items:
            for vote in item["votes"]:
                kind, pid = Kind[vote["kind"]], bytes.fromhex(vote["pid"])
                self.add_vote(kind, vote["epoch"], vote["view"], vote["signer"], pid)

    def add_journal(self, path: Path, *, is_running: bool) -> None:
        """Take down what a journal holds; of a running process it may be in the middle of a write.

        A damaged journal of a process that does not run is noted in `damaged`.
        """
        try:
            found = records.replay(read_journal(path).records)
        except (JournalDamaged, records.DamagedJournal, FileNotFoundError) as error:
            if not is_running:
                self.damaged.append(f"{path}: {error}")
            return
        self.add_votes(found.votes)
        self.add_votes(propose.vote for propose in found.proposes)
        for certificate in found.certificates:
            self.add_certificate(certificate)

    def double_votes(self) -> list[str]:
        """Return every offence that was seen, a sentence each."""
        return [
            f"epoch {epoch}, view {view}, validator {signer} of the set: {offence}"
            for (epoch, signer, view), row in sorted(self._rows.items())
            for offence in row.offences()
        ]


def derive_pid(data: bytes) -> bytes:
    """Return the id of a proposal's 56 bytes. Spec: spec/consensus.md#messages."""
    return derive_key(PROPOSAL_CONTEXT, data)
