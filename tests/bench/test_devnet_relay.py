"""The relay between two ZeroMQ sockets: what passes is unchanged, what does not is a fault's."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from bench.network.faults import LinkState
from bench.network.processes import REPOSITORY

WAIT_MS = 20_000
"""far beyond what a message takes"""
SILENCE_MS = 300
"""in which a message that is not dropped would long have come"""


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Relayed:
    """A DEALER that reaches a ROUTER through a relay process."""

    def __init__(self, folder: Path, links: LinkState, seed: int) -> None:
        """Start all three."""
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        target = self.router.bind_to_random_port("tcp://127.0.0.1")
        listen = free_port()
        route = {
            "dialler": 0,
            "target": 1,
            "name": "votes",
            "listen": f"127.0.0.1:{listen}",
            "forward": f"127.0.0.1:{target}",
        }
        path = folder / "routes.json"
        path.write_text(json.dumps({"seed": seed, "links": links.as_json(), "routes": [route]}))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.network.relay", str(path)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.dealer = self.context.socket(zmq.DEALER)
        self.dealer.linger = 0
        self.dealer.connect(f"tcp://127.0.0.1:{listen}")

    def change(self, links: LinkState) -> None:
        """Tell the relay."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(links.as_json()) + "\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, int]:
        """Close everything; returns what the relay counted."""
        self.dealer.close()
        self.router.close()
        self.context.term()
        said, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        counts: dict[str, int] = json.loads(said)
        return counts


@pytest.fixture
def plain(tmp_path: Path, seed: int) -> Iterator[Relayed]:
    """Return a relay that does nothing yet."""
    relayed = Relayed(tmp_path, LinkState(), seed)
    yield relayed
    if relayed.process.poll() is None:
        relayed.process.kill()
        relayed.process.wait()
        relayed.context.destroy(0)
    for pipe in (relayed.process.stdin, relayed.process.stdout):
        if pipe is not None:
            pipe.close()


def test_messages_pass_unchanged_both_ways(plain: Relayed) -> None:
    """Empty, small and large frames, many in one message, late and in order."""
    sent = [[b"x"], [b"", b"a" * 255, b"b" * 256], [b"c" * 300_000], [b"last"]]
    plain.change(LinkState(delay_ms=20))
    for message in sent:
        plain.dealer.send_multipart(message)
    for message in sent:
        assert plain.router.poll(WAIT_MS)
        name, *frames = plain.router.recv_multipart()
        assert frames == message
        plain.router.send_multipart([name, *message])
    for message in sent:
        assert plain.dealer.poll(WAIT_MS)
        assert plain.dealer.recv_multipart() == message
    assert plain.end()["passed"] == 2 * len(sent)


def test_loss_takes_whole_messages(plain: Relayed) -> None:
    """Of many messages some are lost, all frames of them, and the rest keeps its order."""
    plain.dealer.send_multipart([b"first"])
    assert plain.router.poll(WAIT_MS)
    plain.router.recv_multipart()
    plain.change(LinkState(loss_permille=300))
    for number in range(200):
        plain.dealer.send_multipart([str(number).encode(), b"tail"])
    numbers = []
    while plain.router.poll(SILENCE_MS):
        _, head, tail = plain.router.recv_multipart()
        assert tail == b"tail"
        numbers.append(int(head))
    assert numbers == sorted(numbers)
    assert 0 < len(numbers) < 200
    counts = plain.end()
    assert counts["lost"] == 201 - counts["passed"]


def test_a_partition_lets_nothing_pass_until_it_heals(plain: Relayed) -> None:
    """What is sent meanwhile is lost; the connection goes on afterwards."""
    plain.dealer.send_multipart([b"before"])
    assert plain.router.poll(WAIT_MS)
    assert plain.router.recv_multipart()[1] == b"before"
    plain.change(LinkState(groups=((0,), (1,))))
    assert not plain.router.poll(SILENCE_MS)
    plain.dealer.send_multipart([b"meanwhile"])
    assert not plain.router.poll(SILENCE_MS)
    plain.change(LinkState())
    assert not plain.router.poll(SILENCE_MS)
    plain.dealer.send_multipart([b"after"])
    assert plain.router.poll(WAIT_MS)
    assert plain.router.recv_multipart()[1] == b"after"
    assert plain.end()["cut"] == 1


def test_bytes_that_are_no_frames_end_the_connection_alone(plain: Relayed) -> None:
    """Who speaks another protocol is cut off; others go on."""
    target = plain.dealer.get_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    with socket.create_connection(("127.0.0.1", int(target)), timeout=20) as stranger:
        stranger.sendall(bytes(64) + b"\xff" * 32)
        while True:
            try:
                if not stranger.recv(4_096):
                    break
            except ConnectionResetError:
                break
    plain.dealer.send_multipart([b"still here"])
    assert plain.router.poll(WAIT_MS)
    assert plain.router.recv_multipart()[1] == b"still here"
    plain.end()
