"""Gossip without sockets, clocks and threads: frames and admitted hashes in, frames and bans out.

What a peer sends is hashed, noted as its own, and waits, a bounded number per peer, until
`take_batch` gives it to the pool together with what other peers sent; each record is judged once,
however many send it. What the pool took in, from peers or from users, comes back through `push`
and goes to every peer that is not known to have it. Spec: spec/gossip.md.
"""

from collections.abc import Callable, Mapping
from random import Random

import numpy as np

from engine.gossip.addresses import PEERS_MAX
from engine.gossip.effects import COUNTS, Ban, Batch, Effect, PoolView, Send
from engine.gossip.frames import (
    HASHES_MAX,
    NOTHING,
    RECORDS_MAX,
    BadFrame,
    Frame,
    Kind,
    decode_frame,
    encode_frame,
    has_twins,
)
from engine.gossip.known import ENTRIES, SECRET_BYTES, Known, State
from engine.gossip.peer import GossipLimits, Peer
from engine.pool_rules import PoolReason
from kernels.layout import U8

ANSWER_MAX_MS = 10_000
"""after which a question is over"""
LATE_QUESTIONS_MAX = 4
"""of each kind that a peer has left unanswered: a slow one still answers them, in their order"""
LATE_MAX_MS = 120_000
"""after which nobody waits for such an answer any more"""
BAN_MS = 60_000
INVENTORY_EVERY_MS = 30_000
PAGE_EVERY_MS = 50
"""between two pages of inventory that are made, for all peers together"""
PAGES_MAX = 1_024
"""of one inventory; a pool of the usual size fills an eighth of them"""
BACKLOG_PAUSE_MS = 20
"""after a push that was not taken, before the next try"""
BACKLOG_FRAMES = 4
"""of one try"""
PUSHED_AGAIN_MS = 1_000
"""a backlog that waits for so long is announced: the peer has most of it from others by then"""
UNASKED_POINTS = 20
"""for an answer that nobody waits for, and for a question beside an open one"""
FLOOD_POINTS = 1
"""for each frame beyond the quota"""
OFFENCES = (
    PoolReason.MALFORMED, PoolReason.WRONG_CHAIN, PoolReason.FEE_BELOW_MINIMUM,
    PoolReason.SIGNATURE,
)  # fmt: skip
"""what no pool of this chain admits, so that no honest peer has it"""


class Gossip:
    """The conduct of one node; one thread at a time."""

    def __init__(
        self,
        pool: PoolView,
        *,
        hash_records: Callable[[U8], U8],
        random: Random,
        limits: GossipLimits | None = None,
        known_entries: int = ENTRIES,
    ) -> None:
        """Know no peer. hash_records: (n, 192) records to (n, 32) transaction hashes."""
        self.counts = dict.fromkeys(COUNTS, 0)
        self._pool = pool
        self._hash_records = hash_records
        self._random = random
        self._limits = limits or GossipLimits()
        self._known = Known(random.randbytes(SECRET_BYTES), known_entries)
        self._peers: dict[bytes, Peer] = {}
        self._turn = 0
        """which peer's records are judged first"""
        self._inventory_from_ms: int | None = None
        self._page_from_ms = 0

    @property
    def waiting_count(self) -> int:
        """Records that wait for judgement."""
        return sum(peer.waiting_count for peer in self._peers.values())

    # Who is there

    def connect(self, sessions: Mapping[bytes, tuple[bytes, bytes]], now_ms: int) -> None:
        """Learn who is connected now, by which sessions; see `Link.sessions`.

        Newcomers are asked for their inventory soon, and so are those with a new session in the
        place of another one: what they sent while that broke is lost.
        """
        for key in sorted(self._peers.keys() - sessions.keys()):
            self._forget(key, "dropped_not_judged", now_ms)
        for key in sorted(self._peers):
            if self._peers[key].has_new_session(sessions[key]):
                self._peers[key].was_cut = True
                self._peers[key].late.clear()  # it never comes
        for key in sorted(sessions.keys() - self._peers.keys()):
            taken = {peer.bit for peer in self._peers.values()}
            free = [bit for bit in range(PEERS_MAX) if bit not in taken]
            if not free:
                break  # the link holds no more connections than this; the next call tries again
            peer = Peer(key, free[0], self._limits, now_ms)
            peer.has_new_session(sessions[key])
            self._will_ask(peer)
            self._peers[key] = peer

    def _will_ask(self, peer: Peer) -> None:
        """Ask for the inventory of a peer, from its beginning, unless that is under way."""
        if peer.asked is None and peer.next_ask is None:
            peer.next_ask, peer.pages = 0, 0

    def _forget(self, key: bytes, count: str, now_ms: int) -> None:
        peer = self._peers.pop(key)
        _, hashes = peer.take_waiting(peer.waiting_count)
        self.counts[count] += len(hashes)
        self._known.set_state(hashes, State.HEARD, now_ms)
        self._known.forget_holder(peer.bit)

    def _ban(self, peer: Peer, reason: str, now_ms: int) -> list[Effect]:
        self.counts["bans"] += 1
        self._forget(peer.key, "dropped_banned", now_ms)
        return [Ban(peer=peer.key, until_ms=now_ms + BAN_MS, reason=reason)]

    def _blame(self, peer: Peer, points: int, reason: str, now_ms: int) -> list[Effect]:
        return self._ban(peer, reason, now_ms) if peer.score.add(points, now_ms) else []

    # What comes from peers

    def receive(self, key: bytes, data: bytes, now_ms: int) -> list[Effect]:
        """Take a frame of a peer."""
        peer = self._peers.get(key)
        if peer is None:
            self.counts["unasked"] += 1
            return []
        if not peer.frames.take(1, now_ms):
            self.counts["dropped_frame_quota"] += 1
            return self._blame(peer, FLOOD_POINTS, "more frames than a peer may send", now_ms)
        try:
            frame = decode_frame(data)
            return self._take(peer, frame, now_ms)
        except BadFrame as error:
            self.counts["bad_frames"] += 1
            return self._ban(peer, str(error), now_ms)

    def _take(self, peer: Peer, frame: Frame, now_ms: int) -> list[Effect]:
        if frame.kind in (Kind.PUSH, Kind.FOUND):
            hashes = self._hash_records(frame.items) if len(frame.items) else NOTHING
            if has_twins(hashes):
                raise BadFrame("a record twice in one frame")
            self.counts["records_in"] += len(hashes)
            take = self._take_push if frame.kind == Kind.PUSH else self._take_found
            return take(peer, frame.items, hashes, now_ms)
        if frame.kind == Kind.ANNOUNCE:
            self.counts["hashes_announced"] += len(frame.items)
            if not peer.heard.take(len(frame.items), now_ms):
                self.counts["dropped_hear_quota"] += len(frame.items)
                return self._blame(
                    peer, FLOOD_POINTS, "more hashes than a peer may announce", now_ms
                )
            self._hear(peer, frame.items, now_ms)
            return []
        if frame.kind == Kind.WANT:
            return self._serve(peer, frame.items, now_ms)
        if frame.kind == Kind.ASK:
            if peer.their_ask is not None:
                self.counts["dropped_page_busy"] += 1
                return self._blame(peer, UNASKED_POINTS, "a question beside an open one", now_ms)
            peer.their_ask = frame.place
            return []
        return self._take_inventory(peer, frame, now_ms)

    def _take_push(self, peer: Peer, records: U8, hashes: U8, now_ms: int) -> list[Effect]:
        if not peer.pushed.take(len(hashes), now_ms):
            self.counts["dropped_quota"] += len(hashes)
            return self._blame(peer, FLOOD_POINTS, "more transactions than a peer may push", now_ms)
        self._queue(peer, records, hashes, now_ms, is_pushed=True)
        return []

    def _take_found(self, peer: Peer, records: U8, hashes: U8, now_ms: int) -> list[Effect]:
        if not peer.take_answer(hashes):
            if peer.wanted is not None:
                raise BadFrame("an answer with a record that was not wanted")
            self.counts["unasked"] += 1
            return self._blame(peer, UNASKED_POINTS, "an answer that nobody waits for", now_ms)
        self.counts["records_served_in"] += len(hashes)
        self._queue(peer, records, hashes, now_ms, is_pushed=False)
        return self._tick_peer(peer, now_ms)

    def _queue(self, peer: Peer, records: U8, hashes: U8, now_ms: int, *, is_pushed: bool) -> None:
        """Let what is new wait for judgement."""
        self._known.add_holder(hashes, peer.bit)
        rows = np.flatnonzero(self._known.states(hashes, now_ms) < State.QUEUED)
        self.counts["records_duplicate"] += len(hashes) - len(rows)
        room = self._limits.waiting_records - peer.waiting_count
        if is_pushed and (peer.wanted is not None or len(peer.to_want)):
            room = 0  # it comes after those that are still to be fetched: nonces follow each other
        if len(rows) > room:  # to be fetched when there is room again
            late = hashes[rows[room:]]
            self.counts["records_deferred"] += len(late)
            self._will_want(peer, late)
            rows = rows[:room]
        self._known.set_state(hashes[rows], State.QUEUED, now_ms)
        peer.queue(records[rows], hashes[rows])

    def _hear(self, peer: Peer, hashes: U8, now_ms: int) -> None:
        """Learn that a peer has these; those that are missing here will be wanted."""
        self._known.add_holder(hashes, peer.bit)
        missing = hashes[self._known.states(hashes, now_ms) == State.HEARD]
        missing = missing[~self._pool.waits(missing)]
        self._will_want(peer, missing)

    def _will_want(self, peer: Peer, hashes: U8) -> None:
        """Ask for these when there is room; those beyond the bound come by inventory."""
        lost = peer.to_want.add(hashes)
        self.counts["dropped_want_full"] += lost
        if lost:
            self._will_ask(peer)

    def _serve(self, peer: Peer, hashes: U8, now_ms: int) -> list[Effect]:
        if not peer.served.take(len(hashes), now_ms):
            self.counts["dropped_serve_quota"] += len(hashes)
            return self._blame(peer, FLOOD_POINTS, "more questions than a peer may ask", now_ms)
        _, records = self._pool.find(hashes)
        self.counts["records_served"] += len(records)
        self._known.add_holder(hashes, peer.bit)
        return [Send(peer=peer.key, kind=Kind.FOUND, data=encode_frame(Kind.FOUND, records))]

    def _take_inventory(self, peer: Peer, frame: Frame, now_ms: int) -> list[Effect]:
        place = peer.asked
        is_still = bool(frame.place) and (frame.place <= (place or 0) or not len(frame.items))
        if peer.late_asks and (place is None or is_still):  # a page of a question that is over
            peer.late_asks -= 1
            self._hear(peer, frame.items, now_ms)
            return []
        peer.asked = None
        if place is None:
            self.counts["unasked"] += 1
            return self._blame(peer, UNASKED_POINTS, "an inventory that nobody waits for", now_ms)
        if is_still:
            raise BadFrame("an inventory that does not advance")
        self.counts["hashes_listed"] += len(frame.items)
        self._hear(peer, frame.items, now_ms)
        peer.pages += 1
        if frame.place and peer.pages >= PAGES_MAX:
            raise BadFrame("an inventory of more pages than a pool fills")
        peer.next_ask = frame.place or None
        return []

    # Judgement by the pool

    def take_batch(self) -> Batch | None:
        """Return records to be judged, every peer's in turn; None if none wait."""
        peers = [self._peers[key] for key in sorted(self._peers)]
        self._turn += 1
        start = self._turn % max(1, len(peers))
        peers = [peer for peer in peers[start:] + peers[:start] if peer.waiting_count]
        peers.sort(key=lambda peer: peer.waiting_count)  # what the modest leave is shared by all
        if not peers:
            return None
        records, hashes, origins = [], [], []
        left = self._limits.batch_records
        for number, peer in enumerate(peers):
            share = -(-left // (len(peers) - number))
            rows, names = peer.take_waiting(share)
            records.append(rows)
            hashes.append(names)
            origins.append((peer.key, len(rows)))
            left -= len(rows)
        return Batch(
            records=np.concatenate(records), hashes=np.concatenate(hashes), origins=tuple(origins)
        )

    def judged(self, batch: Batch, codes: U8 | None, now_ms: int) -> list[Effect]:
        """Learn a PoolReason for each record of a batch; None: the pool could not judge it."""
        if codes is None:
            self._known.set_state(batch.hashes, State.HEARD, now_ms)
            self.counts["dropped_not_judged"] += len(batch.hashes)
            return []
        is_taken = codes <= PoolReason.DUPLICATE
        self._known.set_state(batch.hashes[is_taken], State.TAKEN, now_ms)
        self._known.set_state(batch.hashes[~is_taken], State.REFUSED, now_ms)
        is_offence = np.isin(codes, OFFENCES)
        self.counts["records_taken"] += int((codes == PoolReason.ACCEPTED).sum())
        self.counts["records_duplicate"] += int((codes == PoolReason.DUPLICATE).sum())
        self.counts["records_refused"] += int((~is_taken & ~is_offence).sum())
        self.counts["records_offending"] += int(is_offence.sum())
        effects: list[Effect] = []
        end = 0
        for key, count in batch.origins:
            part = slice(end, end + count)
            end += count
            peer = self._peers.get(key)
            if peer is None:
                continue
            refused = int((~is_taken[part]).sum())
            peer.pushed.charge(refused * self._limits.refused_weight, now_ms)
            if is_offence[part].any():
                worst = PoolReason(int(codes[part][is_offence[part]][0]))
                effects += self._ban(peer, f"a transaction with {worst.name}", now_ms)
        return effects

    # What goes to peers

    def push(self, hashes: U8, now_ms: int) -> list[Effect]:
        """Pass on transactions that the pool has taken in, to those who do not have them."""
        if not len(hashes):
            return []
        self._known.set_state(hashes, State.TAKEN, now_ms)
        effects: list[Effect] = []
        for start in range(0, len(hashes), RECORDS_MAX):
            part, records = self._pool.find(hashes[start : start + RECORDS_MAX])
            if len(part):
                effects += self._push_part(records, part)
        return effects

    def _push_part(self, records: U8, hashes: U8) -> list[Effect]:
        holders = self._known.holders(hashes)
        frames: dict[bytes, bytes] = {}
        effects: list[Effect] = []
        for key in sorted(self._peers):
            peer = self._peers[key]
            is_new = holders & np.uint32(1 << peer.bit) == 0
            if not is_new.any():
                continue
            name, chosen = is_new.tobytes(), hashes[is_new]
            self._known.add_holder(chosen, peer.bit)
            if len(peer.backlog):  # behind those that were not taken
                self.counts["pushes_deferred"] += len(chosen)
                self.counts["dropped_backlog_full"] += peer.backlog.add(chosen)
                continue
            if name not in frames:
                frames[name] = encode_frame(Kind.PUSH, records[is_new])
            self.counts["records_pushed"] += len(chosen)
            effects.append(Send(peer=key, kind=Kind.PUSH, data=frames[name], hashes=chosen))
        return effects

    def not_sent(self, send: Send, now_ms: int) -> None:
        """Learn that a frame was not taken by its connection."""
        peer = self._peers.get(send.peer)
        if peer is None:
            return
        if send.kind in (Kind.PUSH, Kind.ANNOUNCE):
            self.counts["pushes_deferred"] += len(send.hashes)
            if now_ms > peer.backlog_from_ms + BACKLOG_PAUSE_MS:
                peer.backlog_since_ms = now_ms
            self.counts["dropped_backlog_full"] += peer.backlog.add(send.hashes)
            peer.backlog_from_ms = now_ms + BACKLOG_PAUSE_MS
        elif send.kind == Kind.WANT:
            peer.wanted = None
            self._known.set_state(send.hashes, State.HEARD, now_ms)
            self.counts["dropped_want_full"] += peer.to_want.add(send.hashes)
        elif send.kind == Kind.ASK:
            peer.next_ask, peer.asked = peer.asked, None

    def tick(self, now_ms: int) -> list[Effect]:
        """Ask, answer and give up what is due; to be called every 50 ms or more often."""
        if self._inventory_from_ms is None:
            self._inventory_from_ms = now_ms + INVENTORY_EVERY_MS
        if now_ms >= self._inventory_from_ms and self._peers:
            self._inventory_from_ms = now_ms + INVENTORY_EVERY_MS
            peer = self._peers[self._random.choice(sorted(self._peers))]
            self._will_ask(peer)
        effects: list[Effect] = []
        for key in sorted(self._peers):
            effects += self._tick_peer(self._peers[key], now_ms)
        return effects + self._answer_one_ask(now_ms)

    def _tick_peer(self, peer: Peer, now_ms: int) -> list[Effect]:
        effects: list[Effect] = []
        if peer.wanted is not None and now_ms >= peer.wanted_until_ms:
            peer.late.append((peer.wanted, now_ms + LATE_MAX_MS))
            peer.wanted = None
            self.counts["unanswered"] += 1
        if peer.asked is not None and now_ms >= peer.asked_until_ms:
            peer.asked = None
            peer.late_asks = min(peer.late_asks + 1, LATE_QUESTIONS_MAX)
            self.counts["unanswered"] += 1
        if len(peer.backlog) and now_ms >= peer.backlog_from_ms:
            effects += self._work_off(peer, now_ms)
        while peer.late and now_ms >= peer.late[0][1]:
            peer.late.popleft()
        has_room = peer.waiting_count + RECORDS_MAX <= self._limits.waiting_records
        has_room = has_room and len(peer.late) < LATE_QUESTIONS_MAX
        if peer.wanted is None and has_room and len(peer.to_want):
            hashes = peer.to_want.take(RECORDS_MAX)
            hashes = hashes[self._known.states(hashes, now_ms) == State.HEARD]
            hashes = _without_twins(hashes[~self._pool.waits(hashes)])
            if len(hashes):
                self._known.set_state(hashes, State.WANTED, now_ms)
                self.counts["hashes_wanted"] += len(hashes)
                peer.wanted = hashes
                peer.wanted_until_ms = now_ms + ANSWER_MAX_MS
                data = encode_frame(Kind.WANT, hashes)
                effects.append(Send(peer=peer.key, kind=Kind.WANT, data=data, hashes=hashes))
        if peer.was_cut and peer.asked is None and peer.next_ask is None:
            peer.was_cut = False
            self._will_ask(peer)
        is_idle = peer.asked is None and peer.wanted is None and not len(peer.to_want)
        if peer.next_ask is not None and is_idle:
            peer.asked, peer.next_ask = peer.next_ask, None
            peer.asked_until_ms = now_ms + ANSWER_MAX_MS
            data = encode_frame(Kind.ASK, place=peer.asked)
            effects.append(Send(peer=peer.key, kind=Kind.ASK, data=data))
        return effects

    def _work_off(self, peer: Peer, now_ms: int) -> list[Effect]:
        """Push what could not be pushed, or announce it where that was long ago."""
        peer.backlog_from_ms = now_ms + BACKLOG_PAUSE_MS
        effects: list[Effect] = []
        for _ in range(BACKLOG_FRAMES):
            if now_ms >= peer.backlog_since_ms + PUSHED_AGAIN_MS:
                hashes = peer.backlog.take(HASHES_MAX)
                kind, data = Kind.ANNOUNCE, encode_frame(Kind.ANNOUNCE, hashes)
            else:
                hashes, records = self._pool.find(peer.backlog.take(RECORDS_MAX))
                kind, data = Kind.PUSH, encode_frame(Kind.PUSH, records) if len(records) else b""
            if data:
                effects.append(Send(peer=peer.key, kind=kind, data=data, hashes=hashes))
            if not len(peer.backlog):
                break
        return effects

    def _answer_one_ask(self, now_ms: int) -> list[Effect]:
        """Make one page of inventory, for each peer that waits in turn."""
        waiting = [key for key in sorted(self._peers) if self._peers[key].their_ask is not None]
        if not waiting or now_ms < self._page_from_ms:
            return []
        self._page_from_ms = now_ms + PAGE_EVERY_MS
        peer = self._peers[waiting[self._turn % len(waiting)]]
        self._turn += 1
        place, peer.their_ask = peer.their_ask, None
        assert place is not None
        hashes, following = self._pool.page(place, HASHES_MAX)
        data = encode_frame(Kind.INVENTORY, hashes, following)
        return [Send(peer=peer.key, kind=Kind.INVENTORY, data=data)]


def _without_twins(hashes: U8) -> U8:
    """Return (n, 32) hashes, each once, in order of first appearance."""
    first = {row.tobytes(): number for number, row in reversed(list(enumerate(hashes)))}
    return hashes[sorted(first.values())] if len(first) < len(hashes) else hashes
