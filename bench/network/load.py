"""The load of a network: `bench/load.py` in a process of its own, heard line by line."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.network.cluster import Cluster, Tool


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What is sent."""

    rate: int
    """transactions per second"""
    duration_s: int
    accounts: int
    batch: int
    seed: int
    is_open: bool = True
    connections: int = 1
    """per validator"""
    in_flight: int = 0
    """of a closed loop: transfers that may not be final yet; 0: any number"""


class Load:
    """A load generator that was started; any thread may look at it."""

    def __init__(self, cluster: Cluster, plan: LoadPlan, urls: Sequence[str]) -> None:
        """Start it; it signs its transfers first."""
        arguments = [
            *("bench/load.py", "--insist", "--live"),
            *("--rate", str(plan.rate), "--duration", str(plan.duration_s)),
            *("--accounts", str(plan.accounts), "--batch", str(plan.batch)),
            *("--seed", str(plan.seed), "--connections", str(plan.connections)),
            *("--in-flight", str(plan.in_flight)),
            *(["--open-loop"] if plan.is_open else []),
            *(part for url in urls for part in ("--url", url)),
        ]
        self._tool: Tool = cluster.tool(arguments, "load")
        self.started_ns: int | None = None
        self.progress: dict[str, Any] = {}
        self.is_sent = False
        self.report: dict[str, Any] | None = None
        self.notes: list[str] = []
        self._thread = threading.Thread(target=self._listen, name="load", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Say whether it has ended, well or not."""
        return not self._thread.is_alive()

    @property
    def pid(self) -> int:
        """Number of its process."""
        return self._tool.process.pid

    def failure(self) -> str:
        """Return its last words."""
        return self._tool.log_path.read_text()[-2_000:]

    def describe(self) -> str:
        """Return how far it is, in a few words."""
        if self.report is not None:
            return "load: all final"
        if self.is_sent:
            return "load: all sent"
        if not self.progress:
            return "load: being signed"
        second = self.progress["s"]
        return (
            f"offered {self.progress['offered'] // second:,}/s, "
            f"accepted {self.progress['accepted'] // second:,}/s"
        )

    def end(self) -> None:
        """End it where it is."""
        self._tool.end()

    def _listen(self) -> None:
        for line in self._tool.output:
            values = json.loads(line)
            event = values["event"]
            if event == "start":
                self.started_ns = int(values["monotonic_ns"])
            elif event == "progress":
                self.progress = values
            elif event == "sent":
                self.is_sent = True
            elif event == "stuck":
                self.notes.append(str(values["what"]))
            elif event == "report":
                self.report = values["report"]
