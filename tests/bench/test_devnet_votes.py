"""Double votes are found wherever they show, and nothing else is taken for one."""

from pathlib import Path

from bench.network.votes import VoteLedger
from consensus.core import journal as records
from consensus.core.types import (
    Certificate,
    Epoch,
    Hash32,
    Kind,
    Proposal,
    Signature,
    View,
    Vote,
)
from consensus.journal import create_journal

ZERO = bytes(32)
ONE, OTHER = b"\1" * 32, b"\2" * 32
SIGNATURE = Signature(bytes(64))


def vote(kind: Kind, view: int, pid: bytes, signer: int = 0) -> Vote:
    """Return a vote of epoch 0; nobody looks at its signature."""
    return Vote(
        kind=kind,
        epoch=Epoch(0),
        view=View(view),
        pid=Hash32(pid),
        signer=signer,
        signature=SIGNATURE,
    )


def test_what_is_legal_is_no_double_vote() -> None:
    """NOTARIZE and NULLIFY, NOTARIZE of one and FINALIZE of another, the same vote twice."""
    ledger = VoteLedger()
    ledger.add_votes(
        [
            vote(Kind.NOTARIZE, 1, ONE),
            vote(Kind.NOTARIZE, 1, ONE),
            vote(Kind.NULLIFY, 1, ZERO),
            vote(Kind.NOTARIZE, 2, ONE),
            vote(Kind.FINALIZE, 2, OTHER),
            vote(Kind.NOTARIZE, 3, OTHER, signer=1),
            vote(Kind.NOTARIZE, 3, ONE),
        ]
    )
    assert ledger.votes_seen == 7
    assert ledger.double_votes() == []


def test_each_offence_is_found_once() -> None:
    """Two proposals notarized, two finalized, and a finalized view that was nullified."""
    ledger = VoteLedger()
    ledger.add_votes(
        [
            vote(Kind.NOTARIZE, 1, ONE),
            vote(Kind.NOTARIZE, 1, OTHER),
            vote(Kind.FINALIZE, 2, ONE, signer=3),
            vote(Kind.FINALIZE, 2, OTHER, signer=3),
            vote(Kind.NULLIFY, 3, ZERO),
            vote(Kind.FINALIZE, 3, ONE),
        ]
    )
    assert ledger.double_votes() == [
        "epoch 0, view 1, validator 0 of the set: NOTARIZE of two proposals",
        "epoch 0, view 3, validator 0 of the set: FINALIZE and NULLIFY",
        "epoch 0, view 2, validator 3 of the set: FINALIZE of two proposals",
    ]


def test_a_certificate_speaks_for_every_signer(tmp_path: Path) -> None:
    """A signer of a finalization whose journal nullified the view has voted twice."""
    proposal = Proposal(epoch=Epoch(0), view=View(5), parent_view=View(4), block_hash=Hash32(ONE))
    certificate = Certificate(
        kind=Kind.FINALIZE,
        epoch=Epoch(0),
        view=View(5),
        proposal=proposal,
        validator_count=4,
        signers=0b1101,
        signatures=(SIGNATURE,) * 3,
    )
    path = tmp_path / "journal"
    own = vote(Kind.NULLIFY, 5, ZERO, signer=2)
    entries = [records.cut_record(0, 0), records.vote_record(own)]
    create_journal(path, [*entries, records.certificate_record(certificate)])
    ledger = VoteLedger()
    ledger.add_journal(path, is_running=False)
    assert ledger.damaged == []
    assert ledger.double_votes() == [
        "epoch 0, view 5, validator 2 of the set: FINALIZE and NULLIFY"
    ]


def test_a_damaged_journal_is_told_of_who_does_not_run(tmp_path: Path) -> None:
    """While its process runs, a file may be in the middle of a write."""
    path = tmp_path / "journal"
    path.write_bytes(b"no journal")
    ledger = VoteLedger()
    ledger.add_journal(path, is_running=True)
    assert ledger.damaged == []
    ledger.add_journal(path, is_running=False)
    assert len(ledger.damaged) == 1
    assert ledger.votes_seen == 0


def test_evidence_pages_are_read() -> None:
    """A page shows both votes, by names and hex digits."""
    ledger = VoteLedger()
    shown = [
        {"kind": "NOTARIZE", "epoch": 0, "view": 9, "pid": pid.hex(), "signer": 1}
        for pid in (ONE, OTHER)
    ]
    ledger.add_evidence([{"votes": shown}])
    assert len(ledger.double_votes()) == 1
