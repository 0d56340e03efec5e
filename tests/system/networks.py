"""A network of validators with their executors, as processes on loopback, for tests.

Homes are made by `network new`, processes are started in sessions of their own, and only what was
started here is ended here. What is asked of a node is asked over its pages, as a person would.
"""

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from consensus.core.journal import replay
from consensus.journal import read_journal
from tests.campaign.process import REPOSITORY, ProcessFailed, surroundings

WAIT_MAX_S = 120
"""of one wait; the first start on a machine compiles kernels"""
STOP_MAX_S = 40
"""far beyond what a node allows itself"""
POLL_S = 0.05
PORTS_PER_VALIDATOR = 10
JOINING_MAX = 2
"""validators that a schedule brings in later"""


def free_base_port(count: int, rng: random.Random) -> int:
    """Return a port from which on all that a network uses are free at this moment."""
    for _ in range(100):
        # Below 32,768: from there on the system takes ports for whoever connects.
        base = rng.randrange(12_000, 31_000, PORTS_PER_VALIDATOR)
        if all(_is_free(base + offset) for offset in range(PORTS_PER_VALIDATOR * count)):
            return base
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(slots=True, kw_only=True)
class Validator:
    """A home and, from `start` to its end, the process that runs it."""

    name: str
    home: Path
    url: str
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    settings: Sequence[str] = field(default_factory=tuple)

    @property
    def log_path(self) -> Path:
        """Return where its standard error goes."""
        return self.home.with_name(f"{self.home.name}.log")

    def start(self) -> None:
        """Start the process."""
        assert self.process is None or self.process.poll() is not None, "one process per home"
        command = [sys.executable, "-m", "consensus", "run", "--home", str(self.home)]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--log-format", "json", *self.settings],
                cwd=REPOSITORY, env=surroundings(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        self.starts += 1

    def kill(self) -> None:
        """End the process as a power cut would; its executor ends with it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def kill_executor(self) -> int:
        """End the executor alone in the same way; return its process id."""
        pid = self.status()["executor_pid"]
        assert isinstance(pid, int), pid
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> int:
        """Ask the process to end, and return its exit code."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired as error:
            raise ProcessFailed(f"{self.name} hangs:\n{self.log_text()}") from error

    def page(self, path: str) -> Any:
        """Return a page of the node, None while it serves none."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return json.loads(body) if answer.status == http.client.OK else None

    def status(self) -> dict[str, Any]:
        """Return the status; empty while there is none."""
        return self.page("/status") or {}

    @property
    def height(self) -> int:
        """Return the height that is final and durable there; 0 while nobody answers."""
        found = self.status().get("finalized", {}).get("height", 0)
        assert isinstance(found, int)
        return found

    def log_text(self) -> str:
        """Return the end of the log."""
        return self.log_path.read_text("utf-8", "replace")[-4_000:]

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of all its lives."""
        lines = self.log_path.read_text("utf-8", "replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Cluster:
    """All validators of one chain."""

    def __init__(
        self, folder: Path, count: int, rng: random.Random, flags: Sequence[str] = ()
    ) -> None:
        """Make genesis, keys and homes."""
        self.folder = folder / "net"
        made = subprocess.run(
            [sys.executable, "-m", "consensus", "network", "new",
             "--validators", str(count), "--out", str(self.folder), "--json",
             "--base-port", str(free_base_port(count + JOINING_MAX, rng)), *flags],
            cwd=REPOSITORY, env=surroundings(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        described = json.loads(self.folder.joinpath("network.json").read_text())
        self.queries: list[str] = []
        self.validators: list[Validator] = []
        for item in described["validators"]:
            self.validators.append(
                Validator(
                    name=item["name"], home=self.folder / item["name"], url=item["status_url"]
                )
            )
            self.queries.append(item["executor_url"])

    def start(self) -> None:
        """Start all that do not run."""
        for validator in self.validators:
            if validator.process is None or validator.process.poll() is not None:
                validator.start()

    def end(self) -> None:
        """End whatever still runs."""
        for validator in self.validators:
            if validator.process is not None and validator.process.poll() is None:
                validator.kill()

    def wait(
        self, what: str, is_so: Callable[[], bool], among: Sequence[Validator] | None = None
    ) -> None:
        """Wait for something; raises ProcessFailed with logs where it does not come."""
        watched = self.validators if among is None else among
        end_s = time.monotonic() + WAIT_MAX_S
        while not is_so():
            for validator in watched:
                if validator.process is not None and validator.process.poll() is not None:
                    raise ProcessFailed(f"{validator.name} ended:\n{validator.log_text()}")
            if time.monotonic() > end_s:
                logs = "\n".join(f"{one.name}: {one.log_text()[-800:]}" for one in watched)
                raise ProcessFailed(f"not within {WAIT_MAX_S} s: {what}\n{logs}")
            time.sleep(POLL_S)

    def reach(self, height: int, among: Sequence[Validator] | None = None) -> None:
        """Wait until some, or all, have a height."""
        watched = self.validators if among is None else among
        self.wait(f"height {height}", lambda: all(one.height >= height for one in watched), watched)

    def check_equal(self) -> int:
        """Compare every height that all have, hash and state_hash; return how many there are."""
        top = min(one.height for one in self.validators)
        for height in range(1, top + 1):
            pages = [one.page(f"/headers/{height}") for one in self.validators]
            assert all(page == pages[0] for page in pages), (height, pages)
        return top

    def check_honest(self) -> None:
        """No node has evidence against anybody, and no journal two votes of one kind and view."""
        for validator in self.validators:
            assert validator.page("/evidence") == {"evidence": []}, validator.name
            votes = replay(read_journal(validator.home / "journal").records).votes
            names = [(vote.kind, vote.epoch, vote.view) for vote in votes]
            assert len(names) == len(set(names)), validator.name
