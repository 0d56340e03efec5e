"""The builder against a plain reading of its rules, and against execution by the oracle."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.builder import build, select
from engine.codec import PayloadLimits, payload_bytes
from engine.columns import from_records
from engine.state import State
from engine.transition import LedgerRules
from kernels.backend import Backend, open_backend
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, accounts, key, open_state

HEIGHT = 5
RULES = LedgerRules(fee_minimum=1, account_minimum=5, accounts_max=1_000)
AMOUNTS = {10: 0.6, 0: 0.1, 3: 0.1, 60: 0.1, 2**40: 0.05, 2**64 - 1: 0.05}
FEES = {1: 0.8, 0: 0.05, 2: 0.1, 2**63: 0.05}
ENDS = {4: 0.05, 5: 0.2, 99: 0.75}
AMPLE = PayloadLimits(bytes=2**30, transactions=10_000, objects=10_000)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    """Open the vectorised arm."""
    opened = open_backend("cpu", 2)
    yield opened
    opened.close()


def transfer(sender: int, nonce: int, recipient: int, amount: int = 10, **fields: Any) -> Any:
    """Return an unsigned transfer between account numbers."""
    values: dict[str, Any] = {"valid_until": 99, "fee": 1, **fields}
    return oracle.Transaction(
        CHAIN_ID, nonce, amount=amount, sender=key(sender), recipient=key(recipient), **values
    )


def columns_of(transactions: list[Any]) -> Any:
    """Return transactions as columns."""
    data = b"".join(oracle.encode_transaction(item) for item in transactions)
    return from_records(np.frombuffer(data, np.uint8).reshape(-1, 192))


def chosen(
    transactions: list[Any], state: State, limits: PayloadLimits = AMPLE, rules: LedgerRules = RULES
) -> tuple[list[list[Any]], list[bool]]:
    """Return the lanes that are built, and which candidates were of no use."""
    columns = columns_of(transactions)
    found = select(columns, state, height=HEIGHT, rules=rules, limits=limits)
    payload = build(columns, found)
    ample = oracle.Limits(AMPLE.bytes, AMPLE.transactions, AMPLE.objects)
    return oracle.decode_payload(payload, ample), found.is_useless.tolist()


def plainly(transactions: list[Any], made: list[Any], new_max: int = 10**6) -> list[list[Any]]:
    """Choose one transaction after the other, as a person would."""
    by_key = {account.key: account for account in made}
    waiting: dict[bytes, list[tuple[int, Any]]] = {}
    for index, item in enumerate(transactions):
        known = item.sender in by_key
        if known and item.valid_until >= HEIGHT and item.fee >= 1 and item.nonce != 2**64 - 1:
            waiting.setdefault(item.sender, []).append((index, item))
    lanes: list[tuple[int, list[Any]]] = []
    for sender, items in waiting.items():
        account = by_key[sender]
        left = account.balance - min(account.balance, 5)
        nonce, lane, first = account.nonce, [], 10**9
        for index, item in sorted(items, key=lambda pair: (pair[1].nonce, pair[0])):
            if item.nonce < nonce:
                continue
            new = item.recipient not in by_key
            if item.nonce > nonce or item.amount + item.fee > left or (new and item.amount < 5):
                break
            left -= item.amount + item.fee
            nonce += 1
            lane.append(item)
            first = min(first, index)
        if lane:
            lanes.append((first, lane))
    return [lane for _, lane in sorted(lanes, key=lambda pair: pair[0])]


def one_of(rng: np.random.Generator, weights: dict[int, float]) -> int:
    """Draw a value by its weight."""
    return list(weights)[int(rng.choice(len(weights), p=list(weights.values())))]


def random_queue(rng: np.random.Generator, count: int) -> list[Any]:
    """Return transfers with every kind of defect among them, in random order."""
    nonces = dict.fromkeys(range(12), 0)
    queue = []
    for _ in range(count):
        sender = int(rng.integers(12))
        item = transfer(
            sender,
            nonces[sender],
            int(rng.integers(20)),
            one_of(rng, AMOUNTS),
            fee=one_of(rng, FEES),
            valid_until=one_of(rng, ENDS),
        )
        nonces[sender] += int(rng.random() < 0.85) + int(rng.random() < 0.05)
        queue.append(item)
    if rng.random() < 0.5:
        queue = [queue[index] for index in rng.permutation(count)]
    return queue


def test_random_queues(backend: Backend, rng: np.random.Generator) -> None:
    """What is chosen is what the rules say, and the oracle finds all of it successful."""
    for _ in range(60):
        made = accounts([int(rng.integers(0, 400)) for _ in range(10)])
        state = open_state(made, backend)
        queue = random_queue(rng, int(rng.integers(1, 80)))
        lanes, is_useless = chosen(queue, state)
        assert lanes == plainly(queue, made)
        assert len(is_useless) - sum(is_useless) == sum(len(lane) for lane in lanes)
        ledger = oracle.Ledger(CHAIN_ID, fee_minimum=1, account_minimum=5, accounts_max=1_000)
        done = oracle.execute_payload(
            made, oracle.encode_payload(lanes), ledger, HEIGHT, key(99), False
        )
        assert set(done.statuses) <= {oracle.SUCCESS}


@pytest.mark.parametrize("most", [0, 1, 2, 5, 6, 100])
def test_transactions_are_bounded(backend: Backend, most: int) -> None:
    """The first ones in lane order are taken; those left over are not of no use."""
    queue = [transfer(n % 3, n // 3, 7) for n in range(6)]
    limits = PayloadLimits(bytes=2**30, transactions=most, objects=100)
    lanes, is_useless = chosen(queue, open_state(accounts([1_000] * 3), backend), limits)
    flat = [item for lane in lanes for item in lane]
    in_lanes = [queue[n] for n in (0, 3, 1, 4, 2, 5)]
    assert flat == in_lanes[:most]
    assert not any(is_useless)


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_lanes_are_bounded(backend: Backend, most: int) -> None:
    """No more senders than objects may be written."""
    queue = [transfer(n % 3, n // 3, 7) for n in range(6)]
    limits = PayloadLimits(bytes=2**30, transactions=100, objects=most)
    lanes, _ = chosen(queue, open_state(accounts([1_000] * 3), backend), limits)
    assert [len(lane) for lane in lanes] == [2] * most


def test_bytes_are_bounded(backend: Backend) -> None:
    """As many as fit: one byte less, and there is one transaction less."""
    queue = [transfer(n % 3, n // 3, 7) for n in range(6)]
    state = open_state(accounts([1_000] * 3), backend)
    for count, lane_count in ((1, 1), (2, 1), (3, 2), (5, 3), (6, 3)):
        length = payload_bytes(lane_count, count)
        for less, expected in ((0, count), (1, count - 1)):
            limits = PayloadLimits(bytes=length - less, transactions=100, objects=100)
            lanes, _ = chosen(queue, state, limits)
            found = sum(len(lane) for lane in lanes)
            fits = payload_bytes(len(lanes), found) <= length - less
            assert fits
            assert found == expected or payload_bytes(lane_count, found + 1) > length - less


def test_room_for_new_accounts_is_kept(backend: Backend) -> None:
    """With room for two accounts one new recipient is paid, beside a new fee recipient."""
    state = open_state(accounts([1_000] * 4), backend)
    rules = LedgerRules(fee_minimum=1, account_minimum=5, accounts_max=6)
    queue = [transfer(0, 0, 50), transfer(1, 0, 2), transfer(2, 0, 51), transfer(3, 0, 0)]
    lanes, _ = chosen(queue, state, rules=rules)
    assert [item.recipient for lane in lanes for item in lane] == [key(50), key(2)]


def test_an_empty_queue(backend: Backend) -> None:
    """Nothing gives the empty payload."""
    columns = columns_of([transfer(0, 0, 1)])
    nothing = type(columns)(*(column[:0] for column in columns))
    state = open_state(accounts([1]), backend)
    found = select(nothing, state, height=1, rules=RULES, limits=AMPLE)
    assert build(nothing, found) == oracle.encode_payload([])
