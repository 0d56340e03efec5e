"""The processes of a network: started, stopped, killed and measured, each by its own number.

A validator is a consensus process and the executor that it supervises. Only what was started here
and its descendants are ever sent a signal; a number is believed only together with the time at
which its process began, since the system uses numbers again. What is started is tied to this
process, so that nothing goes on when this one is killed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.tied import tied_command

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT_VARIABLES = ("TOS_CACHE_DIR", "TOS_ED25519")
STOP_MAX_S = 30
GONE_MAX_S = 10
POLL_S = 0.02
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LOG_TAIL_BYTES = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One process, never another one with the same number."""

    pid: int
    started_ticks: int
    """since the machine's start"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process used until now."""

    parent: int
    started_ticks: int
    cpu_ms: int
    """of itself"""
    ended_ms: int
    """of its children that have ended"""
    resident_bytes: int


def surroundings() -> dict[str, str]:
    """Return the environment for what is started: ours without settings of a node."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith("TOS_") or k in KEPT_VARIABLES}
    return mine | {"PYTHONUNBUFFERED": "1"}


def sample(pid: int) -> Sample | None:
    """Return what /proc says of a process, None where it is none or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    own, ended = (sum(int(field) for field in fields[i : i + 2]) for i in (11, 13))
    return Sample(
        parent=int(fields[1]),
        started_ticks=int(fields[19]),
        cpu_ms=1_000 * own // TICKS_PER_S,
        ended_ms=1_000 * ended // TICKS_PER_S,
        resident_bytes=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
    )


def machine_cpu_ms() -> int:
    """Return for how long the cores of this machine were not idle, together, since its start."""
    fields = [int(item) for item in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle, waits = fields[3], fields[4]
    return 1_000 * (sum(fields) - idle - waits) // TICKS_PER_S


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process held, 0 where it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1_024
    return 0


def descendants(pid: int) -> list[int]:
    """Return the children of a process, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            found = sample(int(entry.name))
            if found is not None:
                children.setdefault(found.parent, []).append(int(entry.name))
    result, left = [], [pid]
    while left:
        mine = children.get(left.pop(), [])
        result += mine
        left += mine
    return result


def arguments_of(pid: int) -> list[str]:
    """Return the command line of a process; empty where it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    return []


class Process:
    """One command that is started again and again, in a session of its own, with one log."""

    def __init__(self, arguments: Sequence[str], log_path: Path) -> None:
        """Prepare `python ARGUMENTS`."""
        self._arguments = [sys.executable, *arguments]
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._family: set[Identity] = set()
        """descendants that were seen, so that they are found when their parent has gone"""

    @property
    def pid(self) -> int:
        """Number of the process that was started last."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Say whether it lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return how it ended; None while it lives."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it."""
        assert not self.is_running, "it runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                tied_command(self._arguments), cwd=REPOSITORY, env=surroundings(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def family(self) -> list[int]:
        """Return descendants that live, also those whose parent has gone."""
        if self.is_running:
            for pid in descendants(self.pid):
                found = sample(pid)
                if found is not None:
                    self._family.add(Identity(pid=pid, started_ticks=found.started_ticks))
        self._family = {item for item in self._family if is_alive(item)}
        return sorted(item.pid for item in self._family)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still lives."""
        if self.is_running:
            self.send_to(self.pid, number)

    def send_to(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to it or to one of its family."""
        assert pid == self.pid or pid in self.family(), "only what was started here"
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.kill(pid, number)

    def kill(self) -> None:
        """Kill it alone, as a power cut of one process; wait until it is gone."""
        self.family()
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def end_family(self, *, after_s: float) -> list[int]:
        """Kill descendants that still live some time after it has gone; return whom."""
        end_s = time.monotonic() + after_s
        while (left := self.family()) and time.monotonic() < end_s:
            time.sleep(POLL_S)
        for pid in left:
            self.send_to(pid, signal.SIGKILL)
        return left

    def stop(self) -> int | None:
        """End it with SIGTERM, and by force if it hangs; its exit code, None by force."""
        self.ask_to_stop()
        return self.wait_stopped()

    def ask_to_stop(self) -> None:
        """Send SIGTERM; `wait_stopped` follows."""
        self.family()
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)

    def wait_stopped(self) -> int | None:
        """Wait until it has ended, by force if it hangs; its exit code, None by force."""
        code: int | None = None
        if self._process is not None:
            try:
                code = self._process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self.end_family(after_s=0)
        return code

    def log_tail(self) -> str:
        """Return the end of the log."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as file:
            file.seek(max(0, self.log_path.stat().st_size - LOG_TAIL_BYTES))
            return file.read().decode(errors="replace")


class Validator(Process):
    """A consensus process with its executor."""

    def __init__(self, number: int, home: Path) -> None:
        """Prepare to run a home that exists."""
        super().__init__(
            ("-m", "consensus", "run", "--home", str(home)), home.with_name(f"{home.name}.log")
        )
        self.number = number
        self.home = home
        self.is_paused = False
        self.starts = 0

    def start(self) -> None:
        """Start it."""
        super().start()
        self.starts += 1
        self.is_paused = False

    def executor_pids(self) -> list[int]:
        """Return its executor, and what that started; empty while there is none."""
        return [pid for pid in self.family() if "engine" in arguments_of(pid)]

    def executor_pid(self) -> int | None:
        """Return the executor itself."""
        own = [pid for pid in self.executor_pids() if _parent(pid) == self.pid]
        return own[0] if own else None

    def kill(self) -> None:
        """Kill the consensus process and, should it not follow, what it supervised."""
        super().kill()
        self.is_paused = False
        self.end_family(after_s=GONE_MAX_S)

    def kill_executor(self) -> bool:
        """Kill the executor alone; False where there is none."""
        pid = self.executor_pid()
        if pid is not None:
            self.send_to(pid, signal.SIGKILL)
        return pid is not None

    def pause(self) -> None:
        """Let consensus and executor stand still."""
        self.is_paused = True
        for pid in [self.pid, *self.family()] if self.is_running else []:
            self.send_to(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self.is_paused = False
        for pid in [*self.family(), self.pid] if self.is_running else []:
            self.send_to(pid, signal.SIGCONT)

    def stop(self) -> int | None:
        """End it in peace."""
        self.resume()
        return super().stop()


def is_alive(item: Identity) -> bool:
    """Say whether this very process lives."""
    found = sample(item.pid)
    return found is not None and found.started_ticks == item.started_ticks


def _parent(pid: int) -> int | None:
    found = sample(pid)
    return None if found is None else found.parent


def disk_bytes(folder: Path) -> int:
    """Return the bytes that the files of a folder take on disk."""
    total = 0
    for path in _files(folder):
        with contextlib.suppress(FileNotFoundError):  # a file may be replaced meanwhile
            total += path.stat().st_blocks * 512
    return total


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            yield Path(root, name)
