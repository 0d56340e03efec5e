"""What the writer hands to the service: a verdict, and what became final.

Spec: spec/engine_api.md#newpayload.
"""

from dataclasses import dataclass

from engine.errors import InvalidPayload
from engine.transition import Outcome, Parties
from engine_api.types import Verdict
from kernels.layout import U8


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A verdict that needs no second look."""

    verdict: Verdict
    refusal: InvalidPayload | None = None
    latest_valid_hash: bytes = b""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizedBlock:
    """What the indexes need of a block that became final."""

    height: int
    hashes: U8
    """(n, 32) transaction hashes"""
    statuses: U8
    """(n,)"""
    parties: Parties

    @classmethod
    def of(cls, height: int, outcome: Outcome) -> "FinalizedBlock":
        """Return what the indexes need of an outcome."""
        assert outcome.parties is not None, "every block here is executed with its parties"
        return cls(
            height=height,
            hashes=outcome.transaction_hashes,
            statuses=outcome.statuses,
            parties=outcome.parties,
        )


def refused(refusal: InvalidPayload, latest_valid_hash: bytes) -> Judged:
    """Return INVALID."""
    return Judged(
        verdict=Verdict.INVALID,
        refusal=refusal,
        latest_valid_hash=latest_valid_hash,
        detail=str(refusal),
    )
