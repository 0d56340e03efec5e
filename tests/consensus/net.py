"""Replicas on a perfect network: no loss, fixed delays, an executor that agrees with everybody.

What goes wrong on real networks is for `tests/sim`; this is the smallest world in which one rule of
a replica can be looked at. Events are delivered in the order (time, number), so that a run is a
function of its arguments.
"""

import hashlib
import heapq
from dataclasses import replace
from typing import Any

from consensus.core import events as ev
from consensus.core import journal
from consensus.core.codec import decode_message, encode_message, validator_set_bytes
from consensus.core.replica import Replica
from consensus.core.safety import Rules
from consensus.core.types import (
    BlockAnswer,
    BootId,
    Boundary,
    Chain,
    Epoch,
    Final,
    FinalizedBlock,
    Hash32,
    Height,
    Message,
    Parameters,
    PeerId,
    PublicKey,
    RangeAnswer,
    Signature,
    Validator,
    Want,
)

DELAY_MS = 10
EXECUTE_MS = 5
PARAMETERS = Parameters(
    heights_per_epoch=1_000,
    delta_ms=20,
    execute_max_ms=20,
    transfer_max_ms=20,
    block_interval_ms=40,
    idle_interval_ms=50,
    retransmit_interval_ms=200,
    unfinalized_max=8,
    payload_bytes_max=2**20,
    transactions_max=2**10,
    objects_max=2**10,
    drift_ms=5_000,
    evidence_window_epochs=4,
)


class FakeCrypto:
    """Keyed hashing with the meaning of signatures; a key's secret is known to this class only."""

    def __init__(self, key: bytes = b"") -> None:
        """Sign for one key."""
        self._key = key

    def hash(self, context: str, data: bytes) -> Hash32:
        """Hash under a context."""
        return Hash32(hashlib.blake2b(data, digest_size=32, key=context.encode()[:64]).digest())

    def _tag(self, key: bytes, message: bytes) -> Signature:
        secret = hashlib.blake2b(b"secret" + key, digest_size=32).digest()
        return Signature(hashlib.blake2b(message, digest_size=64, key=secret).digest())

    def is_public_key(self, key: PublicKey) -> bool:
        """Take every key."""
        return True

    def sign(self, message: bytes) -> Signature:
        """Sign with the own key."""
        return self._tag(self._key, message)

    def verify(self, public_key: PublicKey, message: bytes, signature: Signature) -> bool:
        """Compare with the one valid signature."""
        return self._tag(public_key, message) == signature

    def verify_many(self, public_keys: Any, message: bytes, signatures: Any) -> bool:
        """Compare all."""
        pairs = zip(public_keys, signatures, strict=True)
        return all(self.verify(key, message, signature) for key, signature in pairs)


def key_of(index: int) -> PublicKey:
    """Return the key of a validator: keys ascend with the index."""
    return PublicKey(index.to_bytes(2, "big") + bytes(30))


def make_chain(powers: list[int], next_powers: list[int] | None = None, **changes: int) -> Chain:
    """Return a chain whose epochs 0 and 1 have these powers."""
    sets = [
        tuple(Validator(public_key=key_of(i), power=p) for i, p in enumerate(row))
        for row in (powers, next_powers or powers)
    ]
    return Chain(
        chain_id=7,
        genesis_hash=Hash32(b"g" * 32),
        params_hash=Hash32(b"p" * 32),
        timestamp_ms=1_000,
        parameters=replace(PARAMETERS, **changes),
        validators=(sets[0], sets[1]),
    )


def set_hash(validators: tuple[Validator, ...]) -> Hash32:
    """Return a set's hash as the chain names it."""
    pairs = tuple((v.public_key, v.power) for v in validators)
    return FakeCrypto().hash("tos validator set v1", validator_set_bytes(pairs))


class Node:
    """One replica with a disk and an executor that never fail by themselves."""

    def __init__(self, net: "Net", index: int, rules: Rules | None = None) -> None:
        """Start with an empty disk."""
        self.net, self.index, self.rules = net, index, rules
        self.key = key_of(index)
        self.journal: list[bytes] = list(journal.empty_journal())
        self.finalized: dict[int, FinalizedBlock] = {}
        self.boundaries: dict[int, Boundary] = {}
        self.evidence: list[Any] = []
        self.alarms: list[ev.Alarm] = []
        self.penalties: list[ev.Penalize] = []
        self.sent: list[Message] = []
        self.schedule: dict[int, tuple[Validator, ...]] = {}
        """sets that this executor alone believes in"""
        self.is_up = True
        self.boot_number = 0
        self.executed: dict[bytes, int] = {}
        self.executor_final: tuple[int, bytes] = (0, net.chain.genesis_hash)
        self.verdicts: dict[bytes, ev.Verdict] = {}
        self.boot()

    def boot(self) -> None:
        """Make a replica of what is on disk; the executor of this world goes on."""
        self.boot_number += 1
        top = max(self.finalized, default=0)
        self.replica = Replica(
            chain=self.net.chain,
            crypto=FakeCrypto(self.key),
            key=self.key,
            fee_recipient=self.key,
            boot=ev.Boot(
                journal=tuple(self.journal),
                finalized=self.finalized.get(top),
                boundaries=tuple(self.boundaries[e] for e in sorted(self.boundaries)),
            ),
            now_ms=self.net.now_ms,
            wall_offset_ms=10_000,
            rules=self.rules,
        )
        self.is_up = True
        self.give(ev.Started())

    def give(self, event: ev.Event) -> list[ev.Effect]:
        """Deliver an event now and perform its effects."""
        effects = self.replica.handle(event, self.net.now_ms)
        for effect in effects:
            self.perform(effect)
        return effects

    def perform(self, effect: ev.Effect) -> None:
        """Do what the shell does, at once or after a delay of this world."""
        net = self.net
        match effect:
            case ev.Persist():
                self.persist(effect)
            case ev.Send():
                self.sent.append(effect.message)
                net.transmit(self, effect.peer, effect.message)
            case ev.Broadcast():
                self.sent.append(effect.message)
                for node in net.nodes:
                    if node is not self:
                        net.transmit(self, PeerId(node.key), effect.message)
            case ev.WakeAt():
                net.at(effect.at_ms, self, ev.Woke())
            case ev.Call():
                self.execute(effect)
            case ev.FetchPayload():
                arrived = ev.PayloadArrived(payload_commitment=effect.payload_commitment)
                net.at(net.now_ms + DELAY_MS, self, arrived)
            case ev.AnswerFromStore():
                self.answer(effect)
            case _:
                self.note(effect)

    def note(self, effect: ev.Effect) -> None:
        """Keep what people are told; payload bytes do not exist in this world."""
        match effect:
            case ev.LoadFinalized():
                heights = range(effect.first, effect.first + effect.count)
                blocks = tuple(self.finalized[h] for h in heights if h in self.finalized)
                self.net.at(self.net.now_ms + 1, self, ev.Loaded(blocks=blocks))
            case ev.Alarm():
                self.alarms.append(effect)
            case ev.Penalize():
                self.penalties.append(effect)
            case _:
                assert isinstance(effect, ev.PushPayload | ev.DropPayload)

    def persist(self, effect: ev.Persist) -> None:
        """Write at once, then send."""
        self.finalized.update({b.header.height: b for b in effect.finalized})
        if effect.boundary is not None:
            self.boundaries[effect.boundary.epoch] = effect.boundary
        self.evidence.extend(effect.evidence)
        self.journal.extend(effect.append)
        if effect.cut is not None:
            self.journal = list(effect.cut)
        for then in effect.then:
            self.perform(then)

    def answer(self, effect: ev.AnswerFromStore) -> None:
        """Answer a peer from the store."""
        request = effect.request
        message: Message | None = None
        if request.want == Want.RANGE:
            message = self.range_from(request.first)
        elif request.want == Want.BOUNDARY and request.epoch + 1 in self.boundaries:
            found = self.boundaries[Epoch(request.epoch + 1)]
            message = Final(header=found.header, certificate=found.certificate)
        elif request.want == Want.BLOCK:
            for block in self.finalized.values():
                if block.block_hash == request.block_hash:
                    message = BlockAnswer(header=block.header)
        if message is not None:
            self.net.transmit(self, effect.peer, message)

    def range_from(self, first: int) -> RangeAnswer | None:
        """Return final headers of one epoch that end with a certificate."""
        blocks = [self.finalized[h] for h in range(first, first + 64) if h in self.finalized]
        blocks = [b for b in blocks if b.header.epoch == blocks[0].header.epoch]
        while blocks and blocks[-1].certificate is None:
            blocks.pop()
        if not blocks or blocks[-1].certificate is None:
            return None
        headers = tuple(b.header for b in blocks)
        return RangeAnswer(headers=headers, certificate=blocks[-1].certificate)

    def execute(self, call: ev.Call) -> None:
        """Answer as an executor does that finds every result right."""
        net, request = self.net, call.request
        after = 1
        answer: ev.Answer = ev.ForkchoiceDone()
        if isinstance(request, ev.GetStatus):
            rows = sorted((h, b) for b, h in self.executed.items() if h > self.executor_final[0])
            answer = ev.ExecutorStatus(
                genesis_hash=net.chain.genesis_hash,
                params_hash=net.chain.params_hash,
                finalized_height=Height(self.executor_final[0]),
                finalized_hash=Hash32(self.executor_final[1]),
                unfinalized=tuple((Height(h), Hash32(b)) for h, b in rows),
            )
        elif isinstance(request, ev.GetPayload):
            after = EXECUTE_MS
            mark = hashlib.blake2b(
                request.parent_hash + self.key + request.timestamp_ms.to_bytes(8, "little"),
                digest_size=32,
            ).digest()
            answer = ev.PayloadBuilt(
                payload_commitment=Hash32(mark),
                payload_bytes=832,
                transaction_count=0,
                transactions_root=Hash32(mark),
                state_hash=Hash32(mark),
                receipts_hash=Hash32(mark),
            )
        elif isinstance(request, ev.NewPayload):
            after = EXECUTE_MS
            verdict = self.verdicts.get(request.block_hash, ev.Verdict.VALID)
            if verdict == ev.Verdict.VALID:
                self.executed[request.block_hash] = request.header.height
            answer = ev.PayloadJudged(verdict=verdict)
        elif isinstance(request, ev.ForkchoiceUpdated):
            height = self.executed.get(request.finalized, 0)
            if height:
                self.executor_final = (height, request.finalized)
        else:
            known = self.schedule.get(request.epoch) or net.validators(request.epoch)
            answer = ev.ValidatorsOf(validators=known)
        event = ev.Answered(call_id=call.call_id, boot_id=BootId(b"b" * 16), answer=answer)
        net.at(net.now_ms + after, self, event)


class Net:
    """All nodes, one clock and one queue."""

    def __init__(self, chain: Chain, count: int | None = None, rules: Rules | None = None) -> None:
        """Start `count` nodes (one per validator of epoch 0 unless said)."""
        self.chain = chain
        self.now_ms = 0
        self.queue: list[tuple[int, int, Node, int, ev.Event]] = []
        self.number = 0
        self.schedule: dict[int, tuple[Validator, ...]] = {}
        self.cut_off: set[int] = set()
        self.nodes: list[Node] = []
        for index in range(count if count is not None else len(chain.validators[0])):
            self.nodes.append(Node(self, index, rules))

    def validators(self, epoch: int) -> tuple[Validator, ...]:
        """Return the set of an epoch; the last one that was fixed goes on."""
        known = [e for e in self.schedule if e <= epoch]
        return self.schedule[max(known)] if known else self.chain.validators[min(epoch, 1)]

    def at(self, at_ms: int, node: Node, event: ev.Event) -> None:
        """Deliver an event to a node later."""
        self.number += 1
        heapq.heappush(self.queue, (at_ms, self.number, node, node_boot(node), event))

    def transmit(self, sender: Node, peer: PeerId, message: Message) -> None:
        """Carry a message as bytes."""
        copy = decode_message(encode_message(message))
        assert copy == message
        event = ev.Received(peer=PeerId(sender.key), message=copy)
        for node in self.nodes:
            if PeerId(node.key) == peer and not {sender.index, node.index} & self.cut_off:
                self.at(self.now_ms + DELAY_MS, node, event)

    def run(self, until_ms: int) -> None:
        """Let time pass."""
        while self.queue and self.queue[0][0] <= until_ms:
            at_ms, _, node, boot, event = heapq.heappop(self.queue)
            self.now_ms = at_ms
            if node.is_up and boot == node_boot(node):
                node.give(event)
        self.now_ms = until_ms

    def heights(self) -> list[int]:
        """Return the final height of every node."""
        return [node.replica.final_height for node in self.nodes]


def node_boot(node: Node) -> int:
    """Return which life of a node an event belongs to."""
    return getattr(node, "boot_number", 1)
