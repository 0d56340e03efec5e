"""A node's process while its executor starts: it waits, says so, and hears a signal."""

import io
import sys
import threading
from pathlib import Path

import pytest

from consensus import process
from consensus.chain_file import CHAIN_NAME
from consensus.config import load_config
from consensus.home import Home, describe_genesis
from consensus.process import NodeProcess
from engine.genesis_new import NETWORK, write_new_genesis
from runtime.command_line import ExitCode
from runtime.keypair import KeyPair
from runtime.logs import LogStream, open_log
from tests.consensus.local import wait_until

SLEEPS = (sys.executable, "-c", "import time; time.sleep(60)")


def test_waiting_for_an_executor_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first executor compiles for a minute: the log says where to look, and a signal ends it."""
    pair = KeyPair.of(bytes(32))
    members = [{"public_key": f"0x{pair.public_key.hex()}", "power": 1}]
    write_new_genesis(
        tmp_path / "genesis.json", chain_id=7, timestamp_ms=1, parameters=NETWORK,
        validators=members, schedule=[], accounts=1,
    )  # fmt: skip
    (tmp_path / CHAIN_NAME).write_bytes(describe_genesis(tmp_path / "genesis.json"))
    monkeypatch.setattr(process, "TELL_MS", 10)
    monkeypatch.setattr(process, "executor_command", lambda *_: SLEEPS)
    text = io.StringIO()
    stream = LogStream(text)
    config = load_config(tmp_path, environment={}, flags={})
    log = open_log("info", "json", stream)
    node = NodeProcess(Home(folder=tmp_path), config, pair, log, stream)

    def interrupt() -> None:
        wait_until("it is told", lambda: text.getvalue().count("waiting for the executor") > 1)
        node._lifetime.signal = "SIGTERM"

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert node.run() == ExitCode.OK
    thread.join()
    assert str(tmp_path / "run" / "executor.log") in text.getvalue()
    assert "stopped while starting" in text.getvalue()
