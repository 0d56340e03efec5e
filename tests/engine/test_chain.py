"""Branches: switching reproduces each block's state, finalizing keeps one branch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.chain import Chain, DepthExceeded, ForkchoiceConflict, UnknownBlock
from engine.errors import InvalidPayload
from engine.transition import Outcome, all_verified
from kernels.backend import Backend, open_backend
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, accounts, context, key, open_state, oracle_result

ROOT = bytes(32)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Open the vectorised arm with two threads."""
    opened = open_backend("cpu", 2)
    yield opened
    opened.close()


def named(payload: bytes, parent: bytes, salt: int) -> Any:
    """Return a block hash as a header would give it, distinct per place in the tree."""
    return lambda outcome: oracle.plain_hash(parent + payload + bytes([salt]))


def random_payload(rng: np.random.Generator, made: list[Any], new: int) -> bytes:
    """Pay from random accounts to old and new ones, each sender's nonces in order."""
    nonces = {a.key: a.nonce for a in made}
    transactions = []
    for _ in range(int(rng.integers(0, 12))):
        sender = made[int(rng.integers(len(made)))]
        if sender.balance < 100:
            continue
        recipient = key(int(rng.integers(new)))
        amount = int(rng.integers(0, 30))
        nonce = nonces[sender.key]
        transactions.append(
            oracle.Transaction(CHAIN_ID, nonce, 99, amount, 1, sender.key, recipient)
        )
        nonces[sender.key] += 1
    return bytes(oracle.encode_payload(oracle.pack_lanes(transactions)))


def test_random_forks_and_switches(backend: Backend, rng: np.random.Generator) -> None:
    """200 blocks on random parents up to 8 deep: each switch gives the oracle's state_hash."""
    start = accounts([1000] * 5)
    known = {ROOT: (0, start)}
    chain = Chain(open_state(start, backend), block_hash=ROOT, height=0, unfinalized_max=8)
    for salt in range(200):
        candidates = [b for b in known if known[b][0] < chain.finalized.height + 8]
        parent = candidates[int(rng.integers(len(candidates)))]
        height, made = known[parent]
        payload = random_payload(rng, made, 60)
        expected, after = oracle_result(made, payload, height + 1)
        name = named(payload, parent, salt)
        node = chain.execute(parent, payload, context(height + 1), name, all_verified)
        assert isinstance(expected, tuple)
        assert node.state_hash == expected[3]
        known[node.block_hash] = (height + 1, after)
        target = list(known)[int(rng.integers(len(known)))]
        chain.switch(target)
        assert chain.state.state_hash() == oracle.state_hash(known[target][1])
        if salt % 10 == 9:
            final = chain.finalize(target)
            assert [item.height for item in final] == sorted(item.height for item in final)
            known = {b: item for b, item in known.items() if b in chain}
            assert target in known
            assert len(known) == len(chain)


def test_what_is_refused(backend: Backend) -> None:
    """Unknown parents, too great a depth, beside-finalized and invalid payloads change nothing."""
    start = accounts([1000])
    chain = Chain(open_state(start, backend), block_hash=ROOT, height=0, unfinalized_max=2)
    empty = oracle.encode_payload([])
    opening = chain.state.state_hash()

    def grow(parent: bytes, height: int, salt: int, payload: bytes = empty) -> Any:
        name = named(payload, parent, salt)
        return chain.execute(parent, payload, context(height), name, all_verified)

    first, beside = grow(ROOT, 1, 1), grow(ROOT, 1, 2)
    second = grow(first.block_hash, 2, 1)
    with pytest.raises(DepthExceeded):
        grow(second.block_hash, 3, 1)
    with pytest.raises(UnknownBlock):
        grow(b"?" * 32, 1, 1)
    with pytest.raises(InvalidPayload):
        grow(ROOT, 1, 3, b"")
    assert chain.state.state_hash() == opening
    assert [node.height for node in chain.finalize(first.block_hash)] == [1]
    with pytest.raises(UnknownBlock):
        chain.finalize(beside.block_hash)
    chain.finalize(second.block_hash)
    with pytest.raises((UnknownBlock, ForkchoiceConflict)):
        chain.finalize(first.block_hash)


def test_a_block_that_is_known_is_not_kept_twice(backend: Backend) -> None:
    """Executing the same block again stands on it and leaves the tree as it was."""

    def name(outcome: Outcome) -> bytes:
        return outcome.state_hash

    payload = oracle.encode_payload([[oracle.Transaction(CHAIN_ID, 0, 9, 7, 1, key(0), key(1))]])
    chain = Chain(
        open_state(accounts([1000]), backend), block_hash=ROOT, height=0, unfinalized_max=8
    )
    first = chain.execute(ROOT, payload, context(), name, all_verified)
    again = chain.execute(ROOT, payload, context(), name, all_verified)
    assert again is first
    assert len(chain) == 2


def test_the_state_stays_where_it_can(backend: Backend) -> None:
    """Results under the state are never dropped; finalizing below it does not move it down."""
    empty = oracle.encode_payload([])
    chain = Chain(
        open_state(accounts([1000]), backend), block_hash=ROOT, height=0, unfinalized_max=8
    )

    def grow(parent: bytes, height: int, salt: int) -> bytes:
        name = named(empty, parent, salt)
        return chain.execute(parent, empty, context(height), name, all_verified).block_hash

    first = grow(ROOT, 1, 1)
    second = grow(first, 2, 1)
    third = grow(second, 3, 1)
    beside = grow(ROOT, 1, 2)
    chain.switch(second)
    assert {node.block_hash for node in chain.trim((), 0)} == {third, beside}
    chain.finalize(first)
    assert chain.position.block_hash == second
    chain.switch(first)
