"""Keeps one child process alive: the executor of a node, started, watched, restarted, ended.

What it writes goes to a file of bounded size. When it ends it is started again, sooner the longer
it had lived; that it lives and does nothing is for others to notice (`executor_watch.py`), who have
it ended. It does not outlive this process, however this one ends (`runtime/tied.py`); and
nothing is ended here that was not started here.
"""

import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from consensus.waiting import SystemClock, seconds
from runtime.logs import Logger
from runtime.tied import tied_command

LOG_BYTES_MAX = 2**24
"""of the log; then it becomes the old one, of which there is one"""
READ_BYTES = 2**16
WORDS_BYTES_MAX = 2_000
"""of what a process wrote last"""
READS_MAX = 1_024
"""of what a process that has ended had still written"""
TICK_MS = 100
BACKOFF_MIN_MS = 200
BACKOFF_MAX_MS = 5_000
LONG_LIFE_MS = 10_000
"""after such a life the next start does not wait long"""
STOP_MAX_MS = 8_000
"""from SIGTERM to SIGKILL; the executor cuts itself off earlier"""


class BoundedLog:
    """Appends to a file; at a size it is renamed, and the one renamed before is forgotten."""

    def __init__(self, path: Path, bytes_max: int = LOG_BYTES_MAX) -> None:
        """Append to a file, which need not exist."""
        self.lost_bytes = 0
        """that the disk did not take"""
        self.path = path
        self._bytes_max = bytes_max

    def write(self, data: bytes) -> None:
        """Append; what the disk does not take is counted."""
        try:
            if self.path.exists() and self.path.stat().st_size + len(data) > self._bytes_max:
                self.path.replace(self.path.with_name(f"{self.path.name}.old"))
            with self.path.open("ab") as file:
                file.write(data)
        except OSError:
            self.lost_bytes += len(data)


class Supervisor:
    """One child process and the thread that watches it, from `start` to `stop`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        log: Logger,
        stop_max_ms: int = STOP_MAX_MS,
    ) -> None:
        """Prepare; `command` begins with the path of a program."""
        self.starts = 0
        self.last_code: int | None = None
        """exit code of the life before; negative: the signal that ended it; None: it never began"""
        self.last_words = ""
        """the end of what it wrote in that life"""
        self.output = BoundedLog(log_path)
        self._words = b""
        self._command = tied_command(command)
        self._environment = dict(environment)
        self._log = log
        self._clock = SystemClock()
        self._stop_max_ms = stop_max_ms
        self._process: subprocess.Popen[bytes] | None = None
        self._condemned = 0
        """the life that somebody has ended"""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor")

    @property
    def pid(self) -> int | None:
        """Id of the process that runs; None between two lives."""
        process = self._process
        return None if process is None else process.pid

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return max(0, self.starts - 1)

    @property
    def life(self) -> int | None:
        """Number of the life that runs, from 1; None between two."""
        return None if self._process is None else self.starts

    def start(self) -> None:
        """Start the process and watch it."""
        self._thread.start()

    def stop(self) -> None:
        """End the process, by force if it takes too long, and wait until it is gone."""
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def end_life(self, life: int) -> bool:
        """End a life as `stop` does, so that the next one begins; False: it is over already.

        From any thread; returns at once.
        """
        if self.life != life:
            return False
        self._condemned = life
        return True

    def _run(self) -> None:
        wait_ms = BACKOFF_MIN_MS
        while not self._is_over.is_set():
            began_ms = self._clock.now_ms()
            code = self._live()
            if self._is_over.is_set():
                return
            self.last_words = self._words.decode("utf-8", "replace")
            self.last_code, self._words = code, b""
            lived_ms = self._clock.now_ms() - began_ms
            wait_ms = BACKOFF_MIN_MS if lived_ms >= LONG_LIFE_MS else wait_ms
            self._log.warning(
                "the executor ended", code=code, lived_ms=lived_ms, starts_again_in_ms=wait_ms
            )
            self._is_over.wait(seconds(wait_ms))
            wait_ms = min(2 * wait_ms, BACKOFF_MAX_MS)

    def _live(self) -> int | None:
        """Start the process, and return its exit code when it has ended; None: it never began."""
        self.starts += 1
        try:
            process = self._spawn()
        except OSError as error:  # no memory, no descriptor, no process more: that may pass
            self._words = str(error).encode()
            self._log.error("the executor cannot be started", why=str(error), start=self.starts)
            return None
        with process:
            self._process = process
            self._log.info("started the executor", pid=process.pid, start=self.starts)
            assert process.stdout is not None
            output = process.stdout.fileno()
            os.set_blocking(output, False)
            code = self._watch(process, output)
            self._process = None
            return code

    def _spawn(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            # A terminal's Ctrl-C is for this process, which then ends the other one in order.
            start_new_session=True,
        )

    def _watch(self, process: "subprocess.Popen[bytes]", output: int) -> int:
        """Keep what it writes until it has ended; end it when this supervisor is told to."""
        kill_at_ms: int | None = None
        is_open = True
        # Not `select`, which takes no descriptor from 1024 on: a node has many connections.
        readable = select.poll()
        readable.register(output, select.POLLIN)
        while (code := process.poll()) is None:
            if is_open:
                is_open = not readable.poll(TICK_MS) or self._keep(output, 1)
            else:
                self._is_over.wait(seconds(TICK_MS))
            is_to_end = self._is_over.is_set() or self._condemned == self.starts
            if is_to_end and kill_at_ms is None:
                process.terminate()
                kill_at_ms = self._clock.now_ms() + self._stop_max_ms
            elif kill_at_ms is not None and self._clock.now_ms() >= kill_at_ms:
                self._log.error("the executor does not end and is killed", pid=process.pid)
                process.send_signal(signal.SIGKILL)
                # What waits for a disk that stalls does not end at once even by this.
                kill_at_ms = self._clock.now_ms() + self._stop_max_ms
        # What it started may hold the other end open, so its end is not waited for.
        self._keep(output, READS_MAX)
        return code

    def _keep(self, output: int, reads: int) -> bool:
        """Move what was written to the log; returns False at its end."""
        for _ in range(reads):
            try:
                data = os.read(output, READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self.output.write(data)
            self._words = (self._words + data)[-WORDS_BYTES_MAX:]
        return True
