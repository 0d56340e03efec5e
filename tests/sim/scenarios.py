"""Worlds written by hand: rotating epochs, a jailed validator, a joiner, a hundred validators."""

from collections.abc import Callable
from dataclasses import replace

from consensus.core.types import Certificate, Kind, Message, Propose, Vote
from tests.sim.scenario import EPOCHS_MAX, Fault, Links, Scenario
from tests.sim.world import World

GOOD = Links(loss_permille=0, duplicate_permille=0, delay_max_ms=40, transfer_ms=40)
Row = tuple[tuple[int, int], ...]


def equal(nodes: tuple[int, ...] | range) -> Row:
    """Return a set of equal powers."""
    return tuple((node, 1) for node in nodes)


def quiet(nodes: int, sets: tuple[Row, ...], **changes: object) -> Scenario:
    """Return a world in which nothing goes wrong, healed from the start, with some changes."""
    scenario = Scenario(
        seed=1,
        nodes=nodes,
        sets=sets,
        heights_per_epoch=20,
        byzantine=(),
        strategies=(),
        links=GOOD,
        healed_links=GOOD,
        faults=(),
        load="mixed",
        execute_permille=(300,) * nodes,
        heal_ms=1,
        end_ms=10**7,
    )
    return replace(scenario, **changes)  # type: ignore[arg-type] # names are checked by replace


def rotations(epochs: int = 20) -> Scenario:
    """Return epochs of two heights, each with half of the set of the one before replaced."""
    rows = tuple(
        equal(tuple(sorted((3 * epoch + at) % 13 for at in range(6))))
        for epoch in range(EPOCHS_MAX)
    )
    return quiet(
        13, rows, name="rotations", heights_per_epoch=2, heights_max=2 * (epochs + 1),
    )  # fmt: skip


def jailed() -> Scenario:
    """Return a set that loses a Byzantine member at a boundary; it goes on talking."""
    rows = (equal(range(5)), equal(range(5)), equal((0, 1, 2, 3)))
    return quiet(
        5, rows, name="jailed", heights_per_epoch=3, byzantine=(4,), strategies=("equivocate",),
        heights_max=15,
    )  # fmt: skip


def joiner() -> Scenario:
    """Return a node that starts late, catches up over epochs and is needed in the third one."""
    rows = (equal(range(4)), equal(range(4)), equal(range(4)), equal((0, 1, 4)))
    return quiet(
        5, rows, name="joiner", heights_per_epoch=4, heights_max=20, heal_ms=3000,
        faults=(Fault(at_ms=0, for_ms=3000, kind="crash", nodes=(4,)),),
    )  # fmt: skip


def replayed() -> Scenario:
    """Return a Byzantine third that repeats old epochs and another chain under present names."""
    return quiet(
        7, (equal(range(7)),), name="replayed", heights_per_epoch=2, byzantine=(1, 5),
        strategies=("replay", "replay"), heights_max=16,
    )  # fmt: skip


def down(nodes: int = 7) -> Scenario:
    """Return epochs of two heights with as many nodes down as a third allows."""
    lost = tuple(range((nodes - 1) // 3))
    return quiet(
        nodes, (equal(range(nodes)),), name="down", heights_per_epoch=2, heights_max=12,
        faults=(Fault(at_ms=0, for_ms=0, kind="down", nodes=lost),),
    )  # fmt: skip


def real() -> Scenario:
    """Return a world with Ed25519 and BLAKE3, a Byzantine validator and a power cut of all."""
    return quiet(
        4, (equal(range(4)),), name="real", heights_per_epoch=3, byzantine=(2,),
        strategies=("equivocate",), heights_max=10, is_crypto_real=True, heal_ms=2000,
        faults=(Fault(at_ms=900, for_ms=300, kind="power", nodes=(0, 1, 3)),),
    )  # fmt: skip


def hundred(heights: int = 1000) -> Scenario:
    """Return a hundred honest validators on an ordinary network."""
    return quiet(
        100, (equal(range(100)),), name="hundred", heights_per_epoch=100, heights_max=heights,
        load="idle", end_ms=10**9, counts_bytes=True,
    )  # fmt: skip


NAMED: dict[str, Callable[[], Scenario]] = {
    "rotations": rotations,
    "jailed": jailed,
    "joiner": joiner,
    "replayed": replayed,
    "down": down,
    "real": real,
    "hundred": hundred,
}


class BoundaryWorld(World):
    """A world in which no FINALIZE is heard in the first view that proposes a boundary block."""

    def __init__(self) -> None:
        """Begin with three heights per epoch."""
        self.muted_view: int | None = None
        self.reproposals = 0
        self._boundary: bytes | None = None
        super().__init__(
            quiet(4, (equal(range(4)),), name="boundary", heights_per_epoch=3, heights_max=8)
        )

    def carry(self, sender: int, to: int, message: Message, host: int = -1) -> None:
        """Lose what would finalize the boundary block in its first view."""
        if isinstance(message, Propose) and message.header.epoch == 0:
            is_boundary = message.header.height == self.scenario.heights_per_epoch
            if is_boundary and self.muted_view is None:
                self.muted_view = message.proposal.view
                self._boundary = message.proposal.block_hash
            elif message.proposal.block_hash == self._boundary:
                self.reproposals += message.proposal.view != self.muted_view
        if (
            isinstance(message, Vote | Certificate)
            and message.kind == Kind.FINALIZE
            and ((message.epoch, message.view) == (0, self.muted_view))
        ):
            return
        super().carry(sender, to, message, host)
