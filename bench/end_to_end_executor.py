"""The executor of `end_to_end.py`: a process with store, service and server, told what to do.

One JSON line of arguments comes in on standard input; `ready` goes out when it serves, and a JSON
line of what was measured when the input ends. Not for people: start `end_to_end.py`.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from engine.events import BlockExecuted, BlockInvalid, Event, Finalized, Stopped
from engine.opening import open_service
from engine.store.config import StoreConfig
from engine.store.store import Store
from engine_api.server import EngineApiServer
from engine_api.transport import UNIX

SWITCH_S = 0.0005
"""A thread that comes back from disk or kernel waits so long for the interpreter, not 5 ms."""
MARKED_AHEAD = 4
"""Blocks whose signatures are marked before they come: what the pool would have done."""


class Recorder:
    """Takes the service's events, and marks signatures of blocks to come."""

    def __init__(self, hashes: Any, per_block: int) -> None:
        """hashes: (blocks * per_block, 32) uint8 of all transactions, or None: nothing is known."""
        self.executed: list[BlockExecuted] = []
        self.finalized: list[Finalized] = []
        self.mark: Any = None
        self._hashes = hashes
        self._per_block = per_block
        self._marked = 0

    def mark_up_to(self, block_count: int) -> None:
        """Mark the signatures of the first blocks."""
        if self._hashes is not None and block_count > self._marked:
            rows = slice(self._marked * self._per_block, block_count * self._per_block)
            self.mark(np.ascontiguousarray(self._hashes[rows]))
            self._marked = block_count

    def take(self, event: Event) -> None:
        """Keep what is measured; anything that went wrong ends the process."""
        if isinstance(event, BlockExecuted):
            self.executed.append(event)
            self.mark_up_to(event.height + MARKED_AHEAD)
        elif isinstance(event, Finalized):
            self.finalized.append(event)
        elif isinstance(event, BlockInvalid | Stopped):
            sys.stderr.write(f"{event}\n")
            os._exit(1)


def tell_failure(method: str, error: Exception) -> None:
    """Say what the server could not answer."""
    sys.stderr.write(f"{method}: {error!r}\n")


def main(source: IO[str], target: IO[str]) -> int:
    """Serve until the input ends."""
    arguments = json.loads(source.readline())
    hashes = np.load(arguments["hashes"], mmap_mode="r") if arguments["hashes"] else None
    recorder = Recorder(hashes, arguments["per_block"])
    is_indexed = arguments["is_indexed"]
    config = StoreConfig(free_bytes_min=0, is_indexed=is_indexed)
    sys.setswitchinterval(SWITCH_S)
    store = Store.open(Path(arguments["home"]), config)
    service = open_service(store, threads=arguments["threads"], report=recorder.take)
    recorder.mark = service.mark_verified
    recorder.mark_up_to(MARKED_AHEAD)
    server = EngineApiServer(
        service,
        f"{UNIX}{arguments['socket']}",
        payload_bytes_max=service.payload_bytes_max,
        report=tell_failure,
    )
    with server:
        target.write("ready\n")
        target.flush()
        before, cpu_before = _written_bytes(), time.process_time_ns()
        source.read()
        after, cpu_after = _written_bytes(), time.process_time_ns()
    service.wait_indexed()
    use = store.disk_use()
    service.close()
    store.close()
    answer = {
        "written_bytes": after - before,
        "cpu_ns": cpu_after - cpu_before,
        "log_bytes": use.blocks + use.history,
        "index_bytes": use.indexes,
        "stages": [dict(event.stage_ns) for event in recorder.executed],
        "total_ns": [event.total_ns for event in recorder.executed],
        "finalize_ns": [event.total_ns for event in recorder.finalized],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    target.write(json.dumps(answer) + "\n")
    target.flush()
    return 0


def _written_bytes() -> int:
    """Return what this process and its children have caused to be written to the disk."""
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    raise OSError("/proc/self/io has no write_bytes")


if __name__ == "__main__":
    sys.exit(main(sys.stdin, sys.stdout))
