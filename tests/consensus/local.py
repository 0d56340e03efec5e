"""Whole nodes within one process: real loops, disks and keys; a network that is a few dictionaries.

The executor is the toy of `tests/engine_api`, which every rule of the Engine API holds for. Sockets
are tried elsewhere (`tests/consensus/network`, `tests/consensus/payloads`, `tests/system`).
"""

import io
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from consensus.core.events import FetchPayload, PayloadArrived, PayloadFailed, PushPayload
from consensus.core.journal import empty_journal
from consensus.core.types import (
    Chain,
    FinalizedBlock,
    Hash32,
    Message,
    Parameters,
    PeerId,
    PublicKey,
    Validator,
)
from consensus.inbox import Inbox
from consensus.journal import create_journal
from consensus.network.addresses import PeerAddresses
from consensus.node import Node, stored_payload
from consensus.recovery import JOURNAL_NAME
from consensus.view import View
from consensus.waiting import SystemClock
from engine_api.protocol import NEVER, Deadline
from engine_api.types import Validator as EngineValidator
from engine_api.types import ValidatorSetAnswer
from runtime.keypair import KeyPair
from runtime.logs import LogStream, open_log
from tests.engine_api import toy
from tests.engine_api.fake import FakeEngine

PARAMETERS = Parameters(
    heights_per_epoch=1_000,
    delta_ms=50,
    execute_max_ms=100,
    transfer_max_ms=100,
    block_interval_ms=20,
    idle_interval_ms=40,
    retransmit_interval_ms=150,
    unfinalized_max=toy.UNFINALIZED_MAX,
    payload_bytes_max=toy.LIMITS.bytes,
    transactions_max=toy.LIMITS.transactions,
    objects_max=toy.LIMITS.objects,
    drift_ms=5_000,
    evidence_window_epochs=2,
)
WAIT_S = 30
"""a test that waits longer has failed"""


def key_pairs(count: int) -> list[KeyPair]:
    """Return key pairs in the order of their public keys."""
    made = [KeyPair.of(bytes([n]) * 32) for n in range(1, count + 1)]
    return sorted(made, key=lambda pair: pair.public_key)


def make_chain(pairs: list[KeyPair], parameters: Parameters = PARAMETERS) -> Chain:
    """Return the toy's chain with these validators, of equal power."""
    validators = tuple(Validator(public_key=PublicKey(p.public_key), power=1) for p in pairs)
    return Chain(
        chain_id=toy.CHAIN_ID,
        genesis_hash=Hash32(toy.GENESIS_HASH),
        params_hash=Hash32(toy.PARAMS_HASH),
        timestamp_ms=0,
        parameters=parameters,
        validators=(validators, validators),
    )


class ToyExecutor(FakeEngine):
    """The toy with the chain's validators."""

    chain: Chain

    def restarted(self) -> "ToyExecutor":
        """Return the executor after a crash."""
        made = ToyExecutor(self._finalized)
        made.chain = self.chain
        return made

    def validator_set(self, epoch: int, deadline: Deadline = NEVER) -> ValidatorSetAnswer:
        """Return the one set."""
        validators = self.chain.validators[0]
        return ValidatorSetAnswer(
            boot_id=self.boot_id,
            epoch=epoch,
            validators=tuple(EngineValidator(key=v.public_key, power=v.power) for v in validators),
            validator_set_id=bytes(32),
        )


class Hub:
    """All that connects the nodes of one test."""

    def __init__(self) -> None:
        """Connect nobody yet."""
        self.members: dict[bytes, Member] = {}
        self.cut: set[bytes] = set()
        """keys of nodes that nobody reaches"""

    def reaches(self, sender: bytes, receiver: bytes) -> "Member | None":
        """Return the receiver where a connection is."""
        found = self.members.get(receiver)
        if found is None or not found.is_up or {sender, receiver} & self.cut:
            return None
        return found


class LocalNetwork:
    """Messages go straight into the other's inbox."""

    def __init__(self, hub: Hub, key: bytes) -> None:
        """Speak for a key."""
        self._hub, self._key = hub, key
        self._members: Collection[bytes] = ()

    def start(self) -> None:
        """Begin."""
        self._hub.members[self._key].is_up = True

    def stop(self) -> None:
        """End."""
        self._hub.members[self._key].is_up = False

    def set_peers(
        self, members: Collection[bytes], addresses: Mapping[bytes, PeerAddresses]
    ) -> None:
        """Know the members."""
        assert self._key not in members
        self._members = members

    def send(self, peer: PeerId, message: Message) -> None:
        """Deliver, or lose."""
        member = self._hub.reaches(self._key, peer)
        if member is not None:
            member.inbox.offer(PeerId(self._key), message)

    def broadcast(self, message: Message) -> None:
        """Deliver to all."""
        for peer in self._members:
            self.send(PeerId(peer), message)

    def penalize(self, peer: PeerId, reason: str) -> None:
        """Fail the test: all nodes are honest."""
        raise AssertionError(f"{peer.hex()}: {reason}")

    def counts(self) -> Mapping[str, int]:
        """Count nothing."""
        return {}

    def connected(self) -> frozenset[bytes]:
        """Return who is up."""
        return frozenset(
            key for key, member in self._hub.members.items() if member.is_up and key != self._key
        )

    def connected_by_link(self) -> Mapping[str, frozenset[bytes]]:
        """Return the same for both links."""
        return {"votes": self.connected(), "sync": self.connected()}


class LocalPayloads(LocalNetwork):
    """Payloads are shared by reference."""

    def __init__(self, hub: Hub, key: bytes, engine: FakeEngine, inbox: Inbox) -> None:
        """Serve what is held, and what the executor has."""
        super().__init__(hub, key)
        self.engine, self._inbox = engine, inbox
        self._held: dict[bytes, bytes] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> None:
        """Nothing to end."""

    def hold(self, commitment: Hash32, payload: bytes) -> None:
        """Keep."""
        assert bytes(toy.commitment(payload)) == commitment
        self._held[commitment] = payload

    def get(self, commitment: Hash32) -> bytes | None:
        """Return what is kept."""
        return self._held.get(commitment)

    def drop(self, commitment: Hash32) -> None:
        """Forget."""
        self._held.pop(commitment, None)

    def push(self, effect: PushPayload) -> None:
        """Leave it to the others to fetch."""

    def fetch(self, effect: FetchPayload) -> None:
        """Ask the named ones, then all."""
        for key in dict.fromkeys((*effect.peers, *self._members)):
            member = self._hub.reaches(self._key, key)
            if member is None:
                continue
            found = member.payloads.get(effect.payload_commitment)
            if found is None:
                found = stored_payload(
                    member.payloads.engine, effect.block_hash, effect.payload_commitment
                )
            if found is not None:
                self.hold(effect.payload_commitment, found)
                arrived = PayloadArrived(payload_commitment=effect.payload_commitment)
                self._inbox.put(arrived)
                return
        self._inbox.put(PayloadFailed(payload_commitment=effect.payload_commitment))


class Member:
    """One node of a test, which can end and begin again on the same folder."""

    def __init__(
        self, hub: Hub, chain: Chain, pair: KeyPair, folder: Path, *, has_key: bool = True
    ) -> None:
        """Make the home as `init` does."""
        self.hub, self.chain, self.pair, self.folder = hub, chain, pair, folder
        self.has_key = has_key
        self.engine = ToyExecutor()
        self.engine.chain = chain
        self.is_up = False
        self.output = io.StringIO()
        self.results: list[bool] = []
        folder.mkdir()
        if has_key:
            create_journal(folder / JOURNAL_NAME, empty_journal())
        self.make()

    def make(self) -> None:
        """Make a node of what the folder holds."""
        key = self.pair.public_key
        self.inbox = Inbox()
        self.network = LocalNetwork(self.hub, key)
        self.payloads = LocalPayloads(self.hub, key, self.engine, self.inbox)
        self.node = Node(
            chain=self.chain,
            pair=self.pair if self.has_key else None,
            fee_recipient=PublicKey(key),
            folder=self.folder,
            engine=self.engine,
            inbox=self.inbox,
            network=self.network,
            payloads=self.payloads,
            addresses={},
            clock=SystemClock(),
            log=open_log("info", "json", LogStream(self.output)),
        )
        self.view = View(
            self.node, inbox=self.inbox, network=self.network, payloads=self.payloads, names={}
        )
        self.hub.members[key] = self
        self.thread = threading.Thread(target=lambda: self.results.append(self.node.run()))

    def start(self) -> None:
        """Run in a thread."""
        self.thread.start()

    def stop(self) -> bool:
        """Stop; return what `run` returned."""
        self.node.stop()
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive(), "a node stops"
        return self.results[-1]

    def block(self, height: int) -> FinalizedBlock:
        """Return a block that is final here."""
        found = self.node.store.block(height)
        assert found is not None, height
        return found

    @property
    def height(self) -> int:
        """Return the height that is final and durable."""
        durable = self.node.durable
        return 0 if durable is None else durable.header.height


def wait_until(what: str, is_so: Callable[[], bool]) -> None:
    """Wait for something, at most WAIT_S; a test fails by what did not happen, not by its pace."""
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end, f"not within {WAIT_S} s: {what}"
        time.sleep(0.01)
