"""A small scope, every schedule: four validators, one Byzantine, view after view.

What may happen in one view is a finite menu: what the Byzantine validator does, and which honest
nodes hear the proposal, the NOTARIZE votes and the FINALIZE votes in time (the others hear them
when the view is over). All menus are tried from every state that was reached, each depth to its
end before the next one begins; states that look the same are tried once. All checks of the
simulator are on.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from heapq import heappop
from typing import Any

from consensus.core.types import Certificate, Kind, Message, Propose, Vote
from tests.sim import events as sim
from tests.sim.keys import digest
from tests.sim.node import Node
from tests.sim.scenario import Links, Scenario
from tests.sim.violation import LIVENESS, Violation
from tests.sim.world import World

NODES = 4
BYZANTINE = 1
BEHAVIOURS = ("silent", "equivocate", "stale", "withhold")
HEAR_PROPOSAL = (0b1111, 0b0101, 0)
HEAR_NOTARIZE = (0b1111, 0b1001, 0)
HEAR_FINALIZE = (0b1111, 0b0001, 0)
VIEW_MS_MAX = 20_000
"""a view that takes longer is a deadlock"""
DEPTH_MAX = 12

Choice = tuple[int, int, int, int]
"""(behaviour, who hears the proposal, NOTARIZE, FINALIZE): the latter are bit sets of nodes"""

MENU: tuple[Choice, ...] = tuple(
    itertools.product(range(len(BEHAVIOURS)), HEAR_PROPOSAL, HEAR_NOTARIZE, HEAR_FINALIZE)
)


def scenario() -> Scenario:
    """Return four equal validators on links that lose nothing."""
    quiet = Links(loss_permille=0, duplicate_permille=0, delay_max_ms=1, transfer_ms=1)
    return Scenario(
        seed=0,
        nodes=NODES,
        sets=(tuple((node, 1) for node in range(NODES)),),
        heights_per_epoch=2,
        byzantine=(BYZANTINE,),
        strategies=("silent",),
        links=quiet,
        healed_links=quiet,
        faults=(),
        load="idle",
        execute_permille=(0,) * NODES,
        heal_ms=10**9,
        end_ms=10**9,
        expects_live=False,
        name="exhaustive",
    )


class SmallWorld(World):
    """A world whose links obey one choice per view."""

    def __init__(self, mutant: str | None) -> None:
        """Build the four nodes."""
        self.choice: Choice | None = None
        self.late: list[tuple[int, int, Message]] = []
        super().__init__(scenario(), mutant)

    def carry(self, sender: int, to: int, message: Message, host: int = -1) -> None:
        """Deliver at once what the choice lets through; keep the rest for the end of the view."""
        if self.choice is not None and not self._hears(to, message):
            self.late.append((sender, to, message))
        else:
            super().carry(sender, to, message, host)

    def _hears(self, to: int, message: Message) -> bool:
        assert self.choice is not None
        _, proposal, notarize, finalize = self.choice
        mask = -1
        if type(message) is Propose:
            mask = proposal
        elif type(message) is Vote or type(message) is Certificate:
            mask = {Kind.NOTARIZE: notarize, Kind.FINALIZE: finalize}.get(message.kind, -1)
        return bool(mask >> to & 1)

    def begin(self) -> None:
        """Start all nodes."""
        self._begin()

    def play(self, choice: Choice) -> None:
        """Run until every honest node has left the view that the first of them is in."""
        self.choice = choice
        behaviour = BEHAVIOURS[choice[0]]
        self.adversary.strategy[BYZANTINE] = behaviour
        self.adversary.rng = random.Random(choice[0])
        goal = max(self._place(node) for node in self.honest)
        begun_ms, is_over = self.now_ms, False
        patience_ms = 4 * self.scenario.idle_interval_ms
        while min(self._place(node) for node in self.honest) <= goal:
            at_ms, _, kind, host, boot, data = heappop(self._heap)
            self.now_ms = at_ms
            self.event_count += 1
            self._happen(kind, host, boot, data)
            if not is_over and at_ms - begun_ms > patience_ms:
                is_over, self.choice = True, None
                self._release()
            if at_ms - begun_ms > VIEW_MS_MAX:
                raise Violation(LIVENESS, 0, at_ms, f"nobody leaves view {goal}: {choice}")
        self.choice = None
        self._release()

    def _release(self) -> None:
        late, self.late = self.late, []
        for sender, to, message in late:
            super().carry(sender, to, message)

    def _place(self, node: Node) -> tuple[int, int]:
        assert node.replica is not None, "nobody is stopped here"
        return (node.replica.epoch, node.replica.view)

    def state(self) -> bytes:
        """Name the state: places, final blocks, votes and certificates, without hashes or times."""
        rows = [
            (self._place(node), self.checks.height_of[node.host], self.checks.known_views(node))
            for node in self.honest
        ]
        waiting = sorted(
            (self.now_ms < at_ms, kind, host, type(data[1]).__name__)
            for at_ms, _, kind, host, _, data in self._heap
            if kind == sim.DELIVER
        )
        return digest("state", repr((rows, self.checks.votes_in_order(), waiting)).encode())


def reach(path: tuple[Choice, ...], mutant: str | None) -> SmallWorld:
    """Return the world after a row of choices."""
    world = SmallWorld(mutant)
    world.begin()
    for choice in path:
        world.play(choice)
    return world


def run(
    minutes: float,
    *,
    mutant: str | None = None,
    depth_max: int = DEPTH_MAX,
    tell: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Deepen until time or depth is up; answers depth, states and runs. Raises Violation."""
    until_s = time.monotonic() + 60 * minutes
    frontier: list[tuple[Choice, ...]] = [()]
    seen: set[bytes] = set()
    done: dict[str, Any] = {"depth_complete": 0, "states": 0, "runs": 0, "levels": []}
    for depth in range(1, depth_max + 1):
        reached: list[tuple[Choice, ...]] = []
        is_whole, runs = True, 0
        for path in _paths(frontier):
            if time.monotonic() >= until_s:
                is_whole = False
                break
            world = reach(path, mutant)
            runs += 1
            state = world.state()
            if state not in seen:
                seen.add(state)
                reached.append(path)
        level = {"depth": depth, "runs": runs, "new_states": len(reached), "complete": is_whole}
        done["levels"].append(level)
        done["runs"] += runs
        done["states"] = len(seen)
        tell(f"depth {depth} runs {runs} new states {len(reached)} complete {is_whole}")
        if not is_whole:
            break
        done["depth_complete"] = depth
        frontier = reached
    tell(f"depth {done['depth_complete']} complete, {done['states']} distinct states")
    return done


def _paths(frontier: list[tuple[Choice, ...]]) -> Iterator[tuple[Choice, ...]]:
    for path in frontier:
        for choice in MENU:
            yield (*path, choice)
