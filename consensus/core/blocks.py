"""Blocks above the final one: their headers, what the executor said of them, who has them.

Spec: spec/consensus.md#execution.
"""

from consensus.core.codec import encode_header
from consensus.core.events import Verdict
from consensus.core.types import Crypto, Hash32, Header, Height, PeerId

HEADER_CONTEXT = "tos header v1"
BLOCKS_MAX = 256
"""blocks kept above the final one; more: the ones that no certificate names go first"""


def hash_header(crypto: Crypto, header: Header) -> Hash32:
    """M1: return the block hash."""
    return crypto.hash(HEADER_CONTEXT, encode_header(header))


class Block:
    """One block; `header` is None only for genesis."""

    __slots__ = (
        "block_hash",
        "failures",
        "header",
        "height",
        "in_executor",
        "is_lost",
        "payload_asked",
        "payload_held",
        "peers",
        "retry_ms",
        "seen_ms",
        "timestamp_ms",
        "verdict",
        "view",
    )

    def __init__(
        self, *, block_hash: Hash32, header: Header | None, height: int, timestamp_ms: int
    ) -> None:
        """Make a block of which only the header is known."""
        self.block_hash = block_hash
        self.header = header
        self.height = Height(height)
        self.timestamp_ms = timestamp_ms
        self.verdict: Verdict | None = None
        """VALID or INVALID once the own executor judged it; None before"""
        self.in_executor = False
        """the executor of now has it executed: children can be built and judged there"""
        self.payload_held = False
        """the shell holds the payload's bytes"""
        self.payload_asked = False
        """the shell is fetching them"""
        self.failures = 0
        """fetches of them that came to nothing"""
        self.is_lost = False
        """neither shell nor executor has the payload of an own block any more: peers may"""
        self.peers: tuple[PeerId, ...] = ()
        """who may have the payload; at most two, newest first"""
        self.retry_ms = 0
        """nothing is asked for it again before this"""
        self.seen_ms = 0
        """when its proposal was first seen, for pacing (B2a)"""
        self.view = 0
        """the highest view it is known to be proposed in"""


def block_of(header: Header, block_hash: Hash32) -> Block:
    """Return the block of a header whose hash is known."""
    return Block(
        block_hash=block_hash,
        header=header,
        height=header.height,
        timestamp_ms=header.timestamp_ms,
    )
