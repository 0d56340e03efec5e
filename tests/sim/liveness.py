"""What must go on happening once the network has healed: finality, catching up, few messages.

After `heal_ms` delays are at most delta, nothing is lost, honest nodes are up and their executors
within E_max. Then an honest node finalizes within (k + 2) T_adv, where k is the longest run of
views with bad leaders on the way and T_adv grows with the views that pass (E1). Time is granted
beside it for what healing itself needs: a retransmission, and for a laggard every block that it
lacks.
"""

from typing import TYPE_CHECKING

from consensus.core.types import FinalizedBlock
from tests.sim.arithmetic import Arithmetic
from tests.sim.scenario import RETRANSMIT_MS
from tests.sim.violation import LIVENESS, MESSAGES, Violation

if TYPE_CHECKING:
    from tests.sim.node import Node
    from tests.sim.world import World

GOAL_HEIGHTS = 12
"""after healing; a run ends when every honest live node has finalized so many more"""
MESSAGES_PER_VIEW_MAX = 14
"""times n^2, sent by honest nodes after healing"""
REPEATS_MAX = 6
"""times n^2, in each retransmission interval, of what was not answered (R1)"""
BEHIND_USUAL = 3
"""blocks that an executor lags behind the tip when nothing is wrong"""
FOLLOWER_POLLS = 24
"""of a node outside the set: it asks one peer per retransmission, and most may be Byzantine"""
BACKOFF_VIEWS = 4
BACKOFF_MAX = 2**10


class Liveness:
    """Watches one world from its healing on."""

    def __init__(self, world: "World", arithmetic: Arithmetic) -> None:
        """Nothing has happened."""
        self.world = world
        self.arithmetic = arithmetic
        self.top = (0, 0)
        """highest (epoch, view) that an honest node has voted in"""
        self.tip = 0
        """highest height that an honest node has finalized"""
        self.messages = 0
        self.views = 0
        self._final: dict[int, tuple[int, int]] = {}
        """host -> (epoch, view) of its last finalization by certificate"""
        self._height: dict[int, int] = {}
        self._since: dict[int, int] = {}
        """host -> ms since when it has waited for a finalization"""
        self._grace: dict[int, int] = {}
        self._healed_top = (0, 0)
        self._goal = 0

    # --- what is seen -------------------------------------------------------------------------

    def started(self, node: "Node") -> None:
        """Begin a life of a node."""
        self._final.setdefault(node.host, (0, 0))
        self._height.setdefault(node.host, 0)

    def is_final_at(self, node: "Node", epoch: int, view: int) -> bool:
        """Say whether a node has stored the finalization of this view, or the end of its epoch."""
        return (epoch, view) <= self._final[node.host] or epoch + 1 in node.store.boundaries

    def voted(self, epoch: int, view: int) -> None:
        """See an honest vote leave for the first time."""
        if (epoch, view) > self.top:
            self.top = (epoch, view)
            if self.world.is_healed:
                self.views += 1

    def sent(self, count: int) -> None:
        """Count messages of honest nodes after healing."""
        if self.world.is_healed:
            self.messages += count

    def healed(self) -> None:
        """Begin to wait for everybody."""
        self._healed_top = self.top
        self._goal = self.tip + GOAL_HEIGHTS
        grace_ms = self.allowance(self.behind()) + self._begun_ms()
        for node in self.world.live:
            self._since[node.host] = self.world.now_ms
            self._grace[node.host] = grace_ms

    def _begun_ms(self) -> int:
        """Return how long the timer of a view that was entered before healing may still run.

        It was armed with the backoff of a node that knew less of what was final (E1).
        """
        epoch, view = self.top
        finals = [at if of == epoch else 0 for of, at in self._final.values()]
        return self.t_adv_ms(max(0, view - min(finals, default=0)))

    def t_adv_ms(self, views: int) -> int:
        """Return T_adv when so many views have passed since a finalization."""
        scenario = self.world.scenario
        backoff: int = min(1 << views // BACKOFF_VIEWS, BACKOFF_MAX)
        wait_ms = 3 * scenario.delta_ms + 2 * scenario.execute_max_ms + scenario.transfer_max_ms
        return scenario.idle_interval_ms + wait_ms * backoff

    def behind(self) -> int:
        """Return how many blocks the last live node has not executed; a quorum may need it."""
        return self.tip - min(node.executor.finalized_height for node in self.world.live)

    def allowance(self, missing: int) -> int:
        """Return ms that healing itself may take a node which lacks `missing` blocks."""
        scenario = self.world.scenario
        each = scenario.execute_max_ms + scenario.transfer_max_ms + 2 * scenario.delta_ms
        return 3 * RETRANSMIT_MS + 4 * scenario.delta_ms + missing * each

    def finalized(self, node: "Node", block: FinalizedBlock) -> None:
        """See a block become final at a node."""
        host, now_ms = node.host, self.world.now_ms
        certificate = block.certificate
        if block.header.height <= self._height[host]:
            return
        self._height[host] = block.header.height
        self.tip = max(self.tip, block.header.height)
        if certificate is None:
            return
        at = (int(certificate.epoch), int(certificate.view))
        if self.world.is_healed and host in self._since:
            self._check_wait(node, at)
            self._since[host] = now_ms
            behind = self.behind()
            self._grace[host] = self.allowance(behind) if behind > BEHIND_USUAL else 0
        self._final[host] = max(self._final[host], at)
        if self.world.is_healed and self.world.scenario.heights_max == 0:
            self.world.is_done = all(
                self._height.get(n.host, 0) >= self._goal for n in self.world.live
            )
        elif self.world.scenario.heights_max:
            goal = self.world.scenario.heights_max
            self.world.is_done = all(self._height.get(n.host, 0) >= goal for n in self.world.live)

    # --- bounds -------------------------------------------------------------------------------

    def bound_ms(self, host: int, at: tuple[int, int]) -> int:
        """Return how long a node may wait for the finalization of view `at`."""
        last = self._final[host]
        first = last[1] + 1 if last[0] == at[0] else 1
        run = longest = 0
        for view in range(first, at[1] + 1):
            run = run + 1 if self.is_bad(at[0], view) else 0
            longest = max(longest, run)
        t_adv_ms = self.t_adv_ms(at[1] - first + 1)
        bound_ms = (longest + 2) * t_adv_ms + self._grace[host]
        if self.world.nodes[host].index not in self.world.scenario.powers(at[0]):
            bound_ms += FOLLOWER_POLLS * RETRANSMIT_MS
        return bound_ms

    def is_bad(self, epoch: int, view: int) -> bool:
        """Say whether a view's leader is Byzantine, down, or with a broken executor or journal."""
        length = self.world.scenario.heights_per_epoch
        boundary = (epoch - 1) * length
        final = self.world.checks.final
        if boundary >= len(final):
            return False
        node = self.arithmetic.leader(epoch, view, final[max(0, boundary)])
        return node in self.world.byzantine or node in self.world.lame

    def _check_wait(self, node: "Node", at: tuple[int, int]) -> None:
        waited_ms = self.world.now_ms - self._since[node.host]
        bound_ms = self.bound_ms(node.host, at)
        if waited_ms > bound_ms:
            raise Violation(
                LIVENESS, self.world.scenario.seed, self.world.now_ms,
                f"node {node.index} waited {waited_ms} ms for view {at}, bound {bound_ms} ms",
            )  # fmt: skip

    def ended(self) -> None:
        """Check that nobody is still waiting beyond the bound, and count messages."""
        world = self.world
        if not world.is_healed or not world.scenario.expects_live:
            return
        for node in world.live:
            waited_ms = world.now_ms - self._since[node.host]
            at = max(self.top, self._final[node.host])
            bound_ms = self.bound_ms(node.host, at)
            if waited_ms > bound_ms:
                raise Violation(
                    LIVENESS, world.scenario.seed, world.now_ms,
                    f"node {node.index} has waited {waited_ms} ms at height "
                    f"{self._height[node.host]} of {self.tip}, bound {bound_ms} ms",
                )  # fmt: skip
        count = max(len(world.scenario.sets_at(self.top[0])), 4)
        repeats = (world.now_ms - world.scenario.heal_ms) // RETRANSMIT_MS
        limit = MESSAGES_PER_VIEW_MAX * count * count * (self.views + 2)
        limit += REPEATS_MAX * count * count * repeats
        if self.messages > limit:
            raise Violation(
                MESSAGES, world.scenario.seed, world.now_ms,
                f"{self.messages} messages in {self.views} views of {count} validators",
            )  # fmt: skip
