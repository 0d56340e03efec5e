"""What must hold of a network's chain: one chain, the right states, nothing signed twice or lost.

Homes are read after their processes have ended. The replay follows the network from its beginning
at the lowest priority and does the rest here.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.network.cluster import Cluster, Tool
from bench.network.replay import ORACLE_HEIGHTS_MAX
from consensus.core.types import FinalizedBlock, Hash32
from consensus.store import Store as OrderStore
from engine.header import Header
from engine.store.store import Store

NICE = 19
"""of the replays while the network runs: they take what is left of the cores"""
FOLLOW_BEHIND = 2
"""heights that the replay stays behind while the network runs"""
BLOCKS_AT_ONCE = 64
REPLAY_MAX_S = 600
Say = Callable[[str], None]


class _Replay:
    """One arm in a process; its answers are heard by a thread."""

    def __init__(self, cluster: Cluster, arm: str) -> None:
        addresses = [
            part for place in cluster.network.places for part in ("--engine", place.engine_address)
        ]
        arguments = [
            *("-m", "bench.network.replay", arm),
            *("--genesis", str(cluster.network.genesis), *addresses),
        ]
        self.tool: Tool = cluster.tool(arguments, f"replay-{arm}", nice=NICE)
        self.asked = 0
        self.done = 0
        self.result: dict[str, Any] | None = None
        self._is_idle = threading.Event()
        self._is_idle.set()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def follow(self, height: int) -> None:
        """Go on to a height, unless it is still busy with the order before."""
        if self._is_idle.is_set() and height > self.done and self._thread.is_alive():
            self._is_idle.clear()
            self.asked = height
            self.tool.tell({"final": height})

    def finish(self, home: Path, height: int) -> dict[str, Any]:
        """Go on to the end from a home, and return what it came to."""
        self._is_idle.wait(REPLAY_MAX_S)
        if self._thread.is_alive():
            self.tool.tell({"home": str(home), "final": height})
        self._thread.join(REPLAY_MAX_S)
        if self.result is None:
            words = self.tool.log_path.read_text()[-1_000:]
            return {
                "height": self.done,
                "transactions": 0,
                "signatures": 0,
                "difference": f"it ended with {self.tool.process.poll()}: {words}",
            }
        return self.result

    def _listen(self) -> None:
        for line in self.tool.output:
            values = json.loads(line)
            if "result" in values:
                self.result = values["result"]
            else:
                self.done = values["done"]
                self._is_idle.set()
        self._is_idle.set()


class Replays:
    """The serial arm and the oracle, beside a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        """Start both."""
        self._cluster = cluster
        self._serial = _Replay(cluster, "serial")
        self._oracle = _Replay(cluster, "oracle")

    def follow(self) -> None:
        """Let them go on to what is final now."""
        height = self._cluster.watch.highest - FOLLOW_BEHIND
        self._serial.follow(height)
        self._oracle.follow(min(height, ORACLE_HEIGHTS_MAX))

    def finish(self, home: Path, height: int, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
        """Go on to the end of the chain; returns what the serial arm and the oracle came to."""
        say(f"replaying heights {self._serial.done + 1} to {height}")
        oracle = self._oracle.finish(home, min(height, ORACLE_HEIGHTS_MAX))
        return self._serial.finish(home, height), oracle


@dataclass(slots=True, kw_only=True)
class Judgement:
    """What was found."""

    heights: list[int]
    """final height of each validator's home"""
    heights_compared: int = 0
    """at which two homes or more were compared"""
    headers: list[Header] = field(default_factory=list, repr=False)
    """of the longest chain, from height 1"""
    state_hash_equal: bool = True
    serial: dict[str, Any] | None = None
    oracle: dict[str, Any] | None = None
    double_votes: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    @property
    def replay_equal(self) -> bool | None:
        """Whether both arms gave the chain's results; None where there was no replay."""
        if self.serial is None or self.oracle is None:
            return None
        is_whole = self.serial["height"] == max(self.heights)
        return is_whole and not (self.serial["difference"] or self.oracle["difference"])


def judge(cluster: Cluster, replays: Replays | None, say: Say) -> Judgement:
    """Compare what is stored, replay it, and look for what nobody may do; all have ended."""
    places = cluster.network.places
    chains = [read_chain(place.executor_home) for place in places]
    found = Judgement(heights=[len(chain) for chain in chains])
    compare_chains(chains, found)
    longest = max(range(len(chains)), key=lambda number: len(chains[number]))
    found.headers = [Header.decode(data) for data in chains[longest]]
    _judge_orders(cluster, found)
    found.violations += cluster.watch.conflicts
    found.violations += cluster.unexpected
    found.double_votes = cluster.votes.double_votes()
    found.violations += [f"double vote: {text}" for text in found.double_votes]
    found.violations += [f"a journal is damaged: {text}" for text in cluster.votes.damaged]
    found.violations += [
        f"validator {number} ended with {code} when it was told to end"
        for number, code in cluster.exit_codes.items()
        if code != 0
    ]
    if replays is not None:
        home, height = places[longest].executor_home, len(chains[longest])
        found.serial, found.oracle = replays.finish(home, height, say)
        _judge_replays(found, height)
    return found


def _judge_orders(cluster: Cluster, found: Judgement) -> None:
    """Compare what consensus stored with what executors stored, and with what was reported."""
    genesis_name = bytes.fromhex(cluster.network.chain["genesis_hash"])
    final: dict[int, str] = {}
    for place in cluster.network.places:
        order = read_order(place.home / "store", genesis_name)
        compare_order(place.home.name, order, found)
        for block in order:
            final[block.header.height] = block.block_hash.hex()
            if block.certificate is not None:
                cluster.votes.add_certificate(block.certificate)
    for header in found.headers:
        final[header.height] = header.block_hash().hex()
    check_reported(final, cluster.watch.reported(), found)


def _judge_replays(found: Judgement, height: int) -> None:
    assert found.serial is not None
    assert found.oracle is not None
    for name, arm in (("serial arm", found.serial), ("oracle", found.oracle)):
        if arm["difference"]:
            found.violations.append(f"replay by the {name}: {arm['difference']}")
    if found.serial["height"] != height and not found.serial["difference"]:
        found.violations.append(f"the replay ended at height {found.serial['height']}")


def read_chain(home: Path) -> list[bytes]:
    """Return the headers of all final blocks of a home, from height 1."""
    headers: list[bytes] = []
    with Store.open(home) as store:
        last = store.finalized.height
        while len(headers) < last:
            first = len(headers) + 1
            blocks = store.blocks_at(first, min(BLOCKS_AT_ONCE, last - first + 1))
            assert blocks, f"{home}: height {first} is final and not there"
            headers += [block.header for block in blocks]
    return headers


def compare_chains(chains: Sequence[list[bytes]], found: Judgement) -> None:
    """Compare every header at every height that two homes have or more."""
    highest = max(len(chain) for chain in chains)
    for height in range(1, highest + 1):
        headers = [chain[height - 1] for chain in chains if len(chain) >= height]
        if len(headers) < 2:
            break
        found.heights_compared = height
        if len(set(headers)) > 1:
            found.state_hash_equal = False
            found.violations.append(f"height {height}: validators have different final blocks")
            break


def read_order(folder: Path, genesis_name: bytes) -> list[FinalizedBlock]:
    """Return the final blocks of a consensus store, ascending from height 1."""
    blocks: list[FinalizedBlock] = []
    if not folder.exists():
        return blocks
    store = OrderStore(folder, Hash32(genesis_name))
    try:
        while more := store.load(len(blocks) + 1, BLOCKS_AT_ONCE):
            blocks += more
    finally:
        store.close()
    return blocks


def compare_order(who: str, order: Sequence[FinalizedBlock], found: Judgement) -> None:
    """Compare what consensus made final with what executors executed; either may be ahead."""
    for block, header in zip(order, found.headers, strict=False):
        if bytes(block.block_hash) != bytes(header.block_hash()):
            found.violations.append(f"height {header.height}: {who} has another final block")
            found.state_hash_equal = False
            break


def check_reported(final: Mapping[int, str], reported: Mapping[int, str], found: Judgement) -> None:
    """Look whether everything that anybody called final still is; height -> hash."""
    for height, name in sorted(reported.items()):
        if height == 0:
            continue
        if height not in final:
            found.violations.append(f"height {height} was final and is lost")
            break
        if final[height] != name:
            found.state_hash_equal = False
            found.violations.append(f"height {height}: {name} was final, now it is another block")
            break
