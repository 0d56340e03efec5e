"""Which message travels on which link, and what the two links may hold.

Spec: spec/network.md#messages-of-consensus.
"""

from consensus.core.types import Certificate, Evidence, Message, Propose, Request, Vote
from runtime.links import LinkLimits

VOTES_FRAME_BYTES_MAX = 2**16
SYNC_FRAME_BYTES_MAX = 2**20
BAN_MS = 30_000
"""how long a peer is refused that sent what no honest peer sends"""

VOTES_LIMITS = LinkLimits(
    frame_bytes_max=VOTES_FRAME_BYTES_MAX,
    queue_frames=512,
    peers_max=2_048,
    member_bytes_per_s=2**23,
    member_burst_bytes=2**24,
    stranger_bytes_per_s=0,
    stranger_burst_bytes=0,
)
SYNC_LIMITS = LinkLimits(
    frame_bytes_max=SYNC_FRAME_BYTES_MAX,
    queue_frames=64,
    peers_max=2_048,
    member_bytes_per_s=2**24,
    member_burst_bytes=2**25,
    stranger_bytes_per_s=2**14,
    stranger_burst_bytes=2**16,
)

_VOTES = (Vote, Certificate, Propose, Evidence)


def goes_on_votes(message: Message, frame_bytes: int) -> bool:
    """Say whether a message between members travels on the link of votes."""
    return isinstance(message, _VOTES) and frame_bytes <= VOTES_FRAME_BYTES_MAX


def is_of_strangers(message: Message) -> bool:
    """Say whether a message is taken from a peer that is neither a member nor dialled."""
    return isinstance(message, Request)
