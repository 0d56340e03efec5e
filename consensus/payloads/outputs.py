"""What the dissemination core asks of its owner."""

from dataclasses import dataclass

from consensus.core.types import Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class SendFrame:
    """A small frame for a peer; it may be lost."""

    peer: bytes
    frame: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """A peer sent what no honest peer sends."""

    peer: bytes
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """A payload that was fetched is held, whole and proved."""

    commitment: Hash32


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A fetch was given up."""

    commitment: Hash32
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Read a payload back from the executor; `stored` follows."""

    block_hash: Hash32
    commitment: Hash32


Output = SendFrame | Ban | Arrived | Failed | Read
