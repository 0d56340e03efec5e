"""Records of the journal, and what they say after a crash.

The journal holds what this validator signed and the certificates it relied on. The shell frames,
checksums and syncs records; it drops a torn last one, which is safe because nothing of it has left
(W1). Spec: spec/consensus.md#journal.
"""

from dataclasses import dataclass, field

from consensus.core.codec import (
    DecodeError,
    decode_certificate,
    decode_propose,
    decode_vote,
    encode_certificate,
    encode_propose,
    encode_vote,
)
from consensus.core.types import Certificate, Propose, Vote

_CUT, _VOTE, _PROPOSE, _CERTIFICATE, _OBSERVER = 1, 2, 3, 4, 5


class DamagedJournal(Exception):
    """Whole records that make no journal: begin anew with `observer_journal` (W3)."""


@dataclass(slots=True, kw_only=True)
class Replayed:
    """What a journal says."""

    cut_epoch: int = 0
    cut_view: int = 0
    """nothing signed at or below (epoch, view) is in the journal any more"""
    observer_since_ms: int | None = None
    """W3: wall time of the observer mark, None without"""
    observer_place: int | None = None
    """W3: the epoch in which a quorum of the others was seen since, None before that"""
    votes: list[Vote] = field(default_factory=list)
    proposes: list[Propose] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)


def cut_record(epoch: int, view: int) -> bytes:
    """Return the first record of a journal: all above (epoch, view) follows."""
    return bytes([_CUT]) + epoch.to_bytes(8, "little") + view.to_bytes(8, "little")


def vote_record(vote: Vote) -> bytes:
    """Return the record of an own vote."""
    return bytes([_VOTE]) + encode_vote(vote)


def propose_record(propose: Propose) -> bytes:
    """Return the record of a proposal that an own NOTARIZE names, own or not."""
    return bytes([_PROPOSE]) + encode_propose(propose)


def certificate_record(certificate: Certificate) -> bytes:
    """Return the record of a certificate held above the last final view."""
    return bytes([_CERTIFICATE]) + encode_certificate(certificate)


def observer_record(wall_ms: int, place: int | None = None) -> bytes:
    """Return the mark that makes a node an observer since a wall time; `place`: W3, once known."""
    record = bytes([_OBSERVER]) + wall_ms.to_bytes(8, "little")
    return record if place is None else record + place.to_bytes(8, "little")


def empty_journal() -> tuple[bytes, ...]:
    """W3: return the journal that `init` writes in one step with a new key."""
    return (cut_record(0, 0),)


def observer_journal(wall_ms: int) -> tuple[bytes, ...]:
    """W3: return the journal of an imported key, or in place of a missing or damaged one."""
    return (cut_record(0, 0), observer_record(wall_ms))


def replay(records: tuple[bytes, ...]) -> Replayed:
    """W2: return what the records say; raises DamagedJournal."""
    if not records or records[0][:1] != bytes([_CUT]):
        raise DamagedJournal("a journal begins with a cut record")
    found = Replayed()
    for record in records:
        kind, body = record[0], record[1:]
        try:
            if kind == _CUT and len(body) == 16:
                found.cut_epoch = int.from_bytes(body[:8], "little")
                found.cut_view = int.from_bytes(body[8:], "little")
            elif kind == _VOTE:
                found.votes.append(decode_vote(body))
            elif kind == _PROPOSE:
                found.proposes.append(decode_propose(body))
            elif kind == _CERTIFICATE:
                found.certificates.append(decode_certificate(body))
            elif kind == _OBSERVER and len(body) in (8, 16):
                found.observer_since_ms = int.from_bytes(body[:8], "little")
                place = int.from_bytes(body[8:], "little")
                found.observer_place = place if body[8:] else None
            else:
                raise DamagedJournal(f"a record of kind {kind} with {len(body)} bytes")
        except DecodeError as error:
            raise DamagedJournal(str(error)) from error
    return found
