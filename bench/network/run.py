"""One run of a network: made, started, loaded, disturbed, ended, replayed, judged.

The window is the time that figures are about: from the first transfer being due (or from all
validators taking part, without a load) for `duration_s`. Faults count from its beginning. Read
`judge.py` for what must hold of the chain afterwards and `cluster.py` for the processes.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.network import homes
from bench.network.cluster import Cluster
from bench.network.faults import Faults
from bench.network.homes import Network, NetworkError
from bench.network.judge import Judgement, Replays, judge
from bench.network.load import Load, LoadPlan
from bench.network.lone import Lone
from bench.network.processes import machine_cpu_ms, sample
from bench.network.table import Screen

TICK_S = 0.1
LOOK_S = 1.0
DRAW_S = 0.5
NS_PER_S = 1_000_000_000
LOAD_PREPARE_MAX_S = 180
"""for signing what is sent"""
LOAD_END_MAX_S = 90
"""after the window, in which what was sent becomes final"""
ACCOUNTS_SENDING_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is run."""

    folder: Path
    validators: int
    duration_s: int
    """of the window; 0: until somebody interrupts"""
    rate: int
    """transactions per second; 0: no load"""
    faults: Faults = field(default_factory=Faults)
    offsets_ms: dict[int, int] = field(default_factory=dict)
    accounts: int = 1_000
    batch: int = 500
    base_port: int = homes.BASE_PORT
    seed: int = 1
    is_open: bool = True
    connections: int = 1
    has_lone: bool = False
    """whether single transactions are timed"""
    in_flight: int = 0
    """of a closed loop: transfers that may not be final yet; 0: any number"""
    replays: bool = True
    follows: bool = True
    """whether the replay runs beside the network, and not only behind it"""
    network_flags: Sequence[str] = ()
    """for `network new`"""


@dataclass(slots=True, kw_only=True)
class Run:
    """What happened."""

    machine: dict[str, Any]
    """as it was before anything was started"""
    start_ns: int
    """of the window"""
    stop_ns: int
    cpu_ms: dict[int, dict[str, int]]
    """of the window, by validator and role"""
    load_cpu_ms: int
    """of the window, of the load generator"""
    machine_cpu_ms: int
    """of the window, of everything on this machine"""
    cluster: Cluster
    judgement: Judgement
    load: dict[str, Any] | None
    lone: dict[str, int] | None
    notes: list[str]
    violations: list[str]
    """what did not hold, but for the chain's own"""
    acts_done: list[str]


def prepare(options: Options) -> Network:
    """Make the network's folder; raises NetworkError."""
    flags = options.network_flags
    scheduled = "--schedule" in flags
    count = options.validators
    ports = homes.all_ports(count, options.base_port, with_relays=options.faults.needs_relays)
    homes.check_ports(ports)
    homes.clear(options.folder)
    network = homes.make_network(
        options.folder, count, accounts=options.accounts, base_port=options.base_port, flags=flags
    )
    if scheduled and len(network.places) > count:
        count = len(network.places)
        homes.check_ports(
            homes.all_ports(count, options.base_port, with_relays=options.faults.needs_relays)
        )
    return network


def run(options: Options, screen: Screen) -> Run:
    """Run a network from its making to its judgement; nothing that it started is left behind.

    KeyboardInterrupt ends the window, not the run. Raises NetworkError.
    """
    described = machine.describe(options.folder)
    network = prepare(options)
    screen.say(f"made {len(network.places)} homes in {options.folder}")
    with Cluster(
        network, options.faults, seed=options.seed, offsets_ms=options.offsets_ms
    ) as cluster:
        cluster.start(screen.say)
        replays = Replays(cluster) if options.replays else None
        window = _Window(options, cluster, replays, screen)
        with suppress(KeyboardInterrupt):  # it ends the window: the report follows
            window.live()
        window.end()
        screen.say("the window is over; ending the network")
        cluster.read_evidence()
        cluster.stop()
        judgement = judge(cluster, replays, screen.say)
        return Run(
            machine=described,
            start_ns=window.start_ns,
            stop_ns=window.stop_ns,
            cpu_ms=window.cpu_ms,
            load_cpu_ms=window.load_cpu_ms,
            machine_cpu_ms=window.machine_cpu_ms,
            cluster=cluster,
            judgement=judgement,
            load=None if window.load is None else window.load.report,
            lone=None if window.lone is None else window.lone.figures(),
            notes=window.notes,
            violations=window.violations,
            acts_done=window.acts_done,
        )


class _Window:
    """The time in which figures are taken."""

    def __init__(
        self, options: Options, cluster: Cluster, replays: Replays | None, screen: Screen
    ) -> None:
        self._options, self._cluster = options, cluster
        self._replays, self._screen = replays, screen
        self._acts = list(options.faults.acts)
        self._next_look_s = self._next_draw_s = 0.0
        self._cpu_at_start: dict[int, dict[str, int]] = {}
        self.cpu_ms: dict[int, dict[str, int]] = {}
        self.start_ns = self.stop_ns = 0
        self.load_cpu_ms = self.machine_cpu_ms = 0
        self._load_seen_ms = 0
        self.load: Load | None = None
        self.lone: Lone | None = None
        self.notes: list[str] = []
        self.violations: list[str] = []
        self.acts_done: list[str] = []

    def live(self) -> None:
        """Go through the window, and on until the load is final."""
        options = self._options
        if options.rate:
            self._begin_load()
        else:
            self._begin(time.monotonic_ns())
        if options.has_lone:
            self.lone = Lone(self._cluster.network, options.seed)
            self.lone.start()
        end_ns = self.start_ns + options.duration_s * NS_PER_S
        while not options.duration_s or time.monotonic_ns() < end_ns:
            self._tick()
        self._close()
        if self.lone is not None:
            self.lone.stop()
        limit_ns = time.monotonic_ns() + LOAD_END_MAX_S * NS_PER_S
        while self.load is not None and not self.load.is_over:
            self._tick()
            if time.monotonic_ns() >= limit_ns:
                self.notes.append(f"the load was not final {LOAD_END_MAX_S} s after the window")
                break

    def end(self) -> None:
        """Take down what is missing, after an interruption, too."""
        if not self.start_ns:
            self._begin(time.monotonic_ns())
        if not self.stop_ns:
            self._close()
        if self.lone is not None:
            self.lone.stop()
        if self.load is not None:
            self.notes += self.load.notes
            if self.load.report is None:
                # Who interrupts a run ends its load, too; one that ended by itself was none.
                texts = self.violations if self.load.is_over else self.notes
                texts.append(f"the load has no report: {self.load.failure()}")
            self.load.end()
        for act in self._acts:
            self.notes.append(f"not done before the end: {act}")
        for validator in self._cluster.validators:
            validator.resume()

    def _begin_load(self) -> None:
        options = self._options
        plan = LoadPlan(
            rate=options.rate,
            duration_s=options.duration_s or 3_600,
            accounts=min(options.accounts, ACCOUNTS_SENDING_MAX),
            batch=options.batch,
            seed=options.seed,
            is_open=options.is_open,
            connections=options.connections,
            in_flight=options.in_flight,
        )
        places = self._cluster.network.places[: options.validators]
        self.load = Load(self._cluster, plan, [place.query_url for place in places])
        limit_s = time.monotonic() + LOAD_PREPARE_MAX_S
        while self.load.started_ns is None:
            if self.load.is_over or time.monotonic() > limit_s:
                raise NetworkError(
                    "network.load",
                    what="the load did not begin",
                    where="bench/load.py",
                    why=self.load.failure(),
                    what_to_do="read what it says; a lower --rate signs less",
                )
            self._tick()
        self._begin(self.load.started_ns)

    def _begin(self, start_ns: int) -> None:
        self._cluster.look()
        self._cpu_at_start = self._cpu()
        self.load_cpu_ms, self.machine_cpu_ms = -self._load_cpu_ms(), -machine_cpu_ms()
        self.start_ns = start_ns

    def _close(self) -> None:
        self._cluster.look()
        now = self._cpu()
        self.cpu_ms = {
            number: {role: now[number][role] - before[role] for role in before}
            for number, before in self._cpu_at_start.items()
        }
        self.load_cpu_ms += self._load_cpu_ms()
        self.machine_cpu_ms += machine_cpu_ms()
        self.stop_ns = time.monotonic_ns()

    def _load_cpu_ms(self) -> int:
        """Return what the load has used; where it has ended, what it had at the last look."""
        found = None if self.load is None else sample(self.load.pid)
        if found is not None:
            self._load_seen_ms = found.cpu_ms + found.ended_ms
        return self._load_seen_ms

    def _cpu(self) -> dict[int, dict[str, int]]:
        return {number: dict(usage.cpu_ms) for number, usage in self._cluster.usage.items()}

    def _tick(self) -> None:
        """Do what is due, and wait a moment."""
        now_ns = time.monotonic_ns()
        since_ms = (now_ns - self.start_ns) // 1_000_000 if self.start_ns else -1
        while self._acts and self._acts[0].at_ms <= since_ms:
            act = self._acts.pop(0)
            self._screen.say(f"{since_ms / 1_000:.1f} s: {act}")
            self._cluster.act(act)
            self.acts_done.append(f"{since_ms} ms: {act}")
        now_s = time.monotonic()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_S
            self._cluster.look()
            self._load_cpu_ms()
            if self._replays is not None and self._options.follows:
                self._replays.follow()
        if now_s >= self._next_draw_s:
            self._next_draw_s = now_s + DRAW_S
            words = "" if self.load is None else self.load.describe()
            self._screen.draw(
                self._cluster.watch, self._cluster.validators, max(0, since_ms) // 1_000, now_ns,
                words,
            )  # fmt: skip
        time.sleep(TICK_S)
