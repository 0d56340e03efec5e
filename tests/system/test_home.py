"""A validator as a process with its executor: started, killed in parts, brought back, refused.

A network of one finalizes alone, so that everything here is about one home and its processes.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consensus.client import ClientError, read_page, url_of
from consensus.home import Home
from runtime.command_line import ExitCode
from tests.campaign.process import REPOSITORY, surroundings

WAIT_S = 60
Start = Callable[..., "subprocess.Popen[bytes]"]


def free_base_port(members: int) -> int:
    """Return a port from which on ten per member are free at this moment."""
    for base in range(20_000, 60_000, 500):
        try:
            for port in range(base, base + 10 * members):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise AssertionError("this machine has no free ports")


def consensus(*arguments: str) -> list[str]:
    """Return a command line."""
    return [sys.executable, "-m", "consensus", *arguments]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Return the home of the only validator of a network."""
    out = tmp_path / "n"
    done = subprocess.run(
        consensus(
            "network", "new", "--validators", "1", "--out", str(out), "--accounts", "2",
            "--device", "cpu", "--base-port", str(free_base_port(1)), "--json",
            "--block-interval-ms", "100", "--idle-interval-ms", "100",
        ),
        cwd=REPOSITORY, env=surroundings(), capture_output=True, check=True, timeout=WAIT_S,
    )  # fmt: skip
    return Home(folder=Path(json.loads(done.stdout)["validators"][0]["home"]))


@pytest.fixture
def start(home: Home, tmp_path: Path) -> Iterator[Start]:
    """Return a way to start the node, or another command; what runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def one(*arguments: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                consensus(*(arguments or ("--home", str(home.folder)))),
                cwd=REPOSITORY,
                env=surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield one
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(home: Home, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the first status that is so; raises when there is none for long."""
    pause = threading.Event()
    last: object = None
    for _ in range(WAIT_S * 20):
        try:
            status: dict[str, Any] = read_page(url_of(home.folder), "/status")
        except ClientError as error:
            last = error
        else:
            last = status
            if is_so(status):
                return status
        pause.wait(0.05)
    raise AssertionError(f"it did not come to that: {last}")


def is_running(pid: int) -> bool:
    """Say whether a process runs; one that has ended and was not waited for does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    """Wait for the end of a process that is not ours."""
    pause = threading.Event()
    for _ in range(WAIT_S * 20):
        if not is_running(pid):
            return
        pause.wait(0.05)
    raise AssertionError(f"the process {pid} lives on")


def test_a_validator_survives_its_executor_and_itself(home: Home, start: Start) -> None:
    """Killed executor: another one, and blocks go on. Killed node: no executor is left; it returns
    with all that was final. SIGTERM: both end in order."""
    process = start()
    first = wait_for(home, lambda status: status["finalized"]["height"] >= 2)
    assert (first["role"], first["executor"]["restarts"]) == ("validator", 0)
    os.kill(first["executor_pid"], signal.SIGKILL)
    second = wait_for(
        home,
        lambda status: (
            status["executor"]["restarts"] == 1
            and status["finalized"]["height"] >= first["finalized"]["height"] + 2
        ),
    )
    assert second["pid"] == first["pid"] == process.pid
    assert second["executor"]["boot_id"] != first["executor"]["boot_id"]
    process.kill()
    process.wait()
    wait_until_gone(second["executor_pid"])
    process = start()
    goal = second["finalized"]["height"] + 2
    third = wait_for(
        home,
        lambda status: status["pid"] == process.pid and status["finalized"]["height"] >= goal,
    )
    header = read_page(url_of(home.folder), f"/headers/{second['finalized']['height']}")
    assert header["hash"] == second["finalized"]["hash"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == ExitCode.OK
    assert not is_running(third["executor_pid"])
    assert not home.http_address.exists()


def test_a_home_is_not_opened_twice(home: Home, start: Start) -> None:
    """The second process is refused and does no harm to the first."""
    start()
    wait_for(home, lambda status: status["finalized"]["height"] >= 1)
    second = start()
    assert second.wait(WAIT_S) == ExitCode.REFUSED
    height = read_page(url_of(home.folder), "/status")["finalized"]["height"]
    wait_for(home, lambda status: status["finalized"]["height"] > height)


def test_an_executor_that_cannot_start_is_explained(
    home: Home, start: Start, tmp_path: Path
) -> None:
    """The node refuses to start, with the executor's own words."""
    home.executor.joinpath("node.toml").write_text("keep_block = 1\n")
    assert start().wait(WAIT_S) == ExitCode.REFUSED
    said = (tmp_path / "log").read_text()
    assert "home.executor" in said
    assert "did you mean 'keep_blocks'" in said


def test_an_address_in_use_is_explained(home: Home, start: Start, tmp_path: Path) -> None:
    """The node refuses to start, names the address, and leaves no executor behind."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        process = start("--home", str(home.folder), "--listen-votes", address)
        assert process.wait(WAIT_S) == ExitCode.REFUSED
    said = (tmp_path / "log").read_text()
    assert address in said
    (line,) = (line for line in said.splitlines() if "started the executor" in line)
    assert not is_running(json.loads(line)["pid"])


def test_a_follower_comes_to_the_tip(home: Home, start: Start, tmp_path: Path) -> None:
    """It makes its own home of what the validator tells, executes every block, and votes never."""
    start()
    wait_for(home, lambda status: status["finalized"]["height"] >= 3)
    url = url_of(home.folder)
    follower = Home(folder=tmp_path / "f")
    process = start("follow", "--from", url, "--home", str(follower.folder))
    reached = wait_for(follower, lambda status: status["finalized"]["height"] >= 5)
    assert (reached["role"], reached["is_member"]) == ("follower", False)
    header = read_page(url, f"/headers/{reached['finalized']['height']}")
    assert header["hash"] == reached["finalized"]["hash"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_S) == ExitCode.OK
