"""A development chain in a process of its own, and a wallet's commands as a person types them."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli.main import main
from engine.client import Client
from spec import verify

START_MAX_S = 120


class Dev:
    """A running `dev`."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Start one with its keys in a folder, and wait for its first screen."""
        command = [sys.executable, "-m", "engine", "dev", "--json", "--accounts", "3"]
        command += ["--query-address", "127.0.0.1:0", "--keys", str(folder / "keys"), *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        limit = threading.Timer(START_MAX_S, self.process.kill)
        limit.start()
        lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        limit.cancel()
        self.screen: dict[str, Any] = json.loads("".join(lines))
        self.url: str = self.screen["url"]

    def stop(self) -> int:
        """End it as Ctrl-C would; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dev]:
    """Run a chain on demand, and point the wallet at it."""
    running = Dev(tmp_path, "--on-demand")
    monkeypatch.setenv("TOS_URL", running.url)
    monkeypatch.setenv("TOS_KEYS", str(tmp_path / "keys"))
    monkeypatch.setenv("TOS_PASSWORD", "secret")
    yield running
    running.stop()


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """Type a command with --json and return what it prints."""
    ended = main([*words, "--json"])
    printed = capsys.readouterr()
    assert ended == code, printed.err
    return json.loads(printed.out) if code == 0 else printed.err


def test_the_tour(dev: Dev, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """New key, receive, send, watch it become final, prove the balance without a node."""
    assert [item["name"] for item in dev.screen["accounts"]] == ["dev0", "dev1", "dev2"]
    alice = run(capsys, "key", "new", "--name", "alice")
    assert run(capsys, "balance", "alice")["balance"] == "0"
    words = ("send", "--from", "dev0", "--to", "alice", "--amount", "25", "--wait", "finalized")
    paid = run(capsys, *words)
    assert (paid["state"], paid["transaction"]["recipient"]) == ("finalized", alice["address"])
    assert run(capsys, "balance", "alice")["balance"] == str(25 * 10**9)
    sent = run(capsys, "send", "--from", "alice", "--to", dev.screen["accounts"][1]["address"],
               "--amount", "1.5")  # fmt: skip
    assert sent["state"] == "pending"
    with Client(dev.url) as client:
        client.wait(sent["hash"])
    found = run(capsys, "transaction", sent["hash"])
    assert found["receipt"]["status"] == "SUCCESS"
    file = tmp_path / "alice.proof.json"
    shown = run(capsys, "account", "alice", "--proof", str(file), "--history", "10")
    assert [item["hash"] for item in shown["history"]] == [sent["hash"], paid["hash"]]
    final = run(capsys, "block", "finalized")
    assert verify.main([str(file), "--block-hash", final["hash"]]) == 0
    assert f'"balance": {shown["balance"]}' in capsys.readouterr().out
    assert main(["account", "alice", "--history", "2"]) == 0
    assert "23.499999 TOS" in capsys.readouterr().out
    error = run(capsys, "send", "--from", "alice", "--to", "dev1", "--amount", "999", code=2)
    assert "code: transaction.insufficient_balance" in error


def test_what_was_sent_and_not_awaited_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 means that nothing was sent; a payment that is not final in time gives 1."""
    slow = Dev(tmp_path, "--block-ms", "3600000")
    monkeypatch.setenv("TOS_URL", slow.url)
    monkeypatch.setenv("TOS_KEYS", str(tmp_path / "keys"))
    try:
        words = ("send", "--from", "dev0", "--to", "dev1", "--amount", "1")
        error = run(capsys, *words, "--wait", "finalized", "--timeout-ms", "1", code=1)
        assert "sent " in error
        assert "code: client.not_final" in error
    finally:
        assert slow.stop() == 0


def test_a_chain_outlives_its_process(tmp_path: Path) -> None:
    """With --state the next process goes on from the same block, with the same balances."""
    state = tmp_path / "chain.state"
    options = ("--block-ms", "50", "--state", str(state))
    first = Dev(tmp_path, *options)
    with Client(first.url) as client:
        address = first.screen["accounts"][0]["address"]
        before = client.account(address)
        while client.status().finalized.height < 3:
            threading.Event().wait(0.05)
    assert first.stop() == 0
    second = Dev(tmp_path, *options)
    try:
        assert second.screen["genesis_hash"] == first.screen["genesis_hash"]
        assert second.screen["height"] >= 3
        with Client(second.url) as client:
            assert client.account(address).balance == before.balance
            assert client.block("3").is_final
    finally:
        assert second.stop() == 0
    assert state.is_file()


def test_load_is_counted_to_its_end(dev: Dev, tmp_path: Path) -> None:
    """Every transfer that is offered at a low rate is accepted, included and final, once."""
    figures = tmp_path / "load.json"
    command = [sys.executable, "bench/load.py", "--rate", "300", "--duration", "2", "--open-loop"]
    command += ["--accounts", "3", "--connections", "2", "--batch", "50", "--url", dev.url]
    done = subprocess.run(
        [*command, "--json", str(figures)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found["counts"].pop("sent_again") == 0
    assert set(found["counts"].values()) == {600}
    assert found["refused"] == {}
    for name in ("accepted", "finalized"):
        assert found["latency_us"][name]["p50"] <= found["latency_us"][name]["p100"]


def test_who_insists_loses_nothing(dev: Dev, tmp_path: Path) -> None:
    """What a node does not take goes to the next one; a closed loop keeps its bound; all final."""
    figures = tmp_path / "load.json"
    command = [sys.executable, "bench/load.py", "--rate", "2000", "--duration", "1", "--insist"]
    command += ["--accounts", "3", "--connections", "1", "--batch", "50", "--live"]
    command += ["--in-flight", "400", "--url", dev.url, "--url", "http://127.0.0.1:9"]
    done = subprocess.run(
        [*command, "--json", str(figures)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [item["event"] for item in events if item["event"] != "progress"] == [
        "start",
        "sent",
        "report",
    ]
    counts = json.loads(figures.read_text())["counts"]
    assert counts["finalized"] == counts["accepted"] == counts["offered"] == 2_000
    assert counts["sent_again"] > 0


@pytest.mark.parametrize("place", ["missing/chain.state", "/dev/zero", "text.state", "keys"])
def test_a_state_or_a_keystore_that_cannot_be_used_is_told_at_the_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    """No chain is begun that could not be kept, no file read without an end, no thread left."""
    (tmp_path / "text.state").write_text("no state")
    more = ["--state", str(tmp_path / place)]
    if place == "keys":
        more = ["--keys", "/proc/self/keys"]
    code = main(["dev", "--query-address", "127.0.0.1:0", *more])
    said = capfd.readouterr().err
    assert (code, "Traceback" in said) == (1 if place == "keys" else 2, False), said
    assert "code: " in said
    assert not any(thread.name == "finalizer" for thread in threading.enumerate())
