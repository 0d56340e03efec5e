"""A node in this process: how it starts, tells, and ends, whatever happens inside it."""

import io
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_config
from engine.node import TICK_S, Node
from engine.store.errors import StoreError
from engine.store.store import Store
from engine_api.auth import read_secret
from engine_api.client import EngineApiClient
from engine_api.protocol import Deadline
from engine_api.types import EngineApiError, ErrorCode
from kernels.backend import KNOWN_KEYS
from kernels.ed25519_batch import BATCH_MIN
from kernels.processor import LANES
from runtime.logs import LogStream, open_log
from tests.engine.homes import Maker
from tests.engine_api.toy import Block

BASE: dict[str, str | int | None] = {
    "http_address": "127.0.0.1:0",
    "free_bytes_min": 0,
    "threads": 2,
    "log_level": "debug",
}
Act = Callable[[dict[str, Any]], None]


class Life:
    """One run of a node in the main thread, while `act` does something from another one."""

    def __init__(self, folder: Path, **flags: str | int) -> None:
        """Make a home and a node."""
        self.maker = Maker()
        self.home = folder / "home"
        self._text = io.StringIO()
        Store.create(self.home, self.maker.genesis)
        config = load_config(self.home, environment={}, flags=BASE | flags)
        stream = LogStream(self._text)
        self.node = Node(self.home, config, open_log("debug", "json", stream), stream)

    def run(self, act: Act) -> bool:
        """Run until the node ends; `act` is called with the line `ready`."""
        thread = threading.Thread(target=self._act, args=(act,), name="actor")
        thread.start()
        try:
            return self.node.run()
        finally:
            thread.join()

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return the lines of the log, or those of one event."""
        lines = [json.loads(line) for line in self._text.getvalue().splitlines()]
        return [line for line in lines if not event or line["event"] == event]

    def client(self, ready: dict[str, Any], secret: bytes | None = None) -> EngineApiClient:
        """Return a client of the node."""
        most = self.maker.genesis.parameters.payload_bytes_max
        return EngineApiClient(ready["engine_api"], payload_bytes_max=most, secret=secret)

    def _act(self, act: Act) -> None:
        done = threading.Event()
        while not self.lines("ready"):
            done.wait(0.02)
        act(self.lines("ready")[0])


def end(number: signal.Signals = signal.SIGTERM) -> None:
    """Send this process a signal, as a supervisor would."""
    os.kill(os.getpid(), number)


def test_blocks_and_finalization_are_told(tmp_path: Path) -> None:
    """A block and its finalization are one line each; an INVALID one is a warning that is kept."""
    life = Life(tmp_path)
    block = life.maker.block(None, 1)
    wrong = bytearray(life.maker.block(None, 2).header)
    wrong[240] ^= 1

    def act(ready: dict[str, Any]) -> None:
        with life.client(ready) as client:
            client.new_payload(block.header, block.payload)
            client.new_payload(bytes(wrong), life.maker.block(None, 2).payload)
            client.forkchoice_updated(block.hash, block.hash, block.hash)
        end()

    assert life.run(act)
    (line,) = life.lines("block")
    assert (line["height"], line["hash"], line["level"]) == (1, block.hash.hex(), "info")
    (invalid,) = life.lines("BlockInvalid")
    assert invalid["level"] == "warning"
    assert Path(invalid["kept_in"]).is_dir()
    assert life.lines("finalized")[0]["height"] == 1
    assert [line["event"] for line in life.lines()][-2:] == ["stopping", "stopped"]


@pytest.mark.skipif(not LANES, reason="libsodium decodes keys by itself")
@pytest.mark.parametrize("known_keys", [KNOWN_KEYS, 0])
def test_senders_that_come_again_are_known(tmp_path: Path, known_keys: int) -> None:
    """The keys of the second block were those of the first; the setting says if they are kept."""
    life = Life(tmp_path, known_keys=known_keys)
    first = life.maker.block(None, 1, BATCH_MIN)
    second = life.maker.block(first, 2, BATCH_MIN)
    pages = []

    def act(ready: dict[str, Any]) -> None:
        with life.client(ready) as client:
            for block in (first, second):
                client.new_payload(block.header, block.payload)
        with urllib.request.urlopen(f"http://{ready['http']}/metrics", timeout=10) as answer:
            pages.append(answer.read().decode())
        end()

    assert life.run(act)
    known = BATCH_MIN if known_keys else 0
    (page,) = pages
    assert f"tos_signature_keys_known {known}.0" in page
    assert f"tos_signature_keys_decoded {2 * BATCH_MIN - known}.0" in page


def test_a_node_without_room_is_not_ready_and_says_so_once(tmp_path: Path) -> None:
    """A disk without room for a block is one line of the log, and why it is not serving."""
    life = Life(tmp_path, free_bytes_min=2**62)

    def act(ready: dict[str, Any]) -> None:
        while not life.lines("not serving"):
            threading.Event().wait(0.02)
        with life.client(ready) as client:
            assert client.health(Deadline.after_ms(5_000)).not_serving
        threading.Event().wait(2 * TICK_S)
        end()

    assert life.run(act)
    (line,) = life.lines("not serving")
    assert (line["level"], str(2**62) in line["why"]) == ("error", True)


def test_a_thread_that_dies_ends_the_node(tmp_path: Path) -> None:
    """An error that nobody caught stops the node with a failure, and the log has its traceback."""
    life = Life(tmp_path)

    def act(_: dict[str, Any]) -> None:
        raise RuntimeError("a bug")

    assert not life.run(act)
    (line,) = life.lines("a thread died")
    assert "RuntimeError: a bug" in line["exception"]
    assert "actor" in life.lines("stopping")[0]["reason"]


def test_a_store_that_fails_ends_the_node(tmp_path: Path) -> None:
    """A store that fails is told once, readiness has gone, and the node ends as failed."""
    life = Life(tmp_path)
    block: Block = life.maker.block(None, 1)

    def act(ready: dict[str, Any]) -> None:
        with life.client(ready) as client:
            client.new_payload(block.header, block.payload)
            for path in (life.home / "history").iterdir():
                path.unlink()
            (life.home / "history").rmdir()
            with pytest.raises(EngineApiError) as caught:
                client.forkchoice_updated(block.hash, block.hash, block.hash)
            assert caught.value.code in (ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE)

    assert not life.run(act)
    assert len(life.lines("Stopped")) == 1


def test_a_tcp_address_has_a_secret(tmp_path: Path) -> None:
    """At a TCP address the node makes a secret once; who does not know it is refused."""
    life = Life(tmp_path, engine_api_address="127.0.0.1:0")
    path = life.home / "run" / "engine.secret"

    def act(ready: dict[str, Any]) -> None:
        try:
            with life.client(ready, read_secret(path)) as client:
                assert client.get_status().genesis_hash == life.maker.hash
            for secret in (None, bytes(32)):
                with life.client(ready, secret) as client, pytest.raises(EngineApiError) as caught:
                    client.get_status()
                assert caught.value.code == ErrorCode.UNAUTHENTICATED
        finally:
            end(signal.SIGINT)

    assert life.run(act)
    assert life.lines("made a secret for callers of the Engine API")[0]["file"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_home_that_is_open_is_not_opened_twice(tmp_path: Path) -> None:
    """A node beside an open store does not start, and gives back what it had taken."""
    life = Life(tmp_path)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Store.open(life.home), pytest.raises(StoreError) as caught:
        life.node.run()
    assert caught.value.code == "store.locked"
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
