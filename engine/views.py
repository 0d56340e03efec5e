"""What readers see of the chain: accounts at head, safe or finalized, never half of a change.

The writer publishes a `Standing` after everything that it does: which blocks are followed, and how
the records as they stand differ from the state at each of them. A reader takes a standing, reads
records without any lock, puts the differences right, and then looks whether the records' generation
is still that of the standing; if not, it saw a change under way and reads again. Nothing is copied
but the 64 bytes that were asked for. Spec: spec/block.md#settlement, spec/state_hash.md#records.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.chain import Chain, Node
from engine.executor import Executor
from engine.genesis import params_hash
from engine.recent_blocks import RecentBlocks
from engine.state import State
from engine.transition import Outcome
from engine.types import AT, At
from engine_api.types import BlockId, StatusAnswer, Versions
from kernels.layout import NO_SLOT, U8, Changes


class Changing(Exception):
    """The records are changing at this moment: read again, soon."""


class Route(NamedTuple):
    """How the records, as they stand, lead to the state at another block."""

    undo: tuple[Changes, ...]
    """newest first"""
    redo: tuple[Changes, ...]
    """oldest first, on top of what is left"""


class AccountRead(NamedTuple):
    """An account at one block."""

    slot: int
    balance: int
    nonce: int
    at: Node


class Followed(NamedTuple):
    """An unfinalized block on the way to the head, with its results."""

    node: Node
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standing:
    """The chain between two pieces of the writer's work."""

    state: State
    generation: int
    """of the state, when this was published"""
    blocks: Mapping[At, Node]
    routes: Mapping[At, Route]
    followed: tuple[Followed, ...]
    """from above finalized up to the head, by height; results that were dropped are left out"""

    @classmethod
    def of(cls, executor: Executor) -> "Standing":
        """Return how things stand; for the writer's thread."""
        chain = executor.chain
        blocks: dict[At, Node] = {
            "finalized": chain.finalized,
            "safe": chain.get(executor.safe) or chain.finalized,
            "head": chain.get(executor.head) or chain.finalized,
        }
        kept = {node.block_hash for node in chain.executed()}
        followed = tuple(
            Followed(node, chain.outcome(node.block_hash))
            for node in _path(chain, blocks["head"])[::-1]
            if node.block_hash in kept
        )
        return cls(
            state=chain.state,
            generation=chain.state.generation,
            blocks=blocks,
            routes={at: _route(chain, kept, node) for at, node in blocks.items()},
            followed=followed,
        )


def _path(chain: Chain, node: Node) -> list[Node]:
    """Return the blocks from one of the tree down to finalized, which is left out."""
    path = []
    while node is not chain.finalized:
        path.append(node)
        node = chain.node(node.parent_hash)
    return path


def _route(chain: Chain, kept: set[bytes], target: Node) -> Route:
    """Return the way from the position to a block; its results are kept, as its ancestors' are."""
    here, there = _path(chain, chain.position), _path(chain, target)
    common = {node.block_hash for node in here} & {node.block_hash for node in there}
    undo = [node for node in here if node.block_hash not in common]
    redo = [node for node in there if node.block_hash not in common]
    assert all(node.block_hash in kept for node in undo + redo), "followed blocks keep results"
    return Route(
        tuple(chain.outcome(node.block_hash).changes for node in undo),
        tuple(chain.outcome(node.block_hash).changes for node in redo[::-1]),
    )


Listener = Callable[[Standing, Standing], None]
"""Is told (before, after) on the writer's thread when a followed block changes; returns at once."""


class Views:
    """The standing of the moment, for readers on any thread."""

    def __init__(self, executor: Executor, recent: RecentBlocks) -> None:
        """Publish where the executor stands. recent: the followed blocks, kept by the pool."""
        self.standing = Standing.of(executor)
        self.listeners: list[Listener] = []
        self._recent = recent

    def publish(self, executor: Executor) -> None:
        """Let readers see what a piece of the writer's work left; on the writer's thread."""
        before, after = self.standing, Standing.of(executor)
        self.standing = after
        if any(before.blocks[at].block_hash != after.blocks[at].block_hash for at in AT):
            for listener in self.listeners:
                listener(before, after)

    def read(self, key: bytes, at: At) -> AccountRead | None:
        """Return an account, None if there is none at that block. Raises Changing."""
        standing = self.standing
        state = standing.state
        try:
            found = _read(standing, key, at)
        except IndexError:
            # Records that are being taken away were looked at: the generation says so below.
            found = None
        if state.generation != standing.generation:
            raise Changing
        return found

    def find_followed(self, transaction_hash: bytes) -> tuple[Followed, int] | None:
        """Return the unfinalized, followed block that has a transaction, and its position."""
        for block in reversed(self.standing.followed):
            position = _find(block.outcome.transaction_hashes, transaction_hash)
            if position is not None:
                return block, position
        return None

    def find_recent(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """Return (height, position) of a transaction that became final a short while ago.

        Ask after `find_followed`: what becomes final between both questions is then found here.
        """
        found = self._recent.find(transaction_hash)
        if found is None or found.height > self.standing.blocks["finalized"].height:
            return None
        return found.height, found.position

    def recent_heights(self) -> set[int]:
        """Return the heights whose transactions `find_followed` and `find_recent` know."""
        return self._recent.heights()


def _find(hashes: U8, transaction_hash: bytes) -> int | None:
    """Return the row of a hash in (n, 32) uint8."""
    if not len(hashes):
        return None
    words = np.ascontiguousarray(hashes).view(np.uint64)
    wanted = np.frombuffer(transaction_hash, np.uint64)
    for row in np.flatnonzero(words[:, 0] == wanted[0]):
        if hashes[row].tobytes() == transaction_hash:
            return int(row)
    return None


def _read(standing: Standing, key: bytes, at: At) -> AccountRead | None:
    """Read an account while records may be changing."""
    accounts, route, node = standing.state.accounts, standing.routes[at], standing.blocks[at]
    row = np.frombuffer(key, np.uint8).reshape(1, -1)
    slot = int(accounts.lookup(row)[0])
    balance = nonce = 0
    count = route.undo[-1].count_before if route.undo else accounts.count
    if slot != NO_SLOT and slot < count:
        record = accounts.records[slot]
        balance, nonce = int(record[4]), int(record[5])
        for changes in route.undo:
            place = _place(changes, slot)
            if place is not None:
                balance = int(changes.balances_before[place])
                nonce = int(changes.nonces_before[place])
    else:
        slot = _created_slot(route, key)
        if slot == NO_SLOT:
            return None
    for changes in route.redo:
        place = _place(changes, slot)
        if place is not None:
            balance, nonce = int(changes.balances_after[place]), int(changes.nonces_after[place])
    return AccountRead(slot, balance, nonce, node)


def _place(changes: Changes, slot: int) -> int | None:
    """Return where a slot stands in a write set."""
    place = int(np.searchsorted(changes.slots, np.uint32(slot)))
    return place if place < len(changes.slots) and int(changes.slots[place]) == slot else None


def _created_slot(route: Route, key: bytes) -> int:
    """Return the slot that a redone block gives to a key, or NO_SLOT."""
    for changes in route.redo:
        position = _find(changes.created_keys, key)
        if position is not None:
            return changes.count_before + position
    return NO_SLOT


def status_answer(executor: Executor, boot_id: bytes, versions: Versions) -> StatusAnswer:
    """Return the status of a service; for the writer's thread."""
    final, head = executor.chain.finalized, executor.chain.node(executor.head)
    return StatusAnswer(
        boot_id=boot_id,
        genesis_hash=executor.store.genesis_hash,
        params_hash=params_hash(executor.genesis.parameters),
        finalized=BlockId(height=final.height, hash=final.block_hash),
        head=BlockId(height=head.height, hash=head.block_hash),
        unfinalized=tuple(
            BlockId(height=node.height, hash=node.block_hash) for node in executor.chain.executed()
        ),
        versions=versions,
    )
