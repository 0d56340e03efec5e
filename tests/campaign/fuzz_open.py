"""Foreign bytes to what an executor opens to others: its gossip socket and its HTTP interface.

Strangers write garbage to the gossip port; peers that are listed prove their keys and then send
changed frames until they are banned; HTTP requests are changed in every part. Whatever comes, no
answer blames the node itself, the process lives with bounded memory and files, an honest peer's
transactions still arrive, and the pages still answer.
"""

import random
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from engine.client import Client, NodeError
from engine.constants import GOSSIP_CONTEXT, derive_key
from engine.gossip.runner import LIMITS
from runtime.keypair import KeyPair
from runtime.links import Link, SocketClass
from tests.campaign import fuzz_gossip
from tests.campaign.kills import Campaign
from tests.campaign.mutate import mutate
from tests.campaign.process import Executor, ProcessFailed

PEERS = 31
HONEST = PEERS
"""number of the peer that misbehaves never"""
FRAMES_PER_PEER = 40
WAIT_S = 20
TIMEOUT_S = 5
POLL_MS = 20
GROWTH_BYTES_MAX = 2**28
FILES_MAX = 400
ANSWER_BYTES = 2**16
FAILURES = (b" 500", b" 501", b" 502", b" 504", b" 505")
"""statuses that blame the node; 503 says that it is busy"""
NOWHERE = "tcp://127.0.0.1:1"


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run came to."""

    requests: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    garbage_connections: int = 0
    frames: int = 0
    bans: int = 0
    growth_bytes: int = 0
    open_files: int = 0
    violations: list[str] = field(default_factory=list)


def pair_of(number: int) -> KeyPair:
    """Return the transport key of a peer."""
    return KeyPair.of(number.to_bytes(32, "big"))


def run(folder: Path, seed: int, requests: int) -> Tally:
    """Send so many requests, and as much gossip as bans allow, to a fresh executor."""
    tally = Tally()
    rng = random.Random(seed)
    peers = " ".join(f"{pair_of(n).public_key.hex()}@{NOWHERE}" for n in range(1, PEERS + 1))
    settings = ("--gossip-listen", "tcp://127.0.0.1:0", "--gossip-peers", peers)
    campaign = Campaign(folder, seed, settings)
    executor = campaign.executor
    executor.start()
    try:
        ready = executor.wait_ready()
        start_bytes = executor.resident_bytes()
        _send_requests(rng, ready["queries"], requests, tally)
        key, _, gossip = ready["gossip"].partition("@")
        _send_garbage(rng, gossip.rpartition(":")[2], tally)
        _send_frames(rng, bytes.fromhex(key), gossip, bytes.fromhex(ready["genesis"]), tally)
        _check(executor, ready["queries"], start_bytes, tally)
    except (ProcessFailed, NodeError, OSError) as error:
        tally.violations.append(f"{type(error).__name__}: {error}")
    finally:
        if executor.is_running:
            executor.kill()
    return tally


def http_examples() -> list[bytes]:
    """Return good requests of every kind."""
    name, body = "ab" * 32, b"\0" * 192
    paths = (
        "/v1/status", f"/v1/accounts/0x{name}?at=head&proof=1", f"/v1/transactions/{name}",
        f"/v1/accounts/0x{name}/transactions?limit=3", f"/v1/receipts/{name}", "/v1/blocks/0",
        "/v1/blocks/finalized", "/metrics", "/openapi.json",
    )  # fmt: skip
    got = [f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" for path in paths]
    kinds = ("application/octet-stream", "application/vnd.apache.arrow.stream", "application/json")
    posted = [
        f"POST /v1/transactions{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
        f"{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
        for path in ("", "/batch")
        for kind in kinds
    ]
    return [text.encode() for text in got] + posted


def _send_requests(rng: random.Random, address: str, count: int, tally: Tally) -> None:
    examples = http_examples()
    statuses: Counter[str] = Counter()
    host, _, port = address.rpartition(":")
    for _ in range(count):
        data = mutate(rng, examples)
        with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(ANSWER_BYTES)
            except OSError as error:
                statuses[type(error).__name__] += 1
                continue
        line = answer.partition(b"\r\n")[0]
        statuses[line[9:12].decode("latin-1") or "closed"] += 1
        if any(failure in line for failure in FAILURES):
            tally.violations.append(f"{line!r} for {data[:2_000]!r}")
    tally.requests = count
    tally.statuses = dict(sorted(statuses.items()))


def _send_garbage(rng: random.Random, port: str, tally: Tally) -> None:
    """Write foreign bytes to the port, with and without ZeroMQ's greeting."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + bytes(32)
    examples = [greeting, greeting + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\6DEALER"]
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", int(port)), TIMEOUT_S) as connection:
            connection.sendall(mutate(rng, examples))
        tally.garbage_connections += 1
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 500)
    dealer.connect(f"tcp://127.0.0.1:{port}")
    for _ in range(500):
        parts = [rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 4))]
        dealer.send_multipart(parts)
    dealer.close()
    context.term()


class _Peer:
    """A listed peer with a link of its own."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", number: int, key: bytes, address: str,
        genesis_hash: bytes,
    ) -> None:  # fmt: skip
        self._key = key
        self.link = Link(
            context=context, pair=pair_of(number), bind="", limits=LIMITS,
            domain=derive_key(GOSSIP_CONTEXT, genesis_hash), socket_class=SocketClass.GOSSIP,
            now_ms=self._now_ms(),
        )  # fmt: skip
        self.link.set_peers({key: address})

    def _now_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def turn(self) -> None:
        """Read what came, and do what is due."""
        now_ms = self._now_ms()
        self.link.receive(100, now_ms)
        self.link.tick(now_ms)
        time.sleep(POLL_MS / 1_000)

    def connect(self) -> bool:
        """Wait until the key is proved; False where it is refused."""
        end_s = time.monotonic() + WAIT_S
        while self._key not in self.link.connected() and time.monotonic() < end_s:
            self.turn()
        return self._key in self.link.connected()

    def send(self, frame: bytes) -> bool:
        """Send a frame; an empty one is none."""
        return bool(frame) and self.link.send(self._key, frame, self._now_ms())


def _send_frames(
    rng: random.Random, key: bytes, address: str, genesis_hash: bytes, tally: Tally
) -> None:
    """Let every listed peer but the honest one send changed frames, and then the honest one."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    examples = fuzz_gossip.examples(rng)
    for number in range(1, PEERS):
        peer = _Peer(context, number, key, address, genesis_hash)
        if not peer.connect():
            tally.violations.append(f"peer {number} was not let in")
        for _ in range(FRAMES_PER_PEER):
            tally.frames += peer.send(mutate(rng, examples))
        peer.turn()
        peer.link.close()
    honest = _Peer(context, HONEST, key, address, genesis_hash)
    if not honest.connect():
        tally.violations.append("the honest peer was not let in")
    honest.link.close()
    context.destroy(linger=0)


def _check(executor: Executor, queries: str, start_bytes: int, tally: Tally) -> None:
    """The process lives in its bounds, answers, and wrote no traceback."""
    if not executor.is_running:
        raise ProcessFailed(f"ended with {executor.wait()}:\n{executor.log_text()[-4_000:]}")
    with Client(f"http://{queries}") as client:
        client.status()
    tally.growth_bytes = executor.resident_bytes() - start_bytes
    tally.open_files = executor.open_files()
    if tally.growth_bytes > GROWTH_BYTES_MAX:
        tally.violations.append(f"the executor grew by {tally.growth_bytes} bytes")
    if tally.open_files > FILES_MAX:
        tally.violations.append(f"the executor has {tally.open_files} files open")
    strange = [line for line in executor.log() if line.get("event") == "not a log line"]
    tally.violations += [f"it wrote {line['text'][:500]}" for line in strange[:5]]
    tally.bans = sum(line.get("event") == "gossip ban" for line in executor.log())
    if not tally.bans:
        tally.violations.append("nobody was banned")
    code = executor.stop()
    if code:
        tally.violations.append(f"SIGTERM ended the executor with {code}")
