"""The block tree above the finalized head, and the one state that moves through it.

Each executed block keeps its write set. To stand on another block the chain takes write sets back
up to the common ancestor and applies those of the other branch; the tree is hashed once for each.
One thread owns a chain. Spec: spec/block.md; depth is bounded by the genesis parameter
`unfinalized_max`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from engine.state import State
from engine.transition import BlockContext, IsVerified, Outcome, execute_payload


class ForkchoiceConflict(Exception):
    """A finalized block was named that is below or beside the one that is finalized here."""


class UnknownBlock(Exception):
    """A block was named that is not in the tree: send it and its missing ancestors first."""


class DepthExceeded(Exception):
    """A block would stand too far above the finalized one: finalize first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """An executed block: its place in the tree and what it changed."""

    block_hash: bytes
    parent_hash: bytes
    height: int
    outcome: Outcome | None
    """None for the block at which the chain was opened."""


class Chain:
    """Unfinalized blocks over a finalized one, and the state at `head`."""

    def __init__(
        self, state: State, *, block_hash: bytes, height: int, unfinalized_max: int
    ) -> None:
        """Open at a finalized block whose state is `state`."""
        root = Node(block_hash=block_hash, parent_hash=b"", height=height, outcome=None)
        self.state = state
        self.head = self.finalized = root
        self._nodes = {block_hash: root}
        self._unfinalized_max = unfinalized_max

    def __len__(self) -> int:
        """Count the blocks of the tree, the finalized one included."""
        return len(self._nodes)

    def __contains__(self, block_hash: bytes) -> bool:
        """Say whether a block is in the tree."""
        return block_hash in self._nodes

    def execute(
        self,
        parent_hash: bytes,
        payload: bytes | memoryview,
        context: BlockContext,
        block_hash: Callable[[Outcome], bytes],
        is_verified: IsVerified | None = None,
    ) -> Node:
        """Execute a payload on a block of the tree and stand on the result.

        `block_hash` names the new block from its outcome (a builder makes its header there, a
        validator compares). Raises UnknownBlock, DepthExceeded and InvalidPayload; the tree is
        then what it was and the state stands on the parent.
        """
        parent = self._node(parent_hash)
        if context.height != parent.height + 1:
            raise ValueError(f"height {context.height} does not follow {parent.height}")
        depth = context.height - self.finalized.height
        if depth > self._unfinalized_max:
            raise DepthExceeded(
                f"{depth} blocks would stand above the finalized one, at most "
                f"{self._unfinalized_max} may: finalize first"
            )
        self.switch(parent_hash)
        outcome = execute_payload(self.state, payload, context, is_verified=is_verified)
        try:
            name = block_hash(outcome)
        except BaseException:
            self.state.undo([outcome.changes])
            raise
        if name in self._nodes:
            self.state.undo([outcome.changes])
            self.switch(name)
            return self.head
        self.head = Node(
            block_hash=name, parent_hash=parent_hash, height=context.height, outcome=outcome
        )
        self._nodes[name] = self.head
        return self.head

    def switch(self, block_hash: bytes) -> None:
        """Move the state to a block of the tree."""
        target = self._node(block_hash)
        undo, redo = [], []
        here, there = self.head, target
        while here is not there:
            if here.height >= there.height:
                assert here.outcome is not None, "the finalized block is everybody's ancestor"
                undo.append(here.outcome.changes)
                here = self._nodes[here.parent_hash]
            else:
                assert there.outcome is not None, "the finalized block is everybody's ancestor"
                redo.append(there.outcome.changes)
                there = self._nodes[there.parent_hash]
        self.state.undo(undo)
        self.state.redo(redo[::-1])
        self.head = target
        if target.outcome is not None:
            assert self.state.state_hash() == target.outcome.state_hash, "a switch lost state"

    def finalize(self, block_hash: bytes) -> list[Node]:
        """Make a block irreversible; drop what does not descend from it.

        Returns the newly finalized blocks, lowest first. Raises UnknownBlock, ForkchoiceConflict.
        """
        target = self._node(block_hash)
        final, node = [], target
        while node.height > self.finalized.height:
            final.append(node)
            node = self._nodes[node.parent_hash]
        if node is not self.finalized:
            raise ForkchoiceConflict(
                f"block {block_hash.hex()} does not descend from the finalized block "
                f"{self.finalized.block_hash.hex()} at height {self.finalized.height}"
            )
        if not self._descends(self.head, target):
            self.switch(block_hash)
        self._nodes = {n: item for n, item in self._nodes.items() if self._descends(item, target)}
        self.finalized = target
        return final[::-1]

    def _descends(self, node: Node, ancestor: Node) -> bool:
        while node.height > ancestor.height:
            node = self._nodes[node.parent_hash]
        return node is ancestor

    def _node(self, block_hash: bytes) -> Node:
        node = self._nodes.get(block_hash)
        if node is None:
            raise UnknownBlock(
                f"block {block_hash.hex()} is not in the tree: send it after its ancestors"
            )
        return node
