"""A running consensus node: one loop that owns the replica, and the threads around it.

The loop takes events from the inbox, hands them to the core and performs what it asks for, in
order. What must wait for the disk goes through the disk's queue (`disk.py`), calls of the executor
through a thread per kind (`calls.py`), messages and payloads through the network's own threads.
Whatever fails in any of them stops the node: nobody knows what it would have done. Start here, then
`core/events.py`. Spec: spec/consensus.md#shell.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consensus.calls import Calls, Ended
from consensus.core import events as ev
from consensus.core.journal import DamagedJournal
from consensus.core.replica import Replica
from consensus.core.types import (
    Chain,
    Epoch,
    FinalizedBlock,
    Hash32,
    Height,
    PeerId,
    PublicKey,
    Validator,
    View,
)
from consensus.crypto import NodeCrypto
from consensus.disk import Disk
from consensus.inbox import Inbox
from consensus.meter import Meter
from consensus.metrics import NodeMetrics
from consensus.network.addresses import PeerAddresses
from consensus.ports import Network, PayloadTransfer
from consensus.recovery import Disks, open_disks
from consensus.store import StoreError
from consensus.waiting import Clock
from engine_api.protocol import Deadline, ExecutionEngine
from engine_api.types import EngineApiError
from runtime.keypair import KeyPair
from runtime.logs import Logger

WALL_CHECK_MS = 500
"""between two looks at the difference of the clocks"""
WALL_STEP_MS = 5
"""a smaller difference is rounding"""
WAIT_MAX_MS = 500
"""the loop looks around at least so often: at deadlines of calls, at the wall clock, at `stop`"""
READ_BODY_MS = 10_000
"""a payload is read from the executor in this time, or not at all"""
ALARM_REPEAT_MS = 10_000
"""the same alarm is written again after this"""
ALARMS_KEPT_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where the replica stands, for other threads: made by the loop after an event."""

    epoch: Epoch
    view: View
    final_height: Height
    final_hash: Hash32
    validators: tuple[Validator, ...]
    next_validators: tuple[Validator, ...]
    is_observer: bool
    is_halted: bool
    held: Mapping[str, int]


class Node:
    """One validator, or a follower when it has no key; made, run once, and thrown away."""

    def __init__(
        self,
        *,
        chain: Chain,
        pair: KeyPair | None,
        fee_recipient: PublicKey,
        folder: Path,
        engine: ExecutionEngine,
        inbox: Inbox,
        network: Network,
        payloads: PayloadTransfer,
        addresses: Mapping[bytes, PeerAddresses],
        clock: Clock,
        log: Logger,
    ) -> None:
        """Open journal and store in `folder`; nothing runs yet.

        `inbox`: where network and payloads put what comes. `addresses`: where other nodes are, by
        key. Raises StoreError, OSError, PathUnavailable, VerdictDiffers.
        """
        self.chain, self.key = chain, None if pair is None else PublicKey(pair.public_key)
        self._engine, self._network, self._payloads = engine, network, payloads
        self._inbox, self._clock, self._log = inbox, clock, log
        self._addresses = {key: at for key, at in addresses.items() if key != self.key}
        self.metrics = NodeMetrics(chain.genesis_hash, self.key or b"")
        self.meter = Meter(self.metrics)
        self.failure = ""
        self._is_stopping = threading.Event()
        self._alarms: dict[tuple[int, str], int] = {}
        self._is_damage_told = False
        self._wake_ms: int | None = None
        self._wall_offset_ms = clock.wall_ms() - clock.now_ms()
        self._wall_at_ms = clock.now_ms()
        self._disks = open_disks(
            folder,
            genesis_hash=chain.genesis_hash,
            has_key=pair is not None,
            wall_ms=clock.wall_ms(),
        )
        self.store = self._disks.store
        self._replica = self._make_replica(NodeCrypto(pair), fee_recipient)
        for notice in self._disks.notices:
            log.warning("disk", notice=notice)
        self.durable: FinalizedBlock | None = self.store.top()
        """the highest block that is final and durable here"""
        self.disk = self._make_disk()
        self.calls = self._make_calls()
        self._members: tuple[Any, ...] = ()
        self._performers = self._make_performers()
        self.standing = self._make_standing()

    def _make_disk(self) -> Disk:
        return Disk(
            journal=self._disks.journal,
            store=self.store,
            perform=self._perform,
            on_durable=self._on_durable,
            on_loaded=self._inbox.put,
            on_failure=self._fail,
        )

    def _make_calls(self) -> Calls:
        return Calls(
            engine=self._engine,
            key=self.key,
            hold=self._payloads.hold,
            get=self._payloads.get,
            on_event=self._inbox.put,
            on_ended=self._on_ended,
            on_failure=self._fail,
        )

    def _make_performers(self) -> dict[type, Callable[[Any], None]]:
        """Say who performs which effect."""
        network, payloads = self._network, self._payloads
        return {
            ev.Persist: self.disk.put,
            ev.LoadFinalized: self.disk.put,
            ev.Send: lambda effect: network.send(effect.peer, effect.message),
            ev.Broadcast: lambda effect: network.broadcast(effect.message),
            ev.PushPayload: payloads.push,
            ev.Call: self.calls.make,
            ev.AnswerFromStore: self._answer_from_store,
            ev.WakeAt: self._wake_at,
            ev.FetchPayload: payloads.fetch,
            ev.DropPayload: lambda effect: payloads.drop(effect.payload_commitment),
            ev.Penalize: self._penalize,
            ev.Alarm: self._alarm,
        }

    def _make_replica(self, crypto: NodeCrypto, fee_recipient: PublicKey) -> Replica:
        """Make the core of what survived; a journal that makes no sense begins anew (W3)."""
        try:
            return self._replica_of(self._disks, crypto, fee_recipient)
        except DamagedJournal as error:
            self._disks.become_observer(str(error), self._clock.wall_ms())
            return self._replica_of(self._disks, crypto, fee_recipient)

    def _replica_of(self, disks: Disks, crypto: NodeCrypto, fee_recipient: PublicKey) -> Replica:
        return Replica(
            chain=self.chain,
            crypto=crypto,
            key=self.key,
            fee_recipient=fee_recipient,
            boot=disks.boot(),
            now_ms=self._clock.now_ms(),
            wall_offset_ms=self._wall_offset_ms,
            other_peers=tuple(PeerId(key) for key in sorted(self._addresses)),
        )

    # --- life -----------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run until `stop` or a failure; return whether all went well."""
        try:
            self._follow_members()
            self.disk.start()
            self.calls.start()
            self._payloads.start()
            self._network.start()
            self._log.info(
                "running",
                height=self._replica.final_height,
                epoch=self._replica.epoch,
                view=self._replica.view,
                key=self.key or b"",
                role=self.role,
            )
            self._handle(ev.Started())
            while not self._is_stopping.is_set():
                self._turn()
        except BaseException as error:
            self._fail("loop", error)
        self._end()
        return not self.failure

    def stop(self) -> None:
        """Let `run` return soon; from any thread or signal handler."""
        self._is_stopping.set()

    def _end(self) -> None:
        """Stop everything: what is queued for the disk is written, and leaves."""
        self.disk.stop()
        self._network.stop()
        self._payloads.stop()
        self.calls.stop()
        self._disks.close()

    def _fail(self, where: str, error: BaseException) -> None:
        """Stop the node because a part of it failed; called in that part's thread."""
        if not self.failure:
            self.failure = f"{where}: {type(error).__name__}: {error}"
        self._log.error("a part of the node failed", part=where, exc_info=error)
        self._is_stopping.set()
        self._inbox.wake()

    # --- the loop -------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Handle what is due, or the next event."""
        now_ms = self._clock.now_ms()
        wait_ms = self.calls.expire()
        wait_ms = WAIT_MAX_MS if wait_ms is None else min(wait_ms, WAIT_MAX_MS)
        if now_ms - self._wall_at_ms >= WALL_CHECK_MS:
            self._look_at_wall_clock(now_ms)
        if self._wake_ms is not None:
            if self._wake_ms <= now_ms:
                self._wake_ms = None
                self._handle(ev.Woke())
                return
            wait_ms = min(wait_ms, self._wake_ms - now_ms)
        event = self._inbox.take(wait_ms)
        if event is not None:
            self._handle(event)

    def _handle(self, event: ev.Event) -> None:
        """Give one event to the core and perform what it asks for."""
        now_ms = self._clock.now_ms()
        self.meter.look_at_event(event, now_ms)
        effects = self._replica.handle(event, now_ms)
        if not effects:
            return
        self.meter.look_at_effects(effects, now_ms)
        self._follow_members()
        self.standing = self._make_standing()
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: ev.Effect) -> None:
        """Perform one effect; those of `then` come in the disk's thread."""
        self._performers[type(effect)](effect)

    def _look_at_wall_clock(self, now_ms: int) -> None:
        """Tell the core when the difference of the two clocks has moved."""
        self._wall_at_ms = now_ms
        offset_ms = self._clock.wall_ms() - self._clock.now_ms()
        if abs(offset_ms - self._wall_offset_ms) >= WALL_STEP_MS:
            if abs(offset_ms - self._wall_offset_ms) >= WALL_CHECK_MS:
                moved_ms = offset_ms - self._wall_offset_ms
                self._log.warning("the wall clock was set", moved_ms=moved_ms)
            self._wall_offset_ms = offset_ms
            self._handle(ev.WallClock(offset_ms=offset_ms))

    def _follow_members(self) -> None:
        """Tell the network who votes in this epoch and the next, when that has changed."""
        replica = self._replica
        sets = (replica.epoch, replica.validators, replica.next_validators)
        if sets == self._members:
            return
        self._members = sets
        both = {one.public_key for one in (*replica.validators, *replica.next_validators)}
        members = frozenset(both - {self.key})
        self._network.set_peers(members, self._addresses)
        self._payloads.set_peers(members, self._addresses)

    def _make_standing(self) -> Standing:
        replica = self._replica
        return Standing(
            epoch=replica.epoch,
            view=replica.view,
            final_height=replica.final_height,
            final_hash=replica.final_hash,
            validators=replica.validators,
            next_validators=replica.next_validators,
            is_observer=replica.is_observer,
            is_halted=replica.is_halted,
            held=replica.held(),
        )

    # --- effects --------------------------------------------------------------------------------

    def _answer_from_store(self, effect: ev.AnswerFromStore) -> None:
        """Answer a peer; what the disk has spoiled of old blocks is its loss alone, and told once.

        What this node needs itself comes by LoadFinalized, where damage stops it.
        """
        try:
            answer = self.store.answer(effect.request)
        except StoreError as error:
            if not self._is_damage_told:
                self._is_damage_told = True
                self._log.error("a peer is not answered", peer=effect.peer, why=str(error))
            return
        if answer is not None:
            self._network.send(effect.peer, answer)

    def _wake_at(self, effect: ev.WakeAt) -> None:
        self._wake_ms = effect.at_ms

    def _penalize(self, effect: ev.Penalize) -> None:
        self._log.warning("a peer is banned", peer=effect.peer, reason=effect.reason)
        self.metrics.add_penalty()
        self._network.penalize(effect.peer, effect.reason)
        self._payloads.penalize(effect.peer, effect.reason)

    def _alarm(self, effect: ev.Alarm) -> None:
        """Say it loudly, and the same again only after a while."""
        self.metrics.add_alarm(effect.code.name)
        now_ms, name = self._clock.now_ms(), (int(effect.code), effect.detail)
        last_ms = self._alarms.get(name)
        if last_ms is not None and now_ms - last_ms < ALARM_REPEAT_MS:
            return
        self._alarms.pop(name, None)
        self._alarms[name] = now_ms
        if len(self._alarms) > ALARMS_KEPT_MAX:
            del self._alarms[next(iter(self._alarms))]
        self._log.error("alarm", code=effect.code.name, detail=effect.detail)

    # --- what other threads tell ----------------------------------------------------------------

    def _on_durable(self, group: Sequence[ev.Persist], took_ms: int) -> None:
        """Log what has become final; in the disk's thread."""
        now_ms = self._clock.now_ms()
        for found in self.meter.durable(group, took_ms, now_ms, self.is_member):
            block, header = found.block, found.block.header
            self.durable = block
            self.metrics.add_final(header.transaction_count)
            self._log.info(
                "final",
                height=header.height,
                hash=block.block_hash,
                epoch=header.epoch,
                view=block.certificate.view if block.certificate is not None else None,
                transactions=header.transaction_count,
                bytes=header.payload_bytes,
                own=header.proposer == self.key,
                finality_ms=found.finality_ms,
                state_hash=header.state_hash,
            )
        for persist in group:
            for item in persist.evidence:
                self._log.error(
                    "evidence",
                    epoch=item.first.epoch,
                    view=item.first.view,
                    signer=item.first.signer,
                    kinds=f"{item.first.kind.name} {item.second.kind.name}",
                )

    def _on_ended(self, ended: Ended) -> None:
        self.metrics.add_call(ended.kind, ended.outcome)
        if ended.outcome == "answered":
            self.meter.add_time(ended.kind, ended.took_ms)
            count = self.meter.take_failures(ended.kind)
            if count:
                self._log.info("a call is answered again", call=ended.kind, failures=count)
            return
        count = self.meter.add_failure(ended.kind)
        if count & (count - 1) == 0:  # 1, 2, 4, 8: the same call may fail for hours
            self._log.warning(
                "a call failed",
                call=ended.kind,
                error=ended.outcome,
                why=ended.why,
                failures=count,
            )

    # --- what others ask ------------------------------------------------------------------------

    @property
    def is_member(self) -> bool:
        """Whether this node's key is in the current epoch's set."""
        return any(one.public_key == self.key for one in self.standing.validators)

    @property
    def role(self) -> str:
        """`follower` (no key), `observer` (must not vote), or `validator`."""
        if self.key is None:
            return "follower"
        return "observer" if self.standing.is_observer else "validator"


def stored_payload(
    engine: ExecutionEngine, block_hash: Hash32, payload_commitment: Hash32
) -> bytes | None:
    """Return a payload that the own executor has on disk; None: it has not, or cannot say.

    The commitment is compared by whoever serves the chunks.
    """
    try:
        for body in engine.bodies_by_hash([block_hash], Deadline.after_ms(READ_BODY_MS)):
            if body.is_found:
                return bytes(body.payload)
    except EngineApiError:
        return None  # asked again by the next peer that wants it
    return None
