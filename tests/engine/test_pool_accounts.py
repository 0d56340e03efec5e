"""Accounts read at any block of the tree are those of that block, wherever the state stands."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.chain import Chain
from engine.pool_accounts import count_at, read_at, read_slots_below, route
from engine.transition import all_verified
from kernels.backend import Backend, open_backend
from kernels.layout import U8
from tests.engine.ledgers import FEES, accounts, context, key, open_state, oracle_result
from tests.engine.test_chain import ROOT, named, random_payload

KEYS = 70


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Open the vectorised arm with two threads."""
    opened = open_backend("cpu", 2)
    yield opened
    opened.close()


def keys() -> U8:
    """Return keys with and without accounts."""
    return np.frombuffer(b"".join([*map(key, range(KEYS)), FEES]), np.uint8).reshape(-1, 32)


def test_random_forks(backend: Backend, rng: np.random.Generator) -> None:
    """From each position each block reads as the oracle left it, created accounts included."""
    start = accounts([1000] * 5)
    known: dict[bytes, tuple[int, list[Any]]] = {ROOT: (0, start)}
    chain = Chain(open_state(start, backend), block_hash=ROOT, height=0, unfinalized_max=8)
    for salt in range(40):
        candidates = [name for name in known if known[name][0] < 8]
        parent = candidates[int(rng.integers(len(candidates)))]
        height, made = known[parent]
        payload = random_payload(rng, made, 60)
        _, after = oracle_result(made, payload, height + 1)
        block_context = context(height + 1)
        name = named(payload, parent, salt)
        node = chain.execute(parent, payload, block_context, name, all_verified)
        known[node.block_hash] = (height + 1, after)
        names = list(known)
        for at in {names[int(rng.integers(len(names)))] for _ in range(6)}:
            read = read_at(chain, chain.node(at), keys())
            by_key = {account.key: account for account in known[at][1]}
            assert count_at(chain, chain.node(at)) == len(by_key)
            for row, one in enumerate(keys()):
                account = by_key.get(one.tobytes())
                assert read.exists[row] == (account is not None)
                assert read.balances[row] == (account.balance if account else 0)
                assert read.nonces[row] == (account.nonce if account else 0)
            if chain.descends(chain.position, chain.node(at)):
                slots = np.arange(len(known[at][1]), dtype=np.uint32)
                found, read = read_slots_below(chain, chain.node(at), slots)
                for slot, account in enumerate(known[at][1]):
                    assert found[slot].tobytes() == account.key
                    assert (read.balances[slot], read.nonces[slot], read.exists[slot]) == (
                        account.balance,
                        account.nonce,
                        True,
                    )


def test_the_way_between_blocks(backend: Backend) -> None:
    """Newest first down to the common ancestor, oldest first up from it."""
    start = accounts([1000] * 2)
    chain = Chain(open_state(start, backend), block_hash=ROOT, height=0, unfinalized_max=8)
    nothing = random_payload(np.random.default_rng(1), accounts([0]), 1)
    tips = []
    for branch in range(2):
        parent = ROOT
        for height in range(1, 4):
            made = named(nothing, parent, branch)
            parent = chain.execute(parent, nothing, context(height), made, all_verified).block_hash
        tips.append(chain.node(parent))
    way = route(chain, tips[0], tips[1])
    assert [node.height for node in way.undone] == [3, 2, 1]
    assert [node.height for node in way.done] == [1, 2, 3]
    assert way.done[-1] is tips[1]
    here = route(chain, tips[0], tips[0])
    assert not here.undone
    assert not here.done
