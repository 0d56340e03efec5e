"""Dissemination without I/O: frames and wishes in, frames and outcomes out.

Spec: spec/dissemination.md. The owner calls one method after the other with `now_ms` of a clock
that never goes back, sends what `next_chunk` yields, performs `take_outputs`, and calls `tick`
often. Nothing here reads a clock, draws a number or hashes a whole payload. Next: `service.py`.
"""

from collections.abc import Callable, Collection

from consensus.core.events import FetchPayload, PushPayload
from consensus.core.types import Hash32
from consensus.payloads import frames
from consensus.payloads.chunks import CHUNK_BYTES, ChunkTree, is_proved, leaf_of, tree_of
from consensus.payloads.fetches import Fetch
from consensus.payloads.limits import (
    ACK_INDICES_AT_ONCE,
    UNASKED_MS_MAX,
    MemoryLimits,
)
from consensus.payloads.outputs import Arrived, Ban, Failed, Output, Read, SendFrame
from consensus.payloads.readings import Readings
from consensus.payloads.shelf import Entry, Shelf, Standing
from consensus.payloads.uploads import Uploads


class Transfer:
    """The dissemination of one node."""

    def __init__(self, memory: MemoryLimits) -> None:
        """Begin with nothing and nobody."""
        self._memory = memory
        self._shelf = Shelf(memory)
        self._uploads = Uploads(memory)
        self._readings = Readings(memory)
        self._fetches: dict[bytes, Fetch] = {}
        self._members: frozenset[bytes] = frozenset()
        self._acks: dict[tuple[bytes, Hash32], list[int]] = {}
        self._outputs: list[Output] = []
        self.counts: dict[str, int] = {}

    @property
    def bytes_held(self) -> int:
        """What is kept and what is under way; never more than `held_bytes_max`."""
        return self._shelf.used_bytes + self._uploads.under_way_bytes

    @property
    def is_busy(self) -> bool:
        """Say whether time matters: something is sent or fetched."""
        return bool(self._fetches or self._acks or len(self._uploads))

    def gauges(self) -> dict[str, int]:
        """Return the present sizes of everything that grows."""
        return {
            "held_bytes": self.bytes_held,
            "payloads": len(self._shelf),
            "uploads": len(self._uploads),
            "fetches": len(self._fetches),
            "readings": len(self._readings),
        }

    def take_outputs(self) -> list[Output]:
        """Return what has to be done, once."""
        outputs, self._outputs = self._outputs, []
        return outputs

    # --- wishes of the node -------------------------------------------------------------------

    def set_members(self, members: Collection[bytes]) -> None:
        """Say who is pushed to and may push: the sets of this epoch and the next, not oneself."""
        self._members = frozenset(members)
        self._uploads.set_members(self._members)

    def hold(self, tree: ChunkTree, payload: bytes, now_ms: int) -> None:
        """Pin a whole payload until `drop`."""
        self._keep(tree, payload, Standing.HELD, now_ms)

    def push(self, effect: PushPayload, now_ms: int) -> None:
        """Send a payload to every member; one that is not here is read back first."""
        entry = self._shelf.get(effect.payload_commitment)
        if entry is not None and entry.payload is not None:
            self._push(entry, now_ms)
            return
        if self._readings.push(effect.block_hash, effect.payload_commitment):
            self._read(effect.block_hash, effect.payload_commitment)

    def fetch(self, effect: FetchPayload, now_ms: int) -> None:
        """Get a payload; `Arrived` or `Failed` follows, once for all wishes that are open."""
        commitment = effect.payload_commitment
        entry = self._shelf.get(commitment)
        if entry is not None and entry.payload is not None:
            self._shelf.change(entry, Standing.HELD)
            self._outputs.append(Arrived(commitment=commitment))
            return
        if entry is None:
            if effect.payload_bytes > self._memory.payload_bytes_max:
                self._outputs.append(Failed(commitment=commitment, reason="too large"))
                return
            if effect.payload_bytes == 0:
                self._fetch_nothing(commitment, now_ms)
                return
            entry = Entry(
                commitment=commitment,
                payload_bytes=effect.payload_bytes,
                standing=Standing.WANTED,
                touched_ms=now_ms,
            )
            if not self._put(entry):
                self._outputs.append(Failed(commitment=commitment, reason="no room"))
                return
        elif entry.standing is Standing.UNASKED:
            self._shelf.change(entry, Standing.WANTED)
        fetch = self._fetches.get(commitment)
        if fetch is None:
            fetch = self._fetches[commitment] = Fetch(entry, effect.block_hash, now_ms)
        fetch.name(effect.peers, effect.block_hash, now_ms)

    def drop(self, commitment: Hash32, now_ms: int) -> None:
        """Fetch and pin a payload no more; what is whole goes on to serve others for a while."""
        entry = self._shelf.get(commitment)
        if entry is None:
            return
        if entry.standing is Standing.HELD:
            self._shelf.change(entry, Standing.CACHED)
            self._shelf.touch(entry, now_ms)
        elif entry.standing is Standing.WANTED:
            del self._fetches[commitment]
            self._leave(entry)

    def get(self, commitment: bytes) -> bytes | None:
        """Return a pinned payload."""
        entry = self._shelf.get(commitment)
        return entry.payload if entry is not None and entry.standing is Standing.HELD else None

    def stored(
        self,
        block_hash: Hash32,
        commitment: Hash32,
        found: tuple[ChunkTree, bytes] | None,
        now_ms: int,
    ) -> None:
        """Take what was read back; None: it is not there."""
        reading = self._readings.take(block_hash, commitment, len(found[1]) if found else 0)
        if reading is None:
            return
        entry: Entry | None = None
        if found is not None and found[0].commitment == commitment:
            is_for_strangers = reading.is_strangers and not reading.is_push
            entry = self._keep(*found, Standing.CACHED, now_ms, is_for_strangers=is_for_strangers)
        elif found is not None:  # a block's hash binds its commitment: no header says such a pair
            for asker in dict.fromkeys(asker for asker, _ in reading.askers):
                self._ban(asker, "GET of a block with another payload")
            reading.askers.clear()
        if entry is None:
            for asker, _ in reading.askers:
                self._send(asker, frames.encode_missing(commitment))
            if reading.is_push:
                self._count("pushes_without_bytes")
            return
        if reading.is_push:
            self._push(entry, now_ms)
        for asker, get in reading.askers:
            self._answer(asker, get, entry, now_ms)

    # --- the network --------------------------------------------------------------------------

    def receive(self, peer: bytes, frame: bytes, now_ms: int) -> None:
        """Take a frame of an authenticated peer: `screen`, the proof, `accept`."""
        chunk = self.screen(peer, frame, now_ms)
        if chunk is not None:
            self.accept(peer, chunk, proof_of(chunk), now_ms)

    def screen(self, peer: bytes, frame: bytes, now_ms: int) -> frames.Chunk | None:
        """Take a frame; a chunk that is worth a proof comes back, for `proof_of` and `accept`."""
        try:
            said = frames.decode(frame, self._memory.payload_bytes_max)
        except frames.WrongFrame as error:
            self._ban(peer, f"frame: {error}")
            return None
        if isinstance(said, frames.Chunk):
            return self._screen_chunk(peer, said, now_ms)
        if isinstance(said, frames.Ack):
            self._uploads.acknowledge(peer, said.commitment, said.indices, said.is_stop, now_ms)
        elif isinstance(said, frames.Get):
            self._asked(peer, said, now_ms)
        else:
            fetch = self._fetches.get(said.commitment)
            if fetch is not None:
                fetch.missing(peer)
        return None

    def accept(self, peer: bytes, chunk: frames.Chunk, leaf: Hash32 | None, now_ms: int) -> None:
        """Keep a chunk with its proof; without one (`leaf` None) ban who sent it."""
        if leaf is None:
            self._ban(peer, "chunk without proof")
            return
        commitment = chunk.commitment
        entry = self._shelf.get(commitment)
        if entry is None:
            entry = self._new_unasked(peer, chunk, now_ms)
            if entry is None:
                return
        if entry.payload is not None:
            self._stop(peer, commitment)
            return
        fetch = self._fetches.get(commitment)
        if entry.payload_bytes != chunk.payload_bytes and not self._correct(entry, chunk, fetch):
            return
        is_new = chunk.index not in entry.chunks
        if fetch is not None:
            fetch.arrived(peer, chunk.index, now_ms, is_new=is_new)
        self._acknowledge(peer, commitment, chunk.index)
        if not is_new:
            self._count("chunks_twice")
            return
        self._count("chunks_in")
        self._shelf.touch(entry, now_ms)
        entry.add(chunk.index, chunk.data, leaf)
        if entry.payload is not None:
            self._stop(peer, commitment)
            self._whole(entry)

    def lose(self, peer: bytes) -> None:
        """Forget a peer whose connection is gone."""
        self._uploads.end_peer(peer)
        for fetch in self._fetches.values():
            fetch.lose(peer)
        for key in [key for key in self._acks if key[0] == peer]:
            del self._acks[key]

    def tick(self, now_ms: int, connected: Collection[bytes]) -> None:
        """Let time pass: acknowledge, ask, ask again, give up. Call every <= 20 ms of work."""
        for (peer, commitment), indices in self._acks.items():
            self._send(peer, frames.encode_ack(commitment, indices, is_stop=False))
        self._acks.clear()
        for fetch in list(self._fetches.values()):
            commitment = fetch.entry.commitment
            for peer, get in fetch.plan(now_ms, connected):
                self._send(peer, frames.encode_get(get))
            if fetch.has_failed(now_ms, connected):
                del self._fetches[commitment]
                self._leave(fetch.entry)
                self._fail(commitment, "nobody has it")
        given_up = self._uploads.expire(now_ms)
        if given_up:
            self._count("chunks_unacknowledged", given_up)
        for entry in self._shelf.of(Standing.UNASKED):
            if now_ms - entry.touched_ms >= UNASKED_MS_MAX:
                self._shelf.remove(entry)
                self._uploads.end_payload(entry.commitment)
                self._count("dropped_unasked_old")

    def next_chunk(
        self, now_ms: int, can_send: Callable[[bytes], bool]
    ) -> tuple[bytes, bytes] | None:
        """Return the next (peer, frame) to send, within every window and quota."""
        chosen = self._uploads.next_chunk(now_ms, can_send)
        if chosen is None:
            return None
        upload, index = chosen
        entry = upload.entry
        assert entry.payload is not None, "only whole payloads are sent"
        assert entry.tree is not None, "a whole payload has its tree"
        self._count("chunks_out")
        start = index * CHUNK_BYTES
        frame = frames.encode_chunk(
            commitment=entry.commitment,
            payload_bytes=entry.payload_bytes,
            index=index,
            path=entry.tree.path(index),
            data=memoryview(entry.payload)[start : start + CHUNK_BYTES],
        )
        return upload.peer, frame

    # --- within -------------------------------------------------------------------------------

    def _count(self, name: str, more: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + more

    def _send(self, peer: bytes, frame: bytes) -> None:
        self._outputs.append(SendFrame(peer=peer, frame=frame))

    def _read(self, block_hash: Hash32, commitment: Hash32) -> None:
        self._outputs.append(Read(block_hash=block_hash, commitment=commitment))

    def _fail(self, commitment: Hash32, reason: str) -> None:
        self._count("fetches_failed")
        self._outputs.append(Failed(commitment=commitment, reason=reason))

    def _ban(self, peer: bytes, reason: str) -> None:
        """Let go of a liar, and of what it pushed and nobody asked for."""
        self._count("banned")
        self._outputs.append(Ban(peer=peer, reason=reason))
        self.lose(peer)
        for entry in self._shelf.of(Standing.UNASKED):
            if entry.sender == peer:
                self._shelf.remove(entry)
                self._uploads.end_payload(entry.commitment)

    def _put(self, entry: Entry, *, is_own: bool = False) -> bool:
        """Put an entry on the shelf, and settle what gave way to it."""
        is_in = self._shelf.put(entry, is_own=is_own)
        self._settle_gone()
        return is_in

    def _settle_gone(self) -> None:
        gone, self._shelf.gone = self._shelf.gone, []
        for entry in gone:
            self._count(f"dropped_{entry.standing.value}_for_room")
            self._uploads.end_payload(entry.commitment)
            if self._fetches.pop(entry.commitment, None) is not None:
                self._fail(entry.commitment, "gave way to an own build")

    def _keep(
        self,
        tree: ChunkTree,
        payload: bytes,
        standing: Standing,
        now_ms: int,
        *,
        is_for_strangers: bool = False,
    ) -> Entry | None:
        """Keep a whole payload of our own; None: no room. Ends a fetch of the same."""
        assert len(payload) <= self._memory.payload_bytes_max, len(payload)
        entry = self._shelf.get(tree.commitment)
        is_held = standing is Standing.HELD
        if entry is not None and entry.payload is not None:
            if is_held:
                self._shelf.change(entry, Standing.HELD)
            self._shelf.touch(entry, now_ms)
            return entry
        is_wanted = self._fetches.pop(tree.commitment, None) is not None
        if entry is not None:
            self._shelf.remove(entry)
        entry = Entry(
            commitment=tree.commitment,
            payload_bytes=len(payload),
            standing=Standing.HELD if is_wanted else standing,
            is_for_strangers=is_for_strangers and not is_wanted,
            touched_ms=now_ms,
        )
        entry.complete(payload, tree)
        if not self._put(entry, is_own=is_held):
            self._count("dropped_read_for_room")
            if is_wanted:
                self._fail(tree.commitment, "no room")
            return None
        if is_wanted:
            self._outputs.append(Arrived(commitment=tree.commitment))
        return entry

    def _fetch_nothing(self, commitment: Hash32, now_ms: int) -> None:
        """A payload without bytes has no chunk that could come: it is known or does not exist."""
        tree = tree_of(b"")
        if tree.commitment != commitment:
            self._fail(commitment, "no bytes have this commitment")
        elif self._keep(tree, b"", Standing.HELD, now_ms) is not None:
            self._outputs.append(Arrived(commitment=commitment))

    def _leave(self, entry: Entry) -> None:
        """End a fetch: chunks that are here may still be of use."""
        if entry.chunks:
            self._shelf.change(entry, Standing.UNASKED)
        else:
            self._shelf.remove(entry)

    def _whole(self, entry: Entry) -> None:
        self._count("payloads_in")
        self._fetches.pop(entry.commitment, None)
        if entry.standing is Standing.WANTED:
            self._shelf.change(entry, Standing.HELD)
            self._outputs.append(Arrived(commitment=entry.commitment))

    def _screen_chunk(self, peer: bytes, chunk: frames.Chunk, now_ms: int) -> frames.Chunk | None:
        entry = self._shelf.get(chunk.commitment)
        if entry is None:
            if peer in self._members:
                return chunk
            self._count("refused_unasked")
            self._stop(peer, chunk.commitment)
            return None
        if entry.payload is not None:
            self._count("chunks_twice")
            self._stop(peer, chunk.commitment)
            return None
        if chunk.index in entry.chunks and chunk.payload_bytes == entry.payload_bytes:
            self._count("chunks_twice")
            self._acknowledge(peer, chunk.commitment, chunk.index)
            fetch = self._fetches.get(chunk.commitment)
            if fetch is not None:
                fetch.arrived(peer, chunk.index, now_ms, is_new=False)
            return None
        return chunk

    def _new_unasked(self, peer: bytes, chunk: frames.Chunk, now_ms: int) -> Entry | None:
        entry = Entry(
            commitment=chunk.commitment,
            payload_bytes=chunk.payload_bytes,
            standing=Standing.UNASKED,
            sender=peer,
            touched_ms=now_ms,
        )
        if peer in self._members and self._put(entry):
            return entry
        self._count("refused_unasked")
        self._stop(peer, chunk.commitment)
        return None

    def _correct(self, entry: Entry, chunk: frames.Chunk, fetch: Fetch | None) -> bool:
        """Take the length that a proved chunk has: the header's was wrong."""
        assert fetch is not None, "what was pushed has a proved length"
        is_resized = self._shelf.resize(entry, chunk.payload_bytes)
        self._settle_gone()
        if is_resized:
            fetch.begin_again()
            return True
        del self._fetches[entry.commitment]
        self._shelf.remove(entry)
        self._fail(entry.commitment, "no room")
        return False

    def _acknowledge(self, peer: bytes, commitment: Hash32, index: int) -> None:
        indices = self._acks.setdefault((peer, commitment), [])
        indices.append(index)
        if len(indices) >= ACK_INDICES_AT_ONCE:
            del self._acks[peer, commitment]
            self._send(peer, frames.encode_ack(commitment, indices, is_stop=False))

    def _stop(self, peer: bytes, commitment: Hash32) -> None:
        indices = self._acks.pop((peer, commitment), [])
        self._send(peer, frames.encode_ack(commitment, indices, is_stop=True))

    def _push(self, entry: Entry, now_ms: int) -> None:
        self._shelf.touch(entry, now_ms)
        for peer in sorted(self._members):
            if not self._uploads.push(peer, entry, now_ms):
                self._count("dropped_pushes")

    def _asked(self, peer: bytes, get: frames.Get, now_ms: int) -> None:
        entry = self._shelf.get(get.commitment)
        if entry is not None and entry.payload is not None:
            self._answer(peer, get, entry, now_ms)
            return
        if entry is None:
            is_member = peer in self._members
            is_new = self._readings.ask(peer, get, is_member=is_member, now_ms=now_ms)
            if is_new:
                self._read(get.block_hash, get.commitment)
            if is_new is not None:
                return
            self._count("refused_reads")
        self._send(peer, frames.encode_missing(get.commitment))

    def _answer(self, peer: bytes, get: frames.Get, entry: Entry, now_ms: int) -> None:
        """Send what was asked; to one who has the length wrong, the chunk that proves ours."""
        if get.payload_bytes == entry.payload_bytes:
            indices = range(get.first, get.first + get.count)
        else:
            indices = range(min(1, entry.payload_bytes))
        self._shelf.touch(entry, now_ms)
        if peer in self._members:
            entry.is_for_strangers = False
        if not indices or not self._uploads.answer(peer, entry, indices, now_ms):
            self._count("refused_answers")
            self._send(peer, frames.encode_missing(get.commitment))


def proof_of(chunk: frames.Chunk) -> Hash32 | None:
    """Return the leaf of a chunk that is proved, else None; hashes the chunk, about 0.1 ms."""
    leaf = leaf_of(chunk.data)
    is_right = is_proved(
        commitment=chunk.commitment,
        payload_bytes=chunk.payload_bytes,
        index=chunk.index,
        path=chunk.path,
        leaf=leaf,
    )
    return leaf if is_right else None
