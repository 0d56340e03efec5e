"""A real executor in a process of its own: started, asked, killed, and its log read."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine_api.client import EngineApiClient
from engine_api.protocol import Deadline
from engine_api.types import EngineApiError, ErrorCode

REPOSITORY = Path(__file__).resolve().parents[2]
START_MAX_S = 120
"""the first start of a machine compiles kernels"""
STOP_MAX_S = 30
"""far beyond what a node allows itself: who is not gone then hangs"""
POLL_S = 0.02
CALL_MS = 60_000
"""of a call that is not expected to be late"""
LOG_BYTES_MAX = 2**26
"""read of one log"""


class ProcessFailed(Exception):
    """A process that ended, or hung, where it should have served; its log says more."""


def command(*arguments: str) -> list[str]:
    """Return the command line of an executor."""
    return [sys.executable, "-m", "engine", *arguments]


def call(
    *arguments: str, environment: dict[str, str] | None = None, timeout_s: int = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command of the executor to its end."""
    return subprocess.run(
        command(*arguments), cwd=REPOSITORY, env=surroundings(environment), capture_output=True,
        text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


def surroundings(more: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process: ours without settings of a node, and what is given."""
    kept = ("TOS_CACHE_DIR", "TOS_ED25519")
    mine = {k: v for k, v in os.environ.items() if not k.startswith("TOS_") or k in kept}
    return mine | {"PYTHONUNBUFFERED": "1"} | (more or {})


class Executor:
    """A home and, from `start` to its end, the process that has it open."""

    def __init__(self, home: Path, *, payload_bytes_max: int, settings: Sequence[str] = ()) -> None:
        """Prepare to run a home that exists; `settings`: further flags of `run`."""
        self.home = home
        self.address = f"unix:{home}/run/engine.sock"
        self.log_path = home.with_name(f"{home.name}.log")
        self.starts = 0
        self._settings = settings
        self._payload_bytes_max = payload_bytes_max
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """Process id of the process that was started last."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Say whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start a process; `wait_ready` says when it serves."""
        assert not self.is_running, "one process per home"
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        # The default ports may be somebody else's.
        pages = ("--http-address", "127.0.0.1:0", "--query-address", "127.0.0.1:0")
        flags = ("--home", str(self.home), *pages, "--log-format", "json")
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command("run", *flags, *self._settings),
                cwd=REPOSITORY, env=surroundings(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        self.starts += 1

    def wait_ready(self) -> dict[str, Any]:
        """Return the log's line `ready`; raises ProcessFailed if the process ends or hangs."""
        assert self._process is not None, "not started"
        end_s = time.monotonic() + START_MAX_S
        while time.monotonic() < end_s:
            code = self._process.poll()
            found = [line for line in self.log() if line.get("event") == "ready"]
            if found:
                return found[-1]
            if code is not None:
                raise ProcessFailed(f"ended with {code} before it served:\n{self.log_text()}")
            time.sleep(POLL_S)
        raise ProcessFailed(f"does not serve after {START_MAX_S} s:\n{self.log_text()}")

    def client(self) -> EngineApiClient:
        """Return a client of the Engine API that is connected; the caller closes it.

        A client gives an attempt to connect few milliseconds, which is not enough where other
        processes want all cores: UNAVAILABLE asks to try again later, and this does.
        """
        client = EngineApiClient(self.address, payload_bytes_max=self._payload_bytes_max)
        end_s = time.monotonic() + START_MAX_S
        while True:
            try:
                client.get_status(Deadline.after_ms(CALL_MS))
            except EngineApiError as error:
                is_late = error.code == ErrorCode.UNAVAILABLE and time.monotonic() < end_s
                if not (is_late and self.is_running):
                    client.close()
                    raise
                time.sleep(POLL_S)
            else:
                return client

    def kill(self) -> None:
        """End the process as a power cut would, with what it started, and wait until it is gone."""
        assert self._process is not None, "not started"
        # Its session is its own, so this reaches exactly the process and its children.
        with contextlib.suppress(ProcessLookupError):  # it is gone already, with all of them
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask the process to end and return its exit code; raises ProcessFailed if it hangs."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)
        try:
            return self._process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise ProcessFailed(f"hangs after {number.name}:\n{self.log_text()}") from error

    def wait(self) -> int:
        """Return the exit code of a process that ends by itself."""
        assert self._process is not None, "not started"
        return self._process.wait(STOP_MAX_S)

    def log_text(self) -> str:
        """Return what the process that was started last wrote."""
        with self.log_path.open("rb") as file:
            file.seek(self._log_start)
            return file.read(LOG_BYTES_MAX).decode("utf-8", "replace")

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of its log; what is no JSON (a traceback) is a line of its own."""
        lines = []
        for text in self.log_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                lines.append({"event": "not a log line", "text": text})
        return lines

    def resident_bytes(self) -> int:
        """Return the memory that the process holds at this moment."""
        return _status_kib(self.pid, "VmRSS") * 1024

    def open_files(self) -> int:
        """Return how many files and sockets the process has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


def _status_kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ProcessFailed(f"process {pid} has no {name}")
