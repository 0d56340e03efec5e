"""What happens to a network, drawn from a seed: sets, faults, links, executors, adversaries.

Byzantine power and the power of nodes that stay down are together below one third of every set,
and as near to it as the weights allow in half of the seeds. All other faults end at `heal_ms`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

DELTA_MS = 100
EXECUTE_MAX_MS = 120
TRANSFER_MAX_MS = 150
BLOCK_INTERVAL_MS = 100
IDLE_INTERVAL_MS = 150
RETRANSMIT_MS = 300
DRIFT_MS = 500
UNFINALIZED_MAX = 8
PAYLOAD_BYTES_MAX = 128
EPOCHS_MAX = 64
"""Epochs with a set of their own; later epochs keep the last one."""

SIZES = (4, 4, 5, 7, 7, 10)
LARGE = 31
LARGE_PERCENT = 2

# A node of strategy `silent` (only in scenarios written by hand) does nothing.
STRATEGIES = ("equivocate", "stale", "withhold", "partial", "replay", "garbage", "twins", "mixed")
"""Of a Byzantine validator; `mixed` draws one anew for every view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that begins at `at_ms` and ends `for_ms` later."""

    at_ms: int
    for_ms: int
    kind: str
    """crash, power, partition, mute (nobody hears votes of a kind), clock (its wall clock jumps),
    hang, restart, slow, errors (calls of the executor fail); for ever: down, wrong, lose (the
    journal)"""
    nodes: tuple[int, ...]
    value: int = 0
    """slow: permille of EXECUTE_MAX_MS that a full payload takes; mute: the kind of vote;
    clock: ms; errors: permille of calls"""

    @property
    def is_for_ever(self) -> bool:
        """Say whether its nodes count as faulty to the end."""
        return self.kind in ("down", "wrong", "lose")

    @property
    def stops(self) -> bool:
        """Say whether it ends the process of its nodes."""
        return self.kind in ("crash", "power", "down")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """What the network does before it heals (after: delays of at most DELTA_MS, no loss)."""

    loss_permille: int
    duplicate_permille: int
    delay_max_ms: int
    transfer_ms: int
    """of a full payload; transfers are in proportion to bytes"""
    delay_min_ms: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One drawn world; everything else that is random comes from `seed` as well."""

    seed: int
    nodes: int
    """validators of all epochs; a node is its index among them"""
    sets: tuple[tuple[tuple[int, int], ...], ...]
    """per epoch (node, power); the last set stays"""
    heights_per_epoch: int
    byzantine: tuple[int, ...]
    strategies: tuple[str, ...]
    """one for each Byzantine node"""
    links: Links
    healed_links: Links
    faults: tuple[Fault, ...]
    load: str
    """idle, loaded or mixed"""
    execute_permille: tuple[int, ...]
    """per node: of EXECUTE_MAX_MS, what a full payload takes"""
    heal_ms: int
    end_ms: int
    delta_ms: int = DELTA_MS
    execute_max_ms: int = EXECUTE_MAX_MS
    transfer_max_ms: int = TRANSFER_MAX_MS
    block_interval_ms: int = BLOCK_INTERVAL_MS
    idle_interval_ms: int = IDLE_INTERVAL_MS
    heights_max: int = 0
    """stop when every honest node has finalized so many; 0: run to `end_ms`"""
    name: str = "seed"
    expects_live: bool = True
    is_crypto_real: bool = False
    counts_bytes: bool = False
    journal_cut_bytes: int = 65_536
    """a journal is cut when so much was appended to it (W4)"""

    def sets_at(self, epoch: int) -> tuple[tuple[int, int], ...]:
        """Return (node, power) of an epoch."""
        return self.sets[min(epoch, len(self.sets) - 1)]

    def powers(self, epoch: int) -> dict[int, int]:
        """Return node -> power in an epoch."""
        return dict(self.sets_at(epoch))


def sets_of(rng: random.Random, nodes: int, size: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Draw weights and the sets of epochs: the same for ever, or members that come and go."""
    shape = rng.choice(("equal", "weighted", "whale"))
    power = [1 if shape == "equal" else rng.randint(1, 100) for _ in range(nodes)]
    if rng.randrange(3) == 0:
        power = [p * 10**15 for p in power]
    members = list(range(size))
    epochs = EPOCHS_MAX if nodes > size or rng.randrange(3) == 0 else 1
    sets = []
    for _ in range(epochs):
        row = {node: power[node] for node in members}
        if shape == "whale":
            whale = min(members)
            rest = sum(p for node, p in row.items() if node != whale)
            row[whale] = max(1, rest * 3 // 7)
        sets.append(tuple(sorted(row.items())))
        if nodes > size and rng.randrange(2):
            outside = [node for node in range(nodes) if node not in members]
            for _ in range(rng.randint(1, max(1, size // 2))):
                if outside and len(members) > 1:
                    leaving = members.pop(rng.randrange(len(members)))
                    members.append(outside.pop(rng.randrange(len(outside))))
                    outside.append(leaving)
    return tuple(sets)


def faulty_subset(
    rng: random.Random,
    sets: tuple[tuple[tuple[int, int], ...], ...],
    nodes: int,
    already: tuple[int, ...] = (),
    *,
    greedy: bool,
) -> tuple[int, ...]:
    """Draw nodes that, with `already`, stay below one third of the power in every epoch."""
    chosen: list[int] = []
    order = list(range(nodes))
    rng.shuffle(order)
    rows = [dict(row) for row in sets]
    for node in order:
        if node in already or (not greedy and rng.randrange(3)):
            continue
        bad = {*chosen, *already, node}
        if all(3 * sum(p for n, p in row.items() if n in bad) < sum(row.values()) for row in rows):
            chosen.append(node)
    return tuple(sorted(chosen))


def draw(seed: int) -> Scenario:
    """Draw the scenario of a seed."""
    rng = random.Random(f"scenario {seed}")  # a string is hashed the same in every process
    size = LARGE if rng.randrange(100) < LARGE_PERCENT else rng.choice(SIZES)
    spare = rng.choice((0, 0, 1, 2, size // 2)) if size <= 10 else 0
    nodes = size + spare
    sets = sets_of(rng, nodes, size)
    byzantine = (
        faulty_subset(rng, sets, nodes, greedy=rng.randrange(6) > 0) if rng.randrange(8) else ()
    )
    heal_ms = rng.choice((3000, 6000, 12_000))
    if size == LARGE:
        heal_ms = 2000
    faults = draw_faults(rng, sets, nodes, byzantine, heal_ms)
    hostile = rng.randrange(4) > 0
    links = Links(
        loss_permille=rng.choice((0, 20, 100, 200, 400)) if hostile else 0,
        duplicate_permille=rng.choice((0, 10, 100)),
        delay_max_ms=rng.choice((20, DELTA_MS, DELTA_MS, 3 * DELTA_MS, 10 * DELTA_MS))
        if hostile
        else DELTA_MS,
        transfer_ms=rng.choice((20, TRANSFER_MAX_MS, 3 * TRANSFER_MAX_MS)) if hostile else 50,
    )
    healed = Links(
        loss_permille=0,
        duplicate_permille=rng.choice((0, 20)),
        delay_max_ms=rng.choice((20, DELTA_MS)),
        transfer_ms=rng.choice((20, TRANSFER_MAX_MS)),
    )
    return Scenario(
        seed=seed,
        nodes=nodes,
        sets=sets,
        heights_per_epoch=rng.choice((1, 2, 3, 5, 8, 20)),
        byzantine=byzantine,
        strategies=tuple(rng.choice(STRATEGIES) for _ in byzantine),
        links=links,
        healed_links=healed,
        faults=faults,
        load=rng.choice(("idle", "loaded", "mixed")),
        execute_permille=tuple(rng.choice((50, 200, 500, 950)) for _ in range(nodes)),
        heal_ms=heal_ms,
        journal_cut_bytes=rng.choice((1000, 8000, 65_536)),
        end_ms=heal_ms + 40_000,
    )


def draw_faults(
    rng: random.Random,
    sets: tuple[tuple[tuple[int, int], ...], ...],
    nodes: int,
    byzantine: tuple[int, ...],
    heal_ms: int,
) -> tuple[Fault, ...]:
    """Draw what goes wrong before `heal_ms`, and who stays down after it."""
    honest = [node for node in range(nodes) if node not in byzantine]
    faults: list[Fault] = []

    def add(kind: str, who: tuple[int, ...], longest_ms: int, value: int = 0) -> None:
        at_ms = rng.randrange(200, heal_ms - 100)
        for_ms = min(rng.randint(1, longest_ms), heal_ms - at_ms)
        faults.append(Fault(at_ms=at_ms, for_ms=for_ms, kind=kind, nodes=who, value=value))

    if rng.randrange(3) == 0:
        for _ in range(rng.randint(1, 12)):  # crash loops
            kind = rng.choice(("crash", "power"))
            add(kind, tuple(rng.sample(honest, rng.randint(1, max(1, len(honest) // 2)))), 600)
    for _ in range(sometimes(rng, 3)):
        add("power", tuple(honest), 400)  # all at once
    for _ in range(sometimes(rng, 3)):
        some = rng.sample(range(nodes), rng.randint(1, nodes - 1))
        add("partition", tuple(sorted(some)), heal_ms)
    local_faults(rng, add, honest, heal_ms)
    if rng.randrange(8) == 0:  # a laggard that joins when everything is over
        late = (rng.choice(honest),)
        faults.append(Fault(at_ms=0, for_ms=heal_ms, kind="crash", nodes=late))
    faults += lasting_faults(rng, sets, nodes, byzantine, heal_ms)
    return tuple(sorted(faults, key=lambda fault: fault.at_ms))


def local_faults(
    rng: random.Random, add: Callable[..., None], honest: list[int], heal_ms: int
) -> None:
    """Draw faults of executors, clocks and votes of one kind."""
    for _ in range(sometimes(rng, 4)):
        kind = rng.choice(("hang", "restart", "slow", "slow"))
        add(kind, (rng.choice(honest),), 2000, rng.choice((900, 1500, 3000)))
    for _ in range(sometimes(rng, 2)):
        add("mute", (), heal_ms, rng.randint(1, 3))
    for _ in range(sometimes(rng, 2)):
        add("errors", (rng.choice(honest),), heal_ms, rng.choice((100, 500)))
    for _ in range(sometimes(rng, 2)):
        add("clock", (rng.choice(honest),), 1000, rng.choice((-2000, -50, 50, 2000)))


def sometimes(rng: random.Random, most: int) -> int:
    """Draw 0 in two thirds of the cases, else 1 to `most`."""
    return rng.randint(1, most) if rng.randrange(3) == 0 else 0


def lasting_faults(
    rng: random.Random,
    sets: tuple[tuple[tuple[int, int], ...], ...],
    nodes: int,
    byzantine: tuple[int, ...],
    heal_ms: int,
) -> list[Fault]:
    """Draw who stays down, computes wrongly or has lost its journal: below a third, all told."""
    faults: list[Fault] = []
    if rng.randrange(3):
        return faults
    bad = faulty_subset(rng, sets, nodes, byzantine, greedy=True)
    for node in bad[: rng.randint(1, 3)]:
        kind = rng.choice(("down", "down", "wrong", "lose"))
        at_ms = 0 if kind == "wrong" else rng.randrange(heal_ms)
        faults.append(Fault(at_ms=at_ms, for_ms=0, kind=kind, nodes=(node,)))
    return faults
