"""The block tree above the finalized head, and the one state that moves through it.

Each executed block keeps its write set. To stand on another block the chain takes write sets back
up to the common ancestor and applies those of the other branch; the tree is hashed once for each.
The results of blocks that are off the followed branches may be dropped (`trim`); such a block stays
in the tree, and whoever wants to stand on it executes it again (`missing`, `revive`). One thread
owns a chain. Spec: spec/block.md; depth is bounded by the genesis parameter `unfinalized_max`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.state import State
from engine.transition import (
    BlockContext,
    Execution,
    IsVerified,
    Outcome,
    all_verified,
    execute_payload,
)


class ForkchoiceConflict(Exception):
    """A finalized block was named that is below or beside the one that is finalized here."""


class UnknownBlock(Exception):
    """A block was named that is not in the tree: send it and its missing ancestors first."""


class DepthExceeded(Exception):
    """A block would stand too far above the finalized one: finalize first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """A block that was executed: its place in the tree and the state that it led to."""

    block_hash: bytes
    parent_hash: bytes
    """empty for the block at which the chain was opened"""
    height: int
    timestamp_ms: int
    state_hash: bytes


class Chain:
    """Unfinalized blocks over a finalized one, and the state at `position`."""

    def __init__(
        self,
        state: State,
        *,
        block_hash: bytes,
        height: int,
        unfinalized_max: int,
        timestamp_ms: int = 0,
    ) -> None:
        """Open at a finalized block whose state is `state`."""
        root = Node(
            block_hash=block_hash,
            parent_hash=b"",
            height=height,
            timestamp_ms=timestamp_ms,
            state_hash=state.state_hash(),
        )
        self.state = state
        self.position = self.finalized = root
        self._nodes = {block_hash: root}
        self._outcomes: OrderedDict[bytes, Outcome] = OrderedDict()
        """by block hash, the least recently used first"""
        self._unfinalized_max = unfinalized_max

    def __len__(self) -> int:
        """Count the blocks of the tree, the finalized one included."""
        return len(self._nodes)

    def __contains__(self, block_hash: bytes) -> bool:
        """Say whether a block is in the tree."""
        return block_hash in self._nodes

    def get(self, block_hash: bytes) -> Node | None:
        """Return a block of the tree, or None."""
        return self._nodes.get(block_hash)

    def node(self, block_hash: bytes) -> Node:
        """Return a block of the tree; raises UnknownBlock."""
        node = self._nodes.get(block_hash)
        if node is None:
            raise UnknownBlock(
                f"block {block_hash.hex()} is not in the tree: send it after its ancestors"
            )
        return node

    def outcome(self, block_hash: bytes) -> Outcome:
        """Return what an unfinalized block came to; it must not be dropped (see `missing`)."""
        self._outcomes.move_to_end(block_hash)
        return self._outcomes[block_hash]

    def executed(self) -> list[Node]:
        """Return the unfinalized blocks whose results are kept, by height, then by hash."""
        nodes = [self._nodes[name] for name in self._outcomes]
        return sorted(nodes, key=lambda node: (node.height, node.block_hash))

    def descends(self, node: Node, ancestor: Node) -> bool:
        """Say whether a block of the tree is another one or stands above it."""
        while node.height > ancestor.height:
            node = self._nodes[node.parent_hash]
        return node is ancestor

    def check_depth(self, height: int) -> None:
        """Raise DepthExceeded if a block at this height stands too far above finalized."""
        depth = height - self.finalized.height
        if depth > self._unfinalized_max:
            raise DepthExceeded(
                f"{depth} blocks would stand above the finalized one, at most "
                f"{self._unfinalized_max} may: finalize first"
            )

    def execute(
        self,
        parent_hash: bytes,
        payload: bytes | memoryview,
        context: BlockContext,
        block_hash: Callable[[Outcome], bytes],
        is_verified: IsVerified | None = None,
        *,
        execution: Execution | None = None,
        timestamp_ms: int = 0,
    ) -> Node:
        """Execute a payload on a block of the tree and stand on the result.

        `block_hash` names the new block from its outcome (a builder makes its header there, a
        validator compares). Raises UnknownBlock, DepthExceeded and InvalidPayload; the tree is
        then what it was and the state stands on the parent.
        """
        parent = self.node(parent_hash)
        if context.height != parent.height + 1:
            raise ValueError(f"height {context.height} does not follow {parent.height}")
        self.check_depth(context.height)
        self.switch(parent_hash)
        outcome = execute_payload(
            self.state, payload, context, is_verified=is_verified, execution=execution
        )
        try:
            name = block_hash(outcome)
        except BaseException:
            self.state.undo([outcome.changes])
            raise
        if name in self._nodes:
            self.state.undo([outcome.changes])
            self.switch(name)
            return self.position
        return self._stand_on(name, parent, outcome, timestamp_ms)

    def adopt(
        self, parent_hash: bytes, outcome: Outcome, block_hash: bytes, timestamp_ms: int
    ) -> Node:
        """Stand on a new block whose outcome on its parent is known already."""
        parent = self.node(parent_hash)
        assert block_hash not in self._nodes, "a block is adopted once"
        self.check_depth(parent.height + 1)
        self.switch(parent_hash)
        self.state.redo([outcome.changes])
        assert self.state.state_hash() == outcome.state_hash, "an adopted block lost state"
        return self._stand_on(block_hash, parent, outcome, timestamp_ms)

    def missing(self, block_hash: bytes) -> list[Node]:
        """Return the blocks up to this one whose results were dropped, lowest first."""
        found, node = [], self.node(block_hash)
        while node is not self.finalized:
            if node.block_hash not in self._outcomes:
                found.append(node)
            node = self._nodes[node.parent_hash]
        return found[::-1]

    def revive(
        self,
        node: Node,
        payload: bytes | memoryview,
        context: BlockContext,
        execution: Execution | None = None,
    ) -> None:
        """Execute a block again whose results were dropped, and stand on it."""
        assert node.block_hash not in self._outcomes, "only dropped results are made again"
        self.switch(node.parent_hash)
        outcome = execute_payload(
            self.state, payload, context, is_verified=all_verified, execution=execution
        )
        assert outcome.state_hash == node.state_hash, "a block has one result"
        self._outcomes[node.block_hash] = outcome
        self.position = node

    def switch(self, block_hash: bytes) -> None:
        """Move the state to a block of the tree; nothing up to it may be missing."""
        target = self.node(block_hash)
        undo, redo = [], []
        here, there = self.position, target
        while here is not there:
            if here.height >= there.height:
                undo.append(self.outcome(here.block_hash).changes)
                here = self._nodes[here.parent_hash]
            else:
                redo.append(self.outcome(there.block_hash).changes)
                there = self._nodes[there.parent_hash]
        self.state.undo(undo)
        self.state.redo(redo[::-1])
        self.position = target
        if undo or redo:
            assert self.state.state_hash() == target.state_hash, "a switch lost state"

    def trim(self, keep: Iterable[bytes], executed_max: int) -> list[Node]:
        """Drop the least recently used results beyond `executed_max`; return whose they were.

        Those of the blocks in `keep`, of the position and of all their ancestors stay.
        """
        kept: set[bytes] = set()
        for name in (*keep, self.position.block_hash):
            node = self.node(name)
            while node is not self.finalized and node.block_hash not in kept:
                kept.add(node.block_hash)
                node = self._nodes[node.parent_hash]
        dropped = []
        for name in list(self._outcomes):
            if len(self._outcomes) <= executed_max:
                break
            if name not in kept:
                del self._outcomes[name]
                dropped.append(self._nodes[name])
        return dropped

    def to_finalize(self, block_hash: bytes) -> list[Node]:
        """Return the blocks that would become final, lowest first; nothing changes.

        Raises UnknownBlock, ForkchoiceConflict.
        """
        target = self.node(block_hash)
        final, node = [], target
        while node.height > self.finalized.height:
            final.append(node)
            node = self._nodes[node.parent_hash]
        if node is not self.finalized:
            raise ForkchoiceConflict(
                f"block {block_hash.hex()} does not descend from the finalized block "
                f"{self.finalized.block_hash.hex()} at height {self.finalized.height}"
            )
        return final[::-1]

    def finalize(self, block_hash: bytes) -> list[Node]:
        """Make a block irreversible; drop what does not descend from it.

        Returns the newly finalized blocks, lowest first. Raises UnknownBlock, ForkchoiceConflict.
        """
        final = self.to_finalize(block_hash)
        target = self.node(block_hash)
        if not self.descends(self.position, target):
            self.switch(block_hash)
        self._nodes = {n: item for n, item in self._nodes.items() if self.descends(item, target)}
        self.finalized = target
        for name in list(self._outcomes):
            if name not in self._nodes or name == block_hash:
                del self._outcomes[name]
        return final

    def replace_state(self, state: State) -> None:
        """Go on with another state of the same accounts, on another backend."""
        assert state.state_hash() == self.position.state_hash, "the same accounts"
        self.state = state

    def _stand_on(
        self, block_hash: bytes, parent: Node, outcome: Outcome, timestamp_ms: int
    ) -> Node:
        self.position = Node(
            block_hash=block_hash,
            parent_hash=parent.block_hash,
            height=parent.height + 1,
            timestamp_ms=timestamp_ms,
            state_hash=outcome.state_hash,
        )
        self._nodes[block_hash] = self.position
        self._outcomes[block_hash] = outcome
        return self.position
