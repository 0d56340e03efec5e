"""Accounts as the pool sees them: at the followed head, whatever block the records stand at.

For the writer's thread. Spec: spec/state_hash.md#records.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.chain import Chain, Node
from engine.pool_rules import AccountsRead
from kernels.backend import Accounts
from kernels.layout import NO_SLOT, U8, U32, U64, Changes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """Blocks between two of the tree, by the way from one to the other."""

    undone: Sequence[Node]
    """newest first"""
    done: Sequence[Node]
    """oldest first, on top of what is left"""


def route(chain: Chain, start: Node, target: Node) -> Route:
    """Return the way between two blocks of the tree."""
    undone, done = [], []
    while start is not target:
        if start.height >= target.height:
            undone.append(start)
            start = chain.node(start.parent_hash)
        else:
            done.append(target)
            target = chain.node(target.parent_hash)
    return Route(undone=undone, done=done[::-1])


def read_accounts(accounts: Accounts, keys: U8) -> AccountsRead:
    """Return the accounts of (n, 32) keys as the records stand."""
    slots = accounts.lookup(keys)
    exists = slots != NO_SLOT
    _, balances, nonces = accounts.read(np.where(exists, slots, np.uint32(0)))
    if not exists.all():
        balances[~exists] = 0
        nonces[~exists] = 0
    return AccountsRead(exists=exists, balances=balances, nonces=nonces)


def read_at(chain: Chain, target: Node, keys: U8) -> AccountsRead:
    """Return the accounts of (n, 32) keys at a block of the tree without moving the state.

    The results of the blocks between it and the position must be there.
    """
    if chain.position is target:
        return read_accounts(chain.state.accounts, keys)
    way = route(chain, chain.position, target)
    slots = chain.state.accounts.lookup(keys)
    exists = slots != NO_SLOT
    _, balances, nonces = chain.state.accounts.read(np.where(exists, slots, np.uint32(0)))
    for node in way.undone:
        changes = chain.outcome(node.block_hash).changes
        _put(slots, changes, changes.balances_before, changes.nonces_before, balances, nonces)
        exists &= slots < changes.count_before
    for node in way.done:
        changes = chain.outcome(node.block_hash).changes
        _enter_created(keys, exists, slots, changes)
        _put(slots, changes, changes.balances_after, changes.nonces_after, balances, nonces)
    balances[~exists] = 0
    nonces[~exists] = 0
    return AccountsRead(exists=exists, balances=balances, nonces=nonces)


def read_slots_below(chain: Chain, target: Node, slots: U32) -> tuple[U8, AccountsRead]:
    """Return keys, (n, 32) uint8, and accounts of (n,) slots at a block at or below the position.

    The slots are of accounts that exist there. Results as for `read_at`.
    """
    keys, balances, nonces = chain.state.accounts.read(slots)
    way = route(chain, chain.position, target)
    assert not way.done, "the state stands on the block or on a descendant of it"
    for node in way.undone:
        changes = chain.outcome(node.block_hash).changes
        _put(slots, changes, changes.balances_before, changes.nonces_before, balances, nonces)
    exists = np.ones(len(slots), np.bool_)
    return keys, AccountsRead(exists=exists, balances=balances, nonces=nonces)


def count_at(chain: Chain, target: Node) -> int:
    """Return how many accounts a block of the tree has; results as for `read_at`."""
    way = route(chain, chain.position, target)
    if way.done:
        return chain.outcome(way.done[-1].block_hash).changes.count_after
    if way.undone:
        return chain.outcome(way.undone[-1].block_hash).changes.count_before
    return chain.state.count


def _put(slots: U32, changes: Changes, new_balances: U64, new_nonces: U64,
         balances: U64, nonces: U64) -> None:  # fmt: skip
    """Give the rows whose slot a block changed its values."""
    places = np.searchsorted(changes.slots, slots)
    places[places == len(changes.slots)] = 0
    if len(changes.slots):
        is_changed = changes.slots[places] == slots
        balances[is_changed] = new_balances[places[is_changed]]
        nonces[is_changed] = new_nonces[places[is_changed]]


def _enter_created(keys: U8, exists: NDArray[np.bool_], slots: U32, changes: Changes) -> None:
    """Let keys exist whose account a block creates."""
    rows = np.flatnonzero(~exists)
    if not len(rows) or not len(changes.created_keys):
        return
    wide = np.dtype((np.void, 32))
    created = np.ascontiguousarray(changes.created_keys).view(wide).reshape(-1)
    wanted = np.ascontiguousarray(keys[rows]).view(wide).reshape(-1)
    order = np.argsort(created)
    places = np.searchsorted(created, wanted, sorter=order)
    places[places == len(created)] = 0
    is_found = created[order[places]] == wanted
    found = rows[is_found]
    exists[found] = True
    slots[found] = (changes.count_before + order[places[is_found]]).astype(np.uint32)
