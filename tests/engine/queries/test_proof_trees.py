"""Trees for proofs: a block is hashed once for all who ask, others seldom, in bounded memory."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.queries import app, proof_trees
from engine.queries.proof_trees import (
    REST_MAX_MS,
    REST_MIN_MS,
    REST_SHARE,
    ProofTrees,
    TooSoon,
    TreeKeeper,
)
from spec import oracle
from tests.engine.homes import key_pair
from tests.engine.queries.conftest import Node, transactions_of
from tests.engine.queries.test_answers import RULES
from tests.engine.queries.test_proofs import Clock

WAIT_S = 20


def trees(leaves: int = 1) -> ProofTrees:
    """Return trees of 64 bytes per leaf."""
    level = np.zeros((leaves, 32), np.uint8)
    return ProofTrees(lane_count=1, lanes_hash=bytes(32), transactions=[level], receipts=[level])


def refused(keeper: TreeKeeper, name: bytes) -> int:
    """Return how long a block that is not known has to wait."""
    with pytest.raises(TooSoon) as error:
        keeper.trees_of(name, lambda: pytest.fail("it is made too soon"))
    return error.value.after_ms


def test_the_trees_of_a_block_are_made_once_for_all_who_ask() -> None:
    """Who asks while they are made gets the same; another block has to wait meanwhile."""
    keeper = TreeKeeper()
    is_making, may_end = threading.Event(), threading.Event()
    made = []

    def make() -> ProofTrees:
        is_making.set()
        assert may_end.wait(WAIT_S)
        made.append(trees())
        return made[-1]

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(keeper.trees_of, b"a", make)]
        assert is_making.wait(WAIT_S)
        asked += [threads.submit(keeper.trees_of, b"a", make) for _ in range(3)]
        assert refused(keeper, b"b") == REST_MAX_MS
        may_end.set()
        assert all(item.result(WAIT_S) is made[0] for item in asked)
    assert len(made) == 1
    assert keeper.trees_of(b"a", lambda: pytest.fail("it is known")) is made[0]


@pytest.mark.parametrize(
    ("took_ms", "rest_ms"), [(0, REST_MIN_MS), (20, 20 * REST_SHARE), (10_000, REST_MAX_MS)]
)
def test_another_block_is_made_after_a_rest(took_ms: int, rest_ms: int) -> None:
    """What was made costs a small part of the time; what is known is not held up."""
    clock = Clock()
    keeper = TreeKeeper(clock_ms=clock)

    def make() -> ProofTrees:
        clock.ms += took_ms
        return trees()

    keeper.trees_of(b"a", make)
    assert refused(keeper, b"b") == rest_ms
    keeper.trees_of(b"a", make)
    clock.ms += rest_ms - 1
    assert refused(keeper, b"b") == 1
    clock.ms += 1
    keeper.trees_of(b"b", make)


def test_what_cannot_be_made_holds_nobody_up_for_ever() -> None:
    """Whoever waits hears the same error; after the rest it is tried again."""
    clock = Clock()
    keeper = TreeKeeper(clock_ms=clock)
    is_making, may_end = threading.Event(), threading.Event()

    def fail() -> ProofTrees:
        is_making.set()
        assert may_end.wait(WAIT_S)
        raise LookupError("it is pruned")

    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(keeper.trees_of, b"a", fail)]
        assert is_making.wait(WAIT_S)
        asked.append(threads.submit(keeper.trees_of, b"a", fail))
        may_end.set()
        for item in asked:
            assert isinstance(item.exception(WAIT_S), LookupError | TooSoon)
        assert isinstance(asked[0].exception(), LookupError)
    assert refused(keeper, b"a") == REST_MIN_MS
    clock.ms += REST_MIN_MS
    assert keeper.trees_of(b"a", trees) is not None


def test_memory_is_bounded() -> None:
    """The block that was asked for longest ago goes first; one that is too large is not kept."""
    clock = Clock()
    keeper = TreeKeeper(bytes_max=3 * 64, clock_ms=clock)

    def take(name: bytes, leaves: int = 1) -> bool:
        """Ask for a block; say whether it had to be made."""
        made = []

        def make() -> ProofTrees:
            made.append(name)
            return trees(leaves)

        clock.ms += REST_MAX_MS
        keeper.trees_of(name, make)
        return bool(made)

    assert [take(name) for name in (b"a", b"b", b"c", b"a")] == [True, True, True, False]
    assert keeper.resident_bytes == 3 * 64
    assert take(b"d")
    assert [take(name) for name in (b"a", b"c", b"d", b"b")] == [False, False, False, True]
    assert take(b"large", leaves=4)
    assert take(b"large", leaves=4)
    assert not take(b"b")
    assert take(b"exact", leaves=3)
    assert keeper.resident_bytes == 3 * 64


def test_a_proof_is_that_of_the_block_which_is_followed(node: Node) -> None:
    """After a reorganisation a transaction is proven in its new block, at its new place."""
    maker = node.home.maker
    first = node.add(2)
    nonces = {account.key: account.nonce for account in maker.accounts(first)}
    sent = [
        maker.transaction(n, nonces[key_pair(n)[0]], bytes([n]) * 32, amount=100) for n in (5, 6, 7)
    ]
    branches = [maker.block_of(first, sent[start:], 5_000 + start) for start in (0, 1)]
    name = oracle.transaction_hash(sent[2])
    for block in (*branches, *branches):
        node.home.service.new_payload(block.header, block.payload)
        node.home.service.forkchoice_updated(block.hash, first.hash, first.hash)
        proof = node.get(f"/v1/transactions/{name.hex()}", proof=1)["proof"]
        proven = RULES.verify_proof(proof)
        assert (proven.block_hash, proven.transaction_hash) == (block.hash, name)
        assert proven.position == transactions_of(block).index(sent[2])


def test_who_asks_for_every_block_is_told_to_come_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another block waits for its turn; where that does not come, the node is busy."""
    names = [oracle.transaction_hash(transactions_of(node.add(2))[0]).hex() for _ in range(2)]
    monkeypatch.setattr(proof_trees, "REST_MIN_MS", 10**6)
    monkeypatch.setattr(proof_trees, "REST_MAX_MS", 10**6)
    monkeypatch.setattr(app, "PROOF_ATTEMPTS", 1)
    monkeypatch.setattr(app, "seconds", lambda _: 0)
    for _ in range(2):
        node.get(f"/v1/transactions/{names[0]}", proof=1)
        assert node.get(f"/v1/transactions/{names[1]}", 503, proof=1)["code"] == "query.busy"
        assert node.get(f"/v1/transactions/{names[1]}")["state"] == "finalized"
