"""What a link may hold and how long it waits: sizes per class from the caller, times for all.

Spec: spec/network.md#limits.
"""

from dataclasses import dataclass
from enum import IntEnum


class SocketClass(IntEnum):
    """What a link is for; it stands in the handshake. Spec: spec/network.md#socket-classes."""

    VOTES = 1
    SYNC = 2
    PAYLOADS = 3
    GOSSIP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """What one link may hold; each number at least 1 but where it says otherwise."""

    frame_bytes_max: int
    """of one frame, in either direction"""
    queue_frames: int
    """high-water mark of a connection, in either direction"""
    peers_max: int
    """connections that others opened and proved; also of those that prove nothing"""
    member_bytes_per_s: int
    member_burst_bytes: int
    stranger_bytes_per_s: int
    """0: strangers are refused at the handshake"""
    stranger_burst_bytes: int


FRAME_COST_BYTES = 512
"""what a frame costs of its sender's quota beside its own bytes: to take the smallest in and decode
it is as much work as to take in some kilobytes of a large one"""

# Milliseconds of a clock that never goes back.
RETRY_FIRST_MS = 250
"""an unanswered step of a handshake is sent again; each time the wait doubles"""
RETRY_LAST_MS = 2_000
ATTEMPT_MS = 3_000
"""a proof that nobody acknowledged for so long: the handshake begins anew, with new nonces"""
PING_MS = 1_000
SILENT_MS = 5_000
"""a proved connection from which nothing came for so long has ended"""
REDIAL_MS = 4_000
"""a dialled peer that proved nothing for so long: the socket is opened anew"""
UNPROVED_MS = 10_000
"""an accepted connection that proved nothing for so long is cut"""
WATCH_MS = 500
"""between two looks at what connections received"""

UNPROVED_BYTES_MAX = 2**22
"""that a connection may send without having proved who it is"""
PENDING_MAX = 1_024
"""handshakes under way at a listener"""
PROOFS_PER_S = 500
"""signatures that a listener verifies, members and strangers apart; also the burst"""
RESETS_PER_S = 200
"""frames without a session that are answered; also the burst"""
BANS_MAX = 4_096
"""keys banned at a time; beyond, the ban that ends first is forgotten"""
BUCKETS_MAX = 4_096
"""quotas held at a time; beyond, the fullest is forgotten, which is the most harmless"""
