"""A network of dissemination cores: frames are lost, doubled and overtaken, some peers lie."""

import heapq
from collections.abc import Callable

import numpy as np

from consensus.core.events import FetchPayload, PushPayload
from consensus.core.types import Hash32, PeerId
from consensus.payloads import frames
from consensus.payloads.chunks import ChunkTree, tree_of
from consensus.payloads.limits import MemoryLimits
from consensus.payloads.outputs import Arrived, Ban, Failed, Read, SendFrame
from consensus.payloads.transfer import Transfer

SENDS_PER_TURN = 4
TURN_MS = 5

Forge = Callable[[bytes, np.random.Generator], bytes]


def key_of(index: int) -> bytes:
    """Return the key of a peer by its number."""
    return bytes((index + 1,)) * 32


def block_hash_of(commitment: bytes) -> Hash32:
    """Return the hash of the block with this payload."""
    return Hash32(bytes(byte ^ 255 for byte in commitment))


class Host:
    """One honest peer: its core, its executor's payloads, and what it heard."""

    def __init__(self, memory: MemoryLimits) -> None:
        """Begin with nothing."""
        self.core = Transfer(memory)
        self.executor: dict[bytes, bytes] = {}
        self.arrived: list[bytes] = []
        self.failed: list[bytes] = []
        self.banned: dict[bytes, str] = {}
        self.bytes_held_max = 0
        self.waiting: set[bytes] = set()
        """fetches of a test that have no event yet"""


class Net:
    """Hosts by key, and frames on their way between them. One of several hosts may lie."""

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        host_count: int,
        memory: MemoryLimits,
        loss_permille: int = 0,
        double_permille: int = 0,
        delay_ms_min: int = 1,
        delay_ms_max: int = 1,
    ) -> None:
        """Connect everybody with everybody, all of them members."""
        self.rng = rng
        self.now_ms = 1_000
        self.keys = [key_of(i) for i in range(host_count)]
        self.hosts = {key: Host(memory) for key in self.keys}
        self.liars: dict[bytes, Forge] = {}
        self.loss_permille = loss_permille
        self.double_permille = double_permille
        self.delay_ms_min = delay_ms_min
        self.delay_ms_max = delay_ms_max
        self.cut: set[bytes] = set()
        """connected to nobody"""
        self.mute: set[bytes] = set()
        """connected, and nothing comes from them"""
        self.sent_bytes = 0
        self._flying: list[tuple[int, int, bytes, bytes, bytes]] = []
        self._number = 0
        for key in self.keys:
            self.hosts[key].core.set_members([k for k in self.keys if k != key])

    def host(self, index: int) -> Host:
        """Return a host by its number."""
        return self.hosts[self.keys[index]]

    def hold(self, index: int, payload: bytes) -> ChunkTree:
        """Let a host hold a payload."""
        tree = tree_of(payload)
        self.host(index).core.hold(tree, payload, self.now_ms)
        return tree

    def push(self, index: int, tree: ChunkTree) -> None:
        """Let a host push a payload to everybody."""
        effect = PushPayload(
            block_hash=block_hash_of(tree.commitment),
            payload_commitment=tree.commitment,
            payload_bytes=tree.payload_bytes,
        )
        self.host(index).core.push(effect, self.now_ms)

    def fetch(
        self,
        index: int,
        commitment: bytes,
        payload_bytes: int,
        named: tuple[int, ...] = (),
    ) -> None:
        """Let a host fetch a payload."""
        effect = FetchPayload(
            block_hash=block_hash_of(commitment),
            payload_commitment=Hash32(commitment),
            payload_bytes=payload_bytes,
            peers=tuple(PeerId(self.keys[i]) for i in named),
        )
        self.host(index).core.fetch(effect, self.now_ms)

    def transmit(self, sender: bytes, receiver: bytes, frame: bytes) -> None:
        """Put a frame on its way, or lose it, or double it."""
        self.sent_bytes += len(frame)
        forge = self.liars.get(sender)
        if forge is not None:
            frame = forge(frame, self.rng)
        if sender in self.cut | self.mute or receiver in self.cut:
            return
        copies = 1
        if self.rng.integers(1000) < self.loss_permille:
            copies = 0
        elif self.rng.integers(1000) < self.double_permille:
            copies = 2
        for _ in range(copies):
            at_ms = self.now_ms + int(self.rng.integers(self.delay_ms_min, self.delay_ms_max + 1))
            self._number += 1
            heapq.heappush(self._flying, (at_ms, self._number, sender, receiver, frame))

    def run(self, until: Callable[[], bool], ms_max: int = 30_000) -> bool:
        """Let time pass until something is so; False: it did not become so."""
        end_ms = self.now_ms + ms_max
        while self.now_ms < end_ms:
            if until():
                return True
            self.turn()
        return until()

    def turn(self) -> None:
        """Let one turn pass at every host."""
        while self._flying and self._flying[0][0] <= self.now_ms:
            _, _, sender, receiver, frame = heapq.heappop(self._flying)
            host = self.hosts[receiver]
            if sender not in host.banned:
                host.core.receive(sender, frame, self.now_ms)
                self._note(host)
        for key, host in self.hosts.items():
            connected = [k for k in self.keys if k != key and k not in host.banned]
            host.core.tick(self.now_ms, [k for k in connected if k not in self.cut])
            for _ in range(SENDS_PER_TURN):
                sent = host.core.next_chunk(self.now_ms, lambda peer: True)
                if sent is None:
                    break
                self.transmit(key, *sent)
            self._perform(key, host)
            self._note(host)
        self.now_ms += TURN_MS

    def _note(self, host: Host) -> None:
        host.bytes_held_max = max(host.bytes_held_max, host.core.bytes_held)

    def _perform(self, key: bytes, host: Host) -> None:
        for output in host.core.take_outputs():
            if isinstance(output, SendFrame):
                self.transmit(key, output.peer, output.frame)
            elif isinstance(output, Arrived):
                host.arrived.append(output.commitment)
                host.waiting.discard(output.commitment)
            elif isinstance(output, Failed):
                host.failed.append(output.commitment)
                host.waiting.discard(output.commitment)
            elif isinstance(output, Ban):
                host.banned[output.peer] = output.reason
            else:
                assert isinstance(output, Read)
                found = host.executor.get(output.block_hash)
                whole = None if found is None else (tree_of(found), found)
                host.core.stored(output.block_hash, output.commitment, whole, self.now_ms)


def flip_chunks(frame: bytes, rng: np.random.Generator) -> bytes:
    """Lie: change one bit of a chunk's data or path."""
    if frame[0] != frames.CHUNK:
        return frame
    place = int(rng.integers(frames.CHUNK_HEAD_BYTES, len(frame)))
    return frame[:place] + bytes((frame[place] ^ 1 << int(rng.integers(8)),)) + frame[place + 1 :]


def silent(frame: bytes, rng: np.random.Generator) -> bytes:
    """Lie: say of every chunk that was pushed or asked for that it is missing."""
    if frame[0] != frames.CHUNK:
        return frame
    return frames.encode_missing(frame[1:33])


def noise(frame: bytes, rng: np.random.Generator) -> bytes:
    """Lie: send random bytes in place of every frame."""
    return rng.bytes(int(rng.integers(0, 200)))
