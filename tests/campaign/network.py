"""Kill validators, or their executors, at random instants under load, and look at all chains.

What must hold, whatever the instant: nobody ever signs two votes where the rules allow one (all
journals are read again and again, after each kill, too, and the others' evidence at the end);
what anybody called final stays final, in one chain, whose states a replay from genesis gives again;
with one of four away blocks go on, with two away they stand still, and after everybody is back they
go on and the one that was away catches up.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.network.cluster import Cluster
from bench.network.faults import Faults
from bench.network.homes import all_ports, check_ports, clear, make_network
from bench.network.judge import Replays, judge
from bench.network.load import Load, LoadPlan

VALIDATORS = 4
RATE = 300
BATCH = 100
ACCOUNTS = 400
TICK_S = 0.1
LOOK_S = 1.0
LIFE_S_MAX = 8.0
"""of a network whose members are all there, between two rounds"""
DOWN_S_MAX = 6.0
QUORUM_S = 90
"""in which a network with a quorum has made PROGRESS heights, however busy the machine is"""
PROGRESS = 3
STANDSTILL_S = 3.0
"""of two that are away: what was on its way has settled"""
ROUNDS = {"one": 45, "executor": 30, "two": 15, "all": 10}
"""Of what a round kills, in percent."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a campaign came to."""

    rounds: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROUNDS, 0))
    kills: int = 0
    """of consensus processes with their executors"""
    executor_kills: int = 0
    restarts: int = 0
    heights: int = 0
    transactions: int = 0
    votes_seen: int = 0
    catch_up_ms: list[int] = field(default_factory=list)
    """from a restart until the height at which the others stood then is final there"""
    double_votes: int = 0
    replayed_heights: int = 0
    violations: list[str] = field(default_factory=list)


class NetworkCampaign:
    """One network, and rounds of kills."""

    def __init__(self, folder: Path, seed: int, *, base_port: int, minutes: float) -> None:
        """Make the network in an empty folder; `minutes`: for how long the load is made."""
        self._rng = random.Random(seed)
        self._seed = seed
        check_ports(all_ports(VALIDATORS, base_port, with_relays=False))
        clear(folder)
        self._network = make_network(folder, VALIDATORS, accounts=ACCOUNTS, base_port=base_port)
        self._cluster = Cluster(self._network, Faults(), seed=seed, offsets_ms={})
        self._minutes = minutes
        self._next_look_s = 0.0
        self._replays: Replays | None = None
        self.tally = Tally()

    def run(self, *, rounds: int | None = None) -> Tally:
        """Kill so often, or for the minutes of the load; returns what it came to."""
        end_s = time.monotonic() + 60 * self._minutes
        with self._cluster as cluster:
            cluster.start(lambda text: None)
            self._replays = Replays(cluster)
            load = self._begin_load()
            while time.monotonic() < end_s and not self.tally.violations:
                if rounds is not None and sum(self.tally.rounds.values()) >= rounds:
                    break
                self._round()
            load.end()
            cluster.read_evidence()
            cluster.stop()
            judged = judge(cluster, self._replays, lambda text: None)
        tally = self.tally
        tally.violations += judged.violations
        tally.heights = max(judged.heights)
        tally.transactions = sum(header.transaction_count for header in judged.headers)
        tally.votes_seen = cluster.votes.votes_seen
        tally.double_votes = len(judged.double_votes)
        tally.replayed_heights = 0 if judged.serial is None else judged.serial["height"]
        return tally

    def _begin_load(self) -> Load:
        plan = LoadPlan(
            rate=RATE, duration_s=max(1, int(60 * self._minutes)), accounts=ACCOUNTS, batch=BATCH,
            seed=self._seed,
        )  # fmt: skip
        load = Load(self._cluster, plan, [place.query_url for place in self._network.places])
        if not self._wait(lambda: load.started_ns is not None or load.is_over, QUORUM_S):
            self.tally.violations.append("the load did not begin")
        if load.is_over:
            self.tally.violations.append(f"the load ended: {load.failure()}")
        return load

    def _round(self) -> None:
        """Let all live for a while, kill some at a random instant, and bring them back."""
        self._live(self._rng.random() * LIFE_S_MAX)
        kind = self._rng.choices(list(ROUNDS), list(ROUNDS.values()))[0]
        self.tally.rounds[kind] += 1
        if kind == "executor":
            self._kill_executor()
            return
        count = {"one": 1, "two": 2, "all": VALIDATORS}[kind]
        victims = self._rng.sample(range(VALIDATORS), count)
        for number in victims:
            self._cluster.kill(number)
            self.tally.kills += 1
        down_s = self._rng.random() * DOWN_S_MAX
        if kind == "one":
            self._expect_progress("one validator of four is away")
            self._live(down_s)
        elif kind == "two":
            self._expect_standstill(down_s)
        for number in victims:
            self._cluster.restart(number)
            self.tally.restarts += 1
        self._expect_catch_up(victims)

    def _kill_executor(self) -> None:
        number = self._rng.randrange(VALIDATORS)
        if self._cluster.validators[number].kill_executor():
            self.tally.executor_kills += 1
        self._expect_progress("an executor was killed")
        self._expect_catch_up([number])

    def _expect_progress(self, why: str) -> None:
        """Wait until blocks have become final after this moment."""
        wanted = self._cluster.watch.highest + PROGRESS
        if not self._wait(lambda: self._cluster.watch.highest >= wanted, QUORUM_S):
            self.tally.violations.append(
                f"no progress in {QUORUM_S} s though {why}: {self._where()}"
            )

    def _expect_standstill(self, for_s: float) -> None:
        """Without a quorum nothing becomes final."""
        self._live(STANDSTILL_S)
        before = self._cluster.watch.highest
        self._live(for_s)
        after = self._cluster.watch.highest
        if after > before:
            self.tally.violations.append(f"height {after} became final without a quorum")

    def _expect_catch_up(self, numbers: list[int]) -> None:
        """Wait until each is where the others were, and all go on."""
        watch, begin_s = self._cluster.watch, time.monotonic()
        wanted = watch.highest
        missing = set(numbers)

        def is_there() -> bool:
            for number in sorted(missing):
                if watch.executor_height(number) >= wanted and not watch.trouble(number):
                    missing.discard(number)
                    self.tally.catch_up_ms.append(round(1_000 * (time.monotonic() - begin_s)))
            return not missing

        if not self._wait(is_there, QUORUM_S):
            self.tally.violations.append(
                f"{sorted(missing)} did not catch up to height {wanted} in {QUORUM_S} s: "
                f"{self._where()}"
            )
            return
        self._expect_progress("all are back")

    def _where(self) -> str:
        watch = self._cluster.watch
        return ", ".join(
            f"{number}: {watch.height(number)} {watch.trouble(number)}"
            for number in range(VALIDATORS)
        )

    def _live(self, seconds: float) -> None:
        self._wait(lambda: False, seconds)

    def _wait(self, is_so: Callable[[], bool], seconds: float) -> bool:
        """Look after the network until something is so; False: it was not in so many seconds."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            if is_so():
                return True
            if time.monotonic() >= self._next_look_s:
                self._next_look_s = time.monotonic() + LOOK_S
                self._cluster.look()
                if self._replays is not None:
                    self._replays.follow()
            time.sleep(TICK_S)
        return is_so()
