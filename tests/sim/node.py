"""The shell of one simulated node: it performs a replica's effects on disk, executor and network.

It keeps the promises of consensus/core/events.py and no more: one queue of `Persist`, `then` after
the sync, an answer or a failure to every call, pushed payloads held in a bounded cache.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from consensus.core import journal
from consensus.core.epochs import EPOCHS_HELD_MAX
from consensus.core.events import (
    Alarm,
    Answered,
    AnswerFromStore,
    Boot,
    Broadcast,
    Call,
    CallError,
    CallFailed,
    DropPayload,
    Event,
    FetchPayload,
    ForkchoiceUpdated,
    GetPayload,
    Loaded,
    LoadFinalized,
    NewPayload,
    PayloadArrived,
    PayloadBuilt,
    PayloadFailed,
    Penalize,
    Persist,
    PushPayload,
    Received,
    Send,
    Started,
    WakeAt,
    WallClock,
    Woke,
)
from consensus.core.replica import Replica
from consensus.core.types import BootId, Message, PublicKey
from tests.sim import events as sim
from tests.sim.disk import File, frame, records
from tests.sim.executor import Executor
from tests.sim.keys import Signer
from tests.sim.scenario import Fault
from tests.sim.store import Store

if TYPE_CHECKING:
    from tests.sim.world import World

PUSHED_MAX = 64
"""payloads that were pushed before anybody asked for them; the oldest goes first"""
FETCH_FIRST_MS = 20
FETCH_AGAIN_MS = 50
SYNC_MAX_MS = 4


class Node:
    """One machine: disk, executor and, while it is up, a replica."""

    def __init__(self, world: "World", host: int, index: int) -> None:
        """Make a machine with an empty journal (`init`); `start` lets it run."""
        self.world = world
        self.host = host
        self.index = index
        self.name = f"node {index}" if not world.hosts_of[index] else f"node {index} twin"
        self.key = PublicKey(world.keyring.public_keys[index])
        self.signer = Signer(world.keyring, self.key)
        self.is_up = False
        self.boot = 0
        self.replica: Replica | None = None
        self.base_ms = 0
        self.skew_ms = world.rng.randint(-50, 50)
        self.skew_max_ms = self.skew_ms
        """how far its wall clock was ahead at most"""
        self.journal = File()
        self.journal.replace(b"".join(frame(r) for r in journal.empty_journal()))
        self.store = Store()
        self._transforms = world.mutant.transforms
        self.executor = Executor(world.schedule, self.key)
        self.executor.forgets_to_sync = world.mutant.forgets_payloads
        self.hung_until_ms = 0
        self.error_permille = 0
        self.execute_permille = world.scenario.execute_permille[index]
        self.held: dict[bytes, bytes] = {}
        self.pushed: dict[bytes, bytes] = {}
        self.fetching: dict[bytes, list[int]] = {}
        self.calls: dict[int, Call] = {}
        self.queue: deque[Persist] = deque()
        self.syncing = 0
        """how many of the queue's first are being synced"""
        self.wake_ms = -1
        self.peers: tuple[int, ...] = ()
        self.peers_epoch = -1
        self._performers: dict[type, Callable[[Any], None]] = {
            Persist: self._persist,
            Send: self._send,
            Broadcast: self._broadcast,
            PushPayload: self._push,
            Call: self._call,
            AnswerFromStore: self._answer_from_store,
            WakeAt: self._wake_at,
            FetchPayload: self._fetch,
            DropPayload: self._drop,
            LoadFinalized: self._load,
            Penalize: self._penalize,
            Alarm: self._alarm,
        }

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot from what the disk holds."""
        assert not self.is_up, "a machine starts once"
        self.is_up = True
        self.boot += 1
        found = records(self.journal.content())
        self.journal.replace(b"".join(frame(record) for record in found))  # without a torn tail
        world = self.world
        self.base_ms = world.rng.randrange(1_000_000)
        boot = Boot(
            journal=tuple(found),
            finalized=self.store.top(),
            boundaries=self.store.last_boundaries(EPOCHS_HELD_MAX),
        )
        self.replica = Replica(
            chain=world.chain,
            crypto=self.signer,
            key=self.key,
            fee_recipient=self.key,
            boot=world.mutant.boot(boot),
            now_ms=world.now_ms + self.base_ms,
            wall_offset_ms=self._wall_offset_ms(),
            rules=world.mutant.rules,
            journal_cut_bytes=world.scenario.journal_cut_bytes,
        )
        world.checks.started(self)
        self.handle(Started())

    def crash(self) -> None:
        """End the process: memory goes, written bytes stay with the system."""
        self.is_up = False
        self.replica = None
        self.queue.clear()
        self.syncing = 0
        self.held.clear()
        self.pushed.clear()
        self.fetching.clear()
        self.calls.clear()
        self.wake_ms = -1
        self.peers_epoch = -1

    def cut_power(self) -> None:
        """End everything on the machine; of what was being synced a random part is durable."""
        rng = self.world.rng
        for persist in list(self.queue)[: self.syncing]:
            if rng.randrange(2):
                break
            self._store(persist)
            if persist.cut is not None:
                self.journal.replace(b"".join(frame(r) for r in persist.cut))
        self.journal.cut_power(rng)
        self.crash()
        self.executor.restart()
        self.hung_until_ms = 0

    def deliver(self, parcel: tuple[int, Message]) -> None:
        """Take a message off the network."""
        sender, message = parcel
        self.world.checks.delivering(self, message)
        self.handle(Received(peer=self.world.peer_ids[sender], message=message))

    def fault(self, fault: Fault, is_end: bool) -> None:
        """Begin or end a fault that leaves the process running."""
        if fault.kind == "slow":
            usual = self.world.scenario.execute_permille[self.index]
            self.execute_permille = usual if is_end else fault.value
        elif fault.kind == "wrong":
            self.executor.is_wrong = True
        elif fault.kind == "errors":
            self.error_permille = 0 if is_end else fault.value
        elif fault.kind == "clock":
            self.skew_ms += -fault.value if is_end else fault.value
            self.skew_max_ms = max(self.skew_max_ms, self.skew_ms)
            if self.is_up:
                self.handle(WallClock(offset_ms=self._wall_offset_ms()))
        elif not is_end:
            if fault.kind == "hang":
                self.hung_until_ms = self.world.now_ms + fault.for_ms
            else:
                assert fault.kind == "restart", fault
                self.restart_executor()

    def _wall_offset_ms(self) -> int:
        return self.world.genesis_time_ms + self.skew_ms - self.base_ms

    def lose_journal(self) -> None:
        """Find the journal gone: begin again as an observer (W3)."""
        wall_ms = self.world.genesis_time_ms + self.world.now_ms + self.skew_ms
        self.journal.replace(b"".join(frame(r) for r in journal.observer_journal(wall_ms)))

    def restart_executor(self) -> None:
        """Let the executor begin anew; open calls fail."""
        self.executor.restart()
        for call_id in list(self.calls):
            self.world.push(1, sim.FAILED, self.host, self.boot, (call_id, CallError.UNAVAILABLE))

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Give one event to the replica and perform what it asks for."""
        replica = self.replica
        assert replica is not None, "only a running node handles events"
        world = self.world
        effects = replica.handle(event, world.now_ms + self.base_ms)
        if self._transforms:
            effects = world.mutant.effects(effects)
        if world.log is not None:
            world.log_effects(self, effects)
        performers = self._performers
        for effect in effects:
            performers[type(effect)](effect)

    def wake(self, at_ms: int) -> None:
        """Deliver `Woke` unless a later effect has replaced the time."""
        if at_ms == self.wake_ms:
            self.wake_ms = -1
            self.handle(Woke())

    def payload(self, commitment: bytes, payload: bytes) -> None:
        """Take bytes from a peer: held when they are wanted, cached when not."""
        if commitment in self.held:
            return
        if commitment in self.fetching:
            del self.fetching[commitment]
            self.held[commitment] = payload
            self.handle(PayloadArrived(payload_commitment=self.world.hash32(commitment)))
        else:
            if len(self.pushed) >= PUSHED_MAX:
                del self.pushed[next(iter(self.pushed))]
            self.pushed[commitment] = payload

    def fetch_again(self, effect: FetchPayload, attempt: int) -> None:
        """Ask the next peer for a payload, or give up."""
        commitment = effect.payload_commitment
        order = self.fetching.get(commitment)
        if order is None:
            return
        if attempt >= len(order):
            del self.fetching[commitment]
            self.handle(PayloadFailed(payload_commitment=commitment))
            return
        self.world.request_payload(self, order[attempt], effect.block_hash, commitment)
        self.world.push(FETCH_AGAIN_MS, sim.FETCH, self.host, self.boot, (effect, attempt + 1))

    def synced(self) -> None:
        """Complete the sync under way: make durable, then let `then` leave, in order."""
        done = [self.queue.popleft() for _ in range(self.syncing)]
        self.syncing = 0
        self.journal.sync()
        for persist in done:
            self._store(persist)
            if persist.cut is not None:
                self.journal.replace(b"".join(frame(r) for r in persist.cut))
        boot = self.boot
        for persist in done:
            self._then(persist)
            assert self.boot == boot, "effects do not crash a node"
        self._sync_next()

    def answered(self, call_id: int, boots: int, payload: bytes | None) -> None:
        """Finish a call in the executor, if that is still the process that began it."""
        call = self.calls.get(call_id)
        if call is None or boots != self.executor.boots:
            return
        if self.hung_until_ms > self.world.now_ms:
            wait_ms = self.hung_until_ms - self.world.now_ms
            self.world.push(wait_ms, sim.ANSWER, self.host, self.boot, (call_id, boots, payload))
            return
        request = call.request
        if self.error_permille and self.world.rng.randrange(1000) < self.error_permille:
            errors = (CallError.INTERNAL, CallError.RESOURCE_EXHAUSTED, CallError.UNAVAILABLE)
            self.failed(call_id, self.world.rng.choice(errors))
            return
        if isinstance(request, GetPayload):
            answer, made = self.executor.build(request, payload or b"")
            if isinstance(answer, PayloadBuilt):
                self.held[answer.payload_commitment] = made
        else:
            found = self.executor.answer(request, payload)
            if isinstance(found, CallError):
                self.failed(call_id, found)
                return
            answer = found
            if isinstance(request, NewPayload):
                self.world.checks.judged(self, request, answer)
        del self.calls[call_id]
        boot_id = BootId(self.executor.boot_id)
        self.handle(Answered(call_id=call_id, boot_id=boot_id, answer=answer))

    def failed(self, call_id: int, error: CallError) -> None:
        """End a call without an answer."""
        if self.calls.pop(call_id, None) is not None:
            self.handle(CallFailed(call_id=call_id, error=error))

    def bytes_of(self, block_hash: bytes, commitment: bytes) -> bytes | None:
        """Return a payload that this node can serve."""
        found = self.held.get(commitment)
        if found is None:
            found = self.pushed.get(commitment)
        return self.executor.bytes_of(block_hash) if found is None else found

    # --- effects ------------------------------------------------------------------------------

    def _persist(self, effect: Persist) -> None:
        self.queue.append(effect)
        if not self.syncing:
            self._sync_next()

    def _sync_next(self) -> None:
        """Begin the next sync: appends together, a cut or a store transaction by itself."""
        queue = self.queue
        while queue and not self.syncing and _is_empty(queue[0]):
            self._then(queue.popleft())
        if not queue or self.syncing:
            return
        count = 0
        for persist in queue:
            if _is_whole(persist) and count:
                break
            for record in persist.append:
                self.journal.append(frame(record))
            count += 1
            if _is_whole(persist):
                break
        self.syncing = count
        delay_ms = self.world.rng.randint(1, SYNC_MAX_MS)
        self.world.push(delay_ms, sim.SYNCED, self.host, self.boot, None)

    def _then(self, persist: Persist) -> None:
        performers = self._performers
        for effect in persist.then:
            performers[type(effect)](effect)

    def _store(self, persist: Persist) -> None:
        self.store.put(persist)
        for block in persist.finalized:
            self.world.checks.finalized(self, block)
        for item in persist.evidence:
            self.world.checks.evidence.stored(self, item)

    def _send(self, effect: Send) -> None:
        self.world.sent(self, effect.message, 1)
        self.world.transmit(self.host, self.world.index_of.get(effect.peer, -1), effect.message)

    def _broadcast(self, effect: Broadcast) -> None:
        peers = self._peers()
        message = effect.message
        self.world.sent(self, message, len(peers))
        transmit, host = self.world.transmit, self.host
        for peer in peers:
            transmit(host, peer, message)

    def _peers(self) -> tuple[int, ...]:
        """Return the validators of this epoch and the next one, except oneself."""
        replica = self.replica
        assert replica is not None
        epoch = replica.epoch
        if epoch != self.peers_epoch:
            powers = self.world.scenario.powers
            both = {**powers(epoch), **powers(epoch + 1)}
            self.peers = tuple(sorted(peer for peer in both if peer != self.index))
            self.peers_epoch = epoch
        return self.peers

    def _push(self, effect: PushPayload) -> None:
        payload = self.bytes_of(effect.block_hash, effect.payload_commitment)
        if payload is None:
            return
        for peer in self._peers():
            self.world.transfer(self.host, peer, effect.payload_commitment, payload)

    def _call(self, effect: Call) -> None:
        world, request = self.world, effect.request
        self.calls[effect.call_id] = effect
        late = (effect.call_id, CallError.DEADLINE_EXCEEDED)
        world.push(effect.timeout_ms, sim.FAILED, self.host, self.boot, late)
        if isinstance(request, GetPayload):
            wait_ms, payload = world.work(request.wait_ms, request.payload_bytes_max)
            world.push(wait_ms, sim.RUN, self.host, self.boot, (effect.call_id, payload))
        elif isinstance(request, NewPayload):
            self.run(effect.call_id, self.held.get(request.header.payload_commitment))
        else:
            if isinstance(request, ForkchoiceUpdated):
                world.checks.forkchoice(self, request)
            self.run(effect.call_id, None)

    def run(self, call_id: int, payload: bytes | None) -> None:
        """Queue a call behind what the executor's one writer is doing."""
        call = self.calls.get(call_id)
        if call is None:
            return
        request, executor, now_ms = call.request, self.executor, self.world.now_ms
        cost_ms = 1
        if isinstance(request, GetPayload | NewPayload) and not executor.is_own_build(request):
            cost_ms += self.world.execution_ms(self.execute_permille, len(payload or b""))
        executor.busy_until_ms = max(executor.busy_until_ms, now_ms) + cost_ms
        self.world.push(
            executor.busy_until_ms - now_ms, sim.ANSWER, self.host, self.boot,
            (call_id, executor.boots, payload),
        )  # fmt: skip

    def _answer_from_store(self, effect: AnswerFromStore) -> None:
        answer = self.store.answer(effect.request)
        if answer is not None:
            self._send(Send(peer=effect.peer, message=answer))

    def _wake_at(self, effect: WakeAt) -> None:
        at_ms = max(effect.at_ms - self.base_ms, self.world.now_ms)
        if at_ms != self.wake_ms:
            self.wake_ms = at_ms
            self.world.push(at_ms - self.world.now_ms, sim.WAKE, self.host, self.boot, at_ms)

    def _fetch(self, effect: FetchPayload) -> None:
        commitment = effect.payload_commitment
        index_of = self.world.index_of
        named = [index_of[peer] for peer in effect.peers if peer in index_of]
        if commitment in self.fetching:
            self.fetching[commitment] += [p for p in named if p not in self.fetching[commitment]]
            return
        others = [peer for peer in self._peers() if peer not in named]
        self.fetching[commitment] = [peer for peer in named if peer != self.index] + others
        found = self.held.pop(commitment, None)
        if found is None:
            found = self.pushed.pop(commitment, None)
        if found is not None:
            self.world.push(0, sim.PAYLOAD, self.host, self.boot, (commitment, found))
        self.world.push(FETCH_FIRST_MS, sim.FETCH, self.host, self.boot, (effect, 0))

    def _drop(self, effect: DropPayload) -> None:
        self.fetching.pop(effect.payload_commitment, None)
        self.held.pop(effect.payload_commitment, None)
        self.pushed.pop(effect.payload_commitment, None)

    def _load(self, effect: LoadFinalized) -> None:
        loaded = Loaded(blocks=self.store.load(effect.first, effect.count))
        self.world.push(1, sim.LOADED, self.host, self.boot, loaded)

    def _penalize(self, effect: Penalize) -> None:
        self.world.checks.penalized(self, effect)

    def _alarm(self, effect: Alarm) -> None:
        self.world.checks.alarm(self, effect)


def _is_whole(persist: Persist) -> bool:
    return bool(persist.finalized or persist.boundary or persist.evidence) or (
        persist.cut is not None
    )


def _is_empty(persist: Persist) -> bool:
    return not persist.append and not _is_whole(persist)
