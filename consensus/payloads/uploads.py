"""Payloads on their way to peers: a window per (peer, payload) and per peer, served in turn.

Pushed and asked chunks of one payload to one peer are one upload, so a chunk that is already on
its way is not sent again because it is asked for. All uploads take turns chunk by chunk: a push
to many does not keep an asker waiting. Spec: spec/dissemination.md#sending.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from consensus.payloads.buckets import Bucket
from consensus.payloads.chunks import CHUNK_BYTES, chunk_bytes, chunk_count
from consensus.payloads.limits import (
    ACK_TIMEOUT_MS,
    MEMBER_SERVED_BYTES_PER_S,
    SERVED_BURST_PAYLOADS,
    STRANGERS_SERVED_BYTES_PER_S,
    UPLOAD_IDLE_MS_MAX,
    UPLOADS_PER_PEER_MAX,
    WINDOW_CHUNKS_MAX,
    MemoryLimits,
)
from consensus.payloads.shelf import Entry


@dataclass(slots=True, kw_only=True)
class Upload:
    """What one peer still gets of one payload."""

    peer: bytes
    entry: Entry
    is_asked: bool
    queue: deque[int] = field(default_factory=deque)
    under_way: set[int] = field(default_factory=set)
    window_chunks: int = WINDOW_CHUNKS_MAX
    heard_ms: int
    """last ACK, or when its time began anew"""
    acked_ms: int
    """last ACK, or the beginning"""


class Uploads:
    """All uploads of a node."""

    def __init__(self, memory: MemoryLimits) -> None:
        """Begin with none."""
        self._memory = memory
        self._uploads: dict[tuple[bytes, bytes], Upload] = {}
        """by (peer, commitment), in the order of their turns"""
        self._of_peer: dict[bytes, int] = {}
        """uploads"""
        self._under_way_to: dict[bytes, int] = {}
        """chunks"""
        self._buckets: dict[bytes, Bucket] = {}
        self._members: frozenset[bytes] = frozenset()
        self.under_way_bytes = 0

    def __len__(self) -> int:
        """Return the number of uploads."""
        return len(self._uploads)

    def set_members(self, members: frozenset[bytes]) -> None:
        """Say who has a quota of its own; the others share one."""
        self._members = members
        for peer in [peer for peer in self._buckets if peer and peer not in members]:
            del self._buckets[peer]

    def push(self, peer: bytes, entry: Entry, now_ms: int) -> bool:
        """Send a whole payload unasked; False: too many are on their way to that peer."""
        return self._add(peer, entry, range(chunk_count(entry.payload_bytes)), False, now_ms)

    def answer(self, peer: bytes, entry: Entry, indices: Iterable[int], now_ms: int) -> bool:
        """Send the chunks that a peer asked for, before the others; False: too many uploads."""
        return self._add(peer, entry, indices, True, now_ms)

    def next_chunk(
        self, now_ms: int, can_send: Callable[[bytes], bool]
    ) -> tuple[Upload, int] | None:
        """Choose the next chunk to send, upload by upload in turn; None: nothing can go now."""
        if self.under_way_bytes + CHUNK_BYTES > self._memory.under_way_bytes_max:
            return None
        for key, upload in list(self._uploads.items()):
            if not upload.queue or len(upload.under_way) >= upload.window_chunks:
                continue
            if self._under_way_to.get(upload.peer, 0) >= WINDOW_CHUNKS_MAX:
                continue
            bucket = self._bucket(upload.peer, now_ms)
            if not bucket.is_open(now_ms) or not can_send(upload.peer):
                continue
            self._uploads[key] = self._uploads.pop(key)
            index = upload.queue.popleft()
            if not upload.under_way:
                upload.heard_ms = now_ms
            self._begin(upload, index)
            bucket.take(chunk_bytes(upload.entry.payload_bytes, index))
            return upload, index
        return None

    def acknowledge(
        self, peer: bytes, commitment: bytes, indices: Iterable[int], is_stop: bool, now_ms: int
    ) -> None:
        """Take a peer's word for what came; what is not under way to it is ignored."""
        upload = self._uploads.get((peer, commitment))
        if upload is None:
            return
        for index in indices:
            if index in upload.under_way:
                self._finish(upload, index)
                upload.heard_ms = upload.acked_ms = now_ms
                upload.window_chunks = min(WINDOW_CHUNKS_MAX, upload.window_chunks + 1)
        if is_stop or not (upload.queue or upload.under_way):
            self._end(upload)

    def expire(self, now_ms: int) -> int:
        """End what stands still; return how many chunks were given up for want of an ACK."""
        given_up = 0
        for upload in list(self._uploads.values()):
            if upload.under_way and now_ms - upload.heard_ms >= ACK_TIMEOUT_MS:
                given_up += len(upload.under_way)
                self._release(upload)
                upload.window_chunks = max(1, upload.window_chunks // 2)
                upload.heard_ms = now_ms
            is_idle = now_ms - upload.acked_ms >= UPLOAD_IDLE_MS_MAX
            if is_idle or not (upload.queue or upload.under_way):
                self._end(upload)
        return given_up

    def end_peer(self, peer: bytes) -> None:
        """End everything that goes to one peer."""
        for upload in [u for u in self._uploads.values() if u.peer == peer]:
            self._end(upload)

    def end_payload(self, commitment: bytes) -> None:
        """End everything that sends one payload."""
        for upload in [u for u in self._uploads.values() if u.entry.commitment == commitment]:
            self._end(upload)

    def _add(
        self, peer: bytes, entry: Entry, indices: Iterable[int], is_asked: bool, now_ms: int
    ) -> bool:
        upload = self._uploads.get((peer, entry.commitment))
        if upload is None:
            if self._of_peer.get(peer, 0) >= UPLOADS_PER_PEER_MAX and not self._push_gives_way(
                peer
            ):
                return False
            upload = Upload(
                peer=peer, entry=entry, is_asked=is_asked, heard_ms=now_ms, acked_ms=now_ms
            )
            self._uploads[peer, entry.commitment] = upload
            self._of_peer[peer] = self._of_peer.get(peer, 0) + 1
        fresh = [index for index in indices if index not in upload.under_way]
        if is_asked:
            upload.is_asked = True
            upload.acked_ms = now_ms
            asked = set(fresh)
            upload.queue = deque(
                (*sorted(asked), *(index for index in upload.queue if index not in asked))
            )
        else:
            queued = set(upload.queue)
            upload.queue.extend(index for index in fresh if index not in queued)
        return True

    def _push_gives_way(self, peer: bytes) -> bool:
        for upload in self._uploads.values():
            if upload.peer == peer and not upload.is_asked:
                self._end(upload)
                return True
        return False

    def _bucket(self, peer: bytes, now_ms: int) -> Bucket:
        is_member = peer in self._members
        name = peer if is_member else b""
        bucket = self._buckets.get(name)
        if bucket is None:
            rate = MEMBER_SERVED_BYTES_PER_S if is_member else STRANGERS_SERVED_BYTES_PER_S
            burst = SERVED_BURST_PAYLOADS * max(CHUNK_BYTES, self._memory.payload_bytes_max)
            bucket = Bucket.full(bytes_per_s=rate, burst_bytes=burst, now_ms=now_ms)
            self._buckets[name] = bucket
        return bucket

    def _begin(self, upload: Upload, index: int) -> None:
        upload.under_way.add(index)
        self.under_way_bytes += chunk_bytes(upload.entry.payload_bytes, index)
        self._under_way_to[upload.peer] = self._under_way_to.get(upload.peer, 0) + 1

    def _finish(self, upload: Upload, index: int) -> None:
        upload.under_way.remove(index)
        self.under_way_bytes -= chunk_bytes(upload.entry.payload_bytes, index)
        self._under_way_to[upload.peer] -= 1

    def _release(self, upload: Upload) -> None:
        for index in list(upload.under_way):
            self._finish(upload, index)

    def _end(self, upload: Upload) -> None:
        self._release(upload)
        del self._uploads[upload.peer, upload.entry.commitment]
        left = self._of_peer[upload.peer] - 1
        if left:
            self._of_peer[upload.peer] = left
        else:
            del self._of_peer[upload.peer]
            self._under_way_to.pop(upload.peer, None)
