"""Every bound of dissemination, and how the bounds depend on each other.

Spec: spec/dissemination.md#limits. All of them are this node's own choice but CHUNKS_ASKED_MAX and
ACK_INDICES_MAX, which bound what one frame may say.
"""

from dataclasses import dataclass

from consensus.core.types import VALIDATOR_COUNT_MAX
from consensus.payloads.chunks import CHUNK_BYTES

CHUNKS_ASKED_MAX = 64
"""chunks that one GET may ask for"""
ACK_INDICES_MAX = 64
"""chunks that one ACK may name"""
ACK_INDICES_AT_ONCE = 4
"""an ACK leaves when so many chunks came, or at the end of the turn"""

WINDOW_CHUNKS_MAX = 16
"""chunks under way to one peer, of one payload and together: 4 MiB, 40 MB/s over 100 ms"""
ACK_TIMEOUT_MS = 400
"""a transfer without any ACK for so long frees its window and halves it"""
UPLOAD_IDLE_MS_MAX = 3_000
"""a transfer without any ACK for so long ends"""
UPLOADS_PER_PEER_MAX = 8
"""payloads on their way to one peer; the oldest push gives way, an asked one is MISSING"""

FETCH_FIRST_MS = 30
"""for so long after a fetch began only the first named peer is asked: a push may be on its way"""
PUSH_QUIET_MS = 100
"""nor is anybody else asked while chunks came unasked that recently"""
FETCH_AGAIN_MS = 500
"""a source that was asked and sends nothing for so long is asked no more in this round"""
ASKED_MS_MAX = 2_000
"""a chunk that was asked for and is not here after so long is asked of somebody else"""
FETCH_ROUNDS_MAX = 2
"""times that each source is tried"""
FETCH_IDLE_MS_MAX = 3_000
"""a fetch without a new chunk for so long has failed"""
ASKED_PER_SOURCE_MAX = 16
"""chunks asked of one source and not arrived"""
SOURCES_AT_ONCE_MAX = 4
SOURCES_MAX = 64
"""peers that one fetch may try"""

UNASKED_PER_SENDER_MAX = 8
"""payloads of one sender that nobody asked for"""
UNASKED_MS_MAX = 10_000
"""a payload that nobody asked for and that is not touched for so long goes"""

ENTRIES_MAX = 4_096
"""payloads known at once, of every kind: many are empty and cost no bytes to speak of"""
READS_MAX = 32
"""payloads being read back from the executor, or waiting for it; and one for each member that has
none, so that no others keep it waiting for room"""
READS_QUEUE_MAX = 2 * (READS_MAX + VALIDATOR_COUNT_MAX)
"""the same with the sets of two epochs, and own pushes"""
READS_PER_PEER_MAX = 4
STRANGERS_READS_MAX = 8
"""of them for strangers: members find room whatever strangers ask for"""
MEMBER_READ_BYTES_PER_S = 2**28
"""what may be read back for one member, a second of it at once: what it is sent, were it all asked
of this node; one that asks for a chunk of each block costs four tenths of a processor at most"""
STRANGER_READ_BYTES_PER_S = 2**25
"""what may be read back for one peer outside the set"""
STRANGERS_READ_BYTES_PER_S = 2**26
"""the same for all of them together: about a tenth of a processor, here and in the executor"""
READ_COST_BYTES_MIN = 2**19
"""what a reading counts for at least, also one that finds nothing"""
READ_BUCKETS_MAX = 4_096
"""members, and as many strangers, whose reading is remembered; beyond, the one that read longest
ago is forgotten"""
READ_ASKERS_MAX = 64
"""GETs that wait for one reading"""

MEMBER_SERVED_BYTES_PER_S = 2**28
"""what one member is sent, pushed or asked for; what is over waits"""
STRANGERS_SERVED_BYTES_PER_S = 2**25
"""what all peers outside the set are sent together"""
SERVED_BURST_PAYLOADS = 2
"""payloads of full size that may be sent at once before those rates bind"""

BAN_MS = 60_000
"""a peer that sent what no honest one sends is refused for so long"""
FRAMES_PER_TURN = 32
"""frames taken in before anything is sent"""
CHUNKS_PER_TURN = 12
"""chunks sent before frames are taken in again"""
WORK_POLL_MS = 10
"""longest sleep while something is under way"""
IDLE_POLL_MS = 100
STOP_MS_MAX = 5_000

LINK_QUEUE_FRAMES = 24
"""frames in the socket's queue of one peer, each way"""
LINK_ENVELOPE_BYTES = 64
"""room for what encryption adds to the longest frame: a longer message cuts the connection"""
LINK_PEERS_MAX = 1_024
MEMBER_RECEIVED_BYTES_PER_S = 2**29
MEMBER_RECEIVED_BURST_BYTES = 2**28
STRANGER_RECEIVED_BYTES_PER_S = 2**24
STRANGER_RECEIVED_BURST_BYTES = 2**23

assert LINK_QUEUE_FRAMES > WINDOW_CHUNKS_MAX, "a full window leaves room for small frames"
assert ACK_TIMEOUT_MS < FETCH_AGAIN_MS, "a chunk asked for again must not count as under way"
assert min(CHUNKS_ASKED_MAX, WINDOW_CHUNKS_MAX) >= ASKED_PER_SOURCE_MAX
assert min(ACK_INDICES_MAX, WINDOW_CHUNKS_MAX) >= ACK_INDICES_AT_ONCE
assert READS_PER_PEER_MAX < STRANGERS_READS_MAX < READS_MAX, "nobody takes all of what others share"
assert FETCH_AGAIN_MS * FETCH_ROUNDS_MAX < FETCH_IDLE_MS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLimits:
    """How `held_bytes_max` is divided: payloads kept, chunks under way, one payload put together.

    What is kept and what is under way never exceed `held_bytes_max` together.
    """

    payload_bytes_max: int
    kept_bytes_max: int
    """payloads whole or in part, the missing part of a wanted one included"""
    under_way_bytes_max: int
    """chunks sent and neither acknowledged nor given up"""
    unasked_per_sender_bytes_max: int
    strangers_cached_bytes_max: int
    """whole payloads that were read back for strangers and nobody else asked for since"""

    @classmethod
    def of(cls, *, payload_bytes_max: int, held_bytes_max: int) -> "MemoryLimits":
        """Divide `held_bytes_max`, at least 8 chunks and 4 payloads of full size."""
        least = 8 * CHUNK_BYTES + 4 * payload_bytes_max
        assert held_bytes_max >= least, f"held_bytes_max is {held_bytes_max}, less than {least}"
        under_way = max(2 * CHUNK_BYTES, held_bytes_max // 8)
        kept = held_bytes_max - under_way - payload_bytes_max
        return cls(
            payload_bytes_max=payload_bytes_max,
            kept_bytes_max=kept,
            under_way_bytes_max=under_way,
            unasked_per_sender_bytes_max=2 * payload_bytes_max,
            strangers_cached_bytes_max=max(kept // 8, payload_bytes_max),
        )
