"""One simulated world: a heap of what is to happen, and everything that it happens to.

`World(scenario).run()` is deterministic: the same scenario gives the same trace hash in every
process. A broken invariant is raised as `Violation` from the event that broke it.
"""

import ast
import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from consensus.core.codec import encode_message
from consensus.core.events import Effect, WakeAt
from consensus.core.types import Chain, Hash32, Message, Parameters, PeerId, Validator, Vote
from tests.sim import events as sim
from tests.sim.byzantine import Adversary
from tests.sim.executor import Schedule
from tests.sim.invariants import Checks
from tests.sim.keys import Keyring, RealKeyring, digest
from tests.sim.ledger import ACCOUNTS, OPENING, TRANSFER_BYTES
from tests.sim.mutants import Mutant, make
from tests.sim.node import Node
from tests.sim.scenario import (
    BLOCK_INTERVAL_MS,
    DRIFT_MS,
    PAYLOAD_BYTES_MAX,
    RETRANSMIT_MS,
    UNFINALIZED_MAX,
    Fault,
    Links,
    Scenario,
)

assert BLOCK_INTERVAL_MS > 0
CHAIN_ID = 7
GENESIS_TIME_MS = 1_700_000_000_000
EVENTS_MAX = 200_000_000
"""of one run: more is a loop"""
TRACE_FLUSH = 4096
_BYTES = re.compile(r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\"")

_PERFORM: dict[int, Callable[..., None]] = {
    sim.ANSWER: Node.answered,
    sim.RUN: Node.run,
    sim.FAILED: Node.failed,
    sim.PAYLOAD: Node.payload,
    sim.FETCH: Node.fetch_again,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to."""

    seed: int
    trace: str
    events: int
    simulated_ms: int
    height: int
    """the lowest that an honest live node has finalized"""
    views: int
    messages: int
    """sent by honest nodes"""
    message_bytes: int
    """of those messages, payloads aside; 0 unless the scenario counts them"""


class World:
    """All nodes, links and the adversary of one scenario."""

    def __init__(
        self,
        scenario: Scenario,
        mutant: str | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        """Build everything; nothing has happened yet."""
        self.scenario = scenario
        self.mutant: Mutant = make(mutant)
        self.log = log
        self.rng = random.Random(f"world {scenario.seed}")
        self.now_ms = 0
        self.genesis_time_ms = GENESIS_TIME_MS
        self.event_count = 0
        self.is_done = False
        """nothing more can be learned: `liveness` says when"""
        self.message_count = 0
        self.byte_count = 0
        self._heap: list[tuple[int, int, int, int, int, Any]] = []
        self._sequence = 0
        keyring = RealKeyring if scenario.is_crypto_real else Keyring
        self.keyring: Keyring = keyring(scenario.seed, scenario.nodes)
        self.peer_ids = [PeerId(key) for key in self.keyring.public_keys]
        self.index_of = {peer: index for index, peer in enumerate(self.peer_ids)}
        self.chain = self._chain()
        self.schedule = Schedule(
            self.chain.genesis_hash, self.chain.params_hash, self._sets(), UNFINALIZED_MAX
        )
        self.byzantine = frozenset(scenario.byzantine)
        self.checks = Checks(self)
        self.nodes: list[Node] = []
        self.hosts_of: list[tuple[int, ...]] = []
        self._make_nodes()
        self.honest = tuple(node for node in self.nodes if node.index not in self.byzantine)
        self.lame = frozenset(
            node for fault in scenario.faults if fault.is_for_ever for node in fault.nodes
        )
        self.live = tuple(node for node in self.honest if node.index not in self.lame)
        self.adversary = Adversary(self)
        self.links: Links = scenario.links
        self.is_healed = False
        self.stopped: dict[int, int] = {}
        """host -> how many faults hold it down"""
        self._partitions: list[frozenset[int]] = []
        self._muted: list[int] = []
        """kinds of votes that nobody hears"""
        self._trace = hashlib.blake2b(digest_size=16)
        self._pending: list[int] = []

    def hash32(self, value: bytes) -> Hash32:
        """Name bytes as a hash."""
        return Hash32(value)

    # --- building -----------------------------------------------------------------------------

    def _sets(self) -> tuple[tuple[Validator, ...], ...]:
        keys = self.keyring.public_keys
        return tuple(
            tuple(
                sorted(
                    (Validator(public_key=keys[node], power=power) for node, power in row),
                    key=lambda validator: validator.public_key,
                )
            )
            for row in self.scenario.sets
        )

    def _chain(self) -> Chain:
        scenario, sets = self.scenario, self._sets()
        parameters = Parameters(
            heights_per_epoch=scenario.heights_per_epoch,
            delta_ms=scenario.delta_ms,
            execute_max_ms=scenario.execute_max_ms,
            transfer_max_ms=scenario.transfer_max_ms,
            block_interval_ms=scenario.block_interval_ms,
            idle_interval_ms=scenario.idle_interval_ms,
            retransmit_interval_ms=RETRANSMIT_MS,
            unfinalized_max=UNFINALIZED_MAX,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
            transactions_max=PAYLOAD_BYTES_MAX // TRANSFER_BYTES,
            objects_max=ACCOUNTS,
            drift_ms=DRIFT_MS,
            evidence_window_epochs=2,
        )
        return Chain(
            chain_id=CHAIN_ID,
            genesis_hash=Hash32(digest("toy genesis", scenario.seed.to_bytes(8, "little"))),
            params_hash=Hash32(digest("toy parameters", repr(parameters).encode())),
            timestamp_ms=GENESIS_TIME_MS,
            parameters=parameters,
            validators=(sets[0], sets[min(1, len(sets) - 1)]),
        )

    def _make_nodes(self) -> None:
        strategy = dict(zip(self.scenario.byzantine, self.scenario.strategies, strict=True))
        for index in range(self.scenario.nodes):
            self.hosts_of.append(())
            if index not in self.byzantine:
                self._make_node(index)
        for index in self.scenario.byzantine:
            if strategy[index] == "twins":
                self._make_node(index)
                self._make_node(index)

    def _make_node(self, index: int) -> None:
        host = len(self.nodes)
        self.nodes.append(Node(self, host, index))
        self.hosts_of[index] = (*self.hosts_of[index], host)

    # --- running ------------------------------------------------------------------------------

    def push(self, delay_ms: int, kind: int, host: int, boot: int, data: Any) -> None:
        """Let something happen `delay_ms` from now; `boot`: only to that life of the host."""
        self._sequence += 1
        heappush(self._heap, (self.now_ms + delay_ms, self._sequence, kind, host, boot, data))

    def run(self) -> Outcome:
        """Run to the end of the scenario; raises Violation at the first broken invariant."""
        with self.mutant.planted():
            self._begin()
            self._loop()
        self._flush()
        return self._outcome()

    def _loop(self) -> None:
        heap, end_ms = self._heap, self.scenario.end_ms
        while heap and not self.is_done:
            at_ms, _, kind, host, boot, data = heappop(heap)
            if at_ms > end_ms:
                break
            self.now_ms = at_ms
            self.event_count += 1
            self._note(kind, host, data)
            self._happen(kind, host, boot, data)
            assert self.event_count < EVENTS_MAX, "a run has a bounded number of events"
        self.checks.ended()

    def _outcome(self) -> Outcome:
        checks = self.checks
        return Outcome(
            seed=self.scenario.seed,
            trace=self._trace.hexdigest(),
            events=self.event_count,
            simulated_ms=self.now_ms,
            height=min((checks.height_of[node.host] for node in self.live), default=0),
            views=checks.liveness.views,
            messages=self.message_count,
            message_bytes=self.byte_count,
        )

    def _begin(self) -> None:
        for fault in self.scenario.faults:
            self.push(fault.at_ms, sim.FAULT, 0, 0, (fault, False))
            if not fault.is_for_ever:
                self.push(fault.at_ms + fault.for_ms, sim.FAULT, 0, 0, (fault, True))
        self.push(self.scenario.heal_ms, sim.FAULT, 0, 0, None)
        self.adversary.begin()
        for node in self.nodes:
            if not any(
                fault.at_ms == 0 and fault.stops and node.index in fault.nodes
                for fault in self.scenario.faults
            ):
                node.start()

    def _happen(self, kind: int, host: int, boot: int, data: Any) -> None:
        if kind == sim.FAULT:
            if data is None:
                self._heal()
            else:
                self._fault(*data)
            return
        if kind == sim.ADVERSARY:
            self.adversary.act(data)
            return
        node = self.nodes[host]
        if not node.is_up or (boot and boot != node.boot):
            return
        if kind == sim.DELIVER:
            node.deliver(data)
        elif kind == sim.SYNCED:
            node.synced()
        elif kind == sim.WAKE:
            node.wake(data)
        elif kind == sim.LOADED:
            node.handle(data)
        else:
            _PERFORM[kind](node, *data)
        self.checks.handled(node)

    def _note(self, kind: int, host: int, data: Any) -> None:
        """Add the event to the trace hash."""
        tag = 0
        if kind == sim.DELIVER:
            message = data[1]
            tag = len(type(message).__name__)
            if type(message) is Vote:
                tag = int.from_bytes(message.signature[:4], "little")
        pending = self._pending
        pending.append(((self.now_ms << 4 | kind) << 12 | host) << 32 | tag)
        if len(pending) >= TRACE_FLUSH:
            self._flush()
        if self.log is not None:
            self.log(describe(self.now_ms, kind, self.nodes[host].name, data))

    def log_effects(self, node: Node, effects: Sequence[Effect]) -> None:
        """Write down what a replica asks for."""
        assert self.log is not None
        for effect in effects:
            if not isinstance(effect, WakeAt):
                self.log(f"{'':7s}   {node.name} -> {shorten(effect)}")

    def _flush(self) -> None:
        self._trace.update(repr(self._pending).encode())
        self._pending.clear()

    # --- faults -------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.links = self.scenario.healed_links
        self._partitions.clear()
        self.is_healed = True
        self.checks.healed()

    def _fault(self, fault: Fault, is_end: bool) -> None:
        if fault.kind == "partition":
            group = frozenset(fault.nodes)
            if not is_end:
                self._partitions.append(group)
            elif group in self._partitions:
                self._partitions.remove(group)
            return
        if fault.kind == "mute":
            if is_end:
                self._muted.remove(fault.value)
            else:
                self._muted.append(fault.value)
        for index in fault.nodes:
            for host in self.hosts_of[index]:
                node = self.nodes[host]
                if fault.stops:
                    self._stop(node, fault, is_end)
                elif fault.kind == "lose":
                    self._lose(node)
                else:
                    node.fault(fault, is_end)

    def _lose(self, node: Node) -> None:
        """Take a node's journal (W3)."""
        if node.is_up:
            node.cut_power()
            self.checks.crashed(node)
            node.lose_journal()
            node.start()
        else:
            node.lose_journal()

    def _stop(self, node: Node, fault: Fault, is_end: bool) -> None:
        holds = self.stopped.get(node.host, 0) + (-1 if is_end else 1)
        self.stopped[node.host] = holds
        if is_end:
            if holds == 0 and not node.is_up:
                node.start()
            return
        if node.is_up:
            if fault.kind == "power":
                node.cut_power()
            else:
                node.crash()
            self.checks.crashed(node)

    # --- network ------------------------------------------------------------------------------

    def sent(self, node: Node, message: Message, count: int) -> None:
        """Let the checks and the adversary see what a node sends, before anybody receives it."""
        if node.index not in self.byzantine:
            self.message_count += count
            if self.scenario.counts_bytes:
                self.byte_count += count * len(encode_message(message))
            self.checks.sent(node, message, count)
        self.adversary.saw(message)

    def transmit(self, host: int, to: int, message: Message) -> None:
        """Carry a message over the link from a host to a validator, if the link lets it."""
        if to >= 0:
            self.carry(self.nodes[host].index, to, message, host)

    def carry(self, sender: int, to: int, message: Message, host: int = -1) -> None:
        """Carry a message from one validator to another."""
        if self._muted and getattr(message, "kind", 0) in self._muted:
            return
        for target in self.hosts_of[to]:
            if target == host or (self._partitions and self._is_cut(sender, to)):
                continue
            links, random_of = self.links, self.rng.random
            if links.loss_permille and random_of() * 1000 < links.loss_permille:
                continue
            low_ms = links.delay_min_ms
            delay_ms = low_ms + int(random_of() * (links.delay_max_ms + 1 - low_ms))
            self.push(delay_ms, sim.DELIVER, target, 0, (sender, message))
            if links.duplicate_permille and random_of() * 1000 < links.duplicate_permille:
                again_ms = low_ms + int(random_of() * links.delay_max_ms)
                self.push(again_ms, sim.DELIVER, target, 0, (sender, message))

    def _is_cut(self, a: int, b: int) -> bool:
        return any((a in group) != (b in group) for group in self._partitions)

    def transfer(self, host: int, to: int, commitment: bytes, payload: bytes) -> None:
        """Carry a payload; it takes time by its size."""
        self.carry_payload(self.nodes[host].index, to, commitment, payload, host)

    def carry_payload(
        self, sender: int, to: int, commitment: bytes, payload: bytes, host: int = -1
    ) -> None:
        """Carry a payload from one validator to another."""
        links, rng = self.links, self.rng
        for target in self.hosts_of[to]:
            if target == host or self._is_cut(sender, to):
                continue
            if rng.randrange(1000) < links.loss_permille:
                continue
            delay_ms = rng.randint(links.delay_min_ms, max(20, links.delay_min_ms))
            delay_ms += links.transfer_ms * len(payload) // PAYLOAD_BYTES_MAX
            self.push(delay_ms, sim.PAYLOAD, target, 0, (commitment, payload))

    def request_payload(self, node: Node, peer: int, block_hash: bytes, commitment: bytes) -> None:
        """Ask a validator for a payload; whoever has it sends it."""
        if peer in self.byzantine and not self.hosts_of[peer]:
            payload = self.adversary.serve(commitment)
            if payload is not None:
                self.carry_payload(peer, node.index, commitment, payload)
            return
        for host in self.hosts_of[peer]:
            other = self.nodes[host]
            found = other.bytes_of(block_hash, commitment) if other.is_up else None
            if found is not None:
                self.transfer(host, node.index, commitment, found)

    # --- load ---------------------------------------------------------------------------------

    def work(self, wait_ms: int, limit: int) -> tuple[int, bytes]:
        """Return when an executor that is asked to build has work, and its transactions."""
        load, rng = self.scenario.load, self.rng
        if load == "idle" or (load == "mixed" and rng.randrange(2)):
            return wait_ms, b""
        count = limit // TRANSFER_BYTES
        if load == "mixed":
            wait_ms, count = rng.randint(0, wait_ms), rng.randint(0, count)
            count = min(count, 4)
        else:
            wait_ms = 0
        return wait_ms, self.transfers(count)

    def transfers(self, count: int) -> bytes:
        """Return random transfers, some of them without cover."""
        bits = self.rng.randbytes(TRANSFER_BYTES * count)
        made = bytearray(bits)
        for at in range(0, len(made), TRANSFER_BYTES):
            made[at] %= ACCOUNTS
            made[at + 1] %= ACCOUNTS
            made[at + 3] %= 1 + OPENING // 256
        return bytes(made)

    def execution_ms(self, permille: int, length: int) -> int:
        """Return how long an executor takes for a payload of `length` bytes."""
        return self.scenario.execute_max_ms * permille * length // (1000 * PAYLOAD_BYTES_MAX)


def describe(now_ms: int, kind: int, name: str, data: Any) -> str:
    """Return one line of a trace."""
    text = f"from {data[0]}: {shorten(data[1])}" if kind == sim.DELIVER else shorten(data)
    return f"{now_ms:7d} {name} {sim.NAMES[kind]} {text}"


def shorten(value: object) -> str:
    """Return a value as text, hashes and signatures by their first bytes."""
    return _BYTES.sub(lambda found: (ast.literal_eval(found[0])[:4]).hex(), repr(value))
