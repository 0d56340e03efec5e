"""Executed payloads against the oracle: every arm, every outcome, every refusal."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kernels.backend import Backend, open_backend
from spec import oracle
from tests.engine.ledgers import (
    CHAIN_ID,
    FEES,
    LEDGER,
    accounts,
    engine_result,
    key,
    open_state,
    oracle_result,
)

ACCOUNTS = 6
WRAPPING = 2**64 - 52


@pytest.fixture(scope="module")
def backends() -> Iterator[list[Backend]]:
    """Open every arm that runs on a host."""
    opened = [open_backend("serial"), open_backend("cpu", 1), open_backend("cpu", 2)]
    yield opened
    for backend in opened:
        backend.close()


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[int], list[bytes], Any]:
    """Draw opening balances, payloads that are mostly includable, and a ledger."""
    amounts = st.sampled_from([0, 1, 4, 5, 40, 100, WRAPPING, 2**64 - 1])
    balances = draw(st.lists(st.sampled_from([0, 5, 100, 1000]), min_size=1, max_size=ACCOUNTS))
    ledger = oracle.replace(LEDGER, accounts_max=draw(st.sampled_from([len(balances) + 1, 1000])))
    nonces = [0] * len(balances)
    payloads = []
    for _ in range(draw(st.integers(1, 4))):
        made = []
        for _ in range(draw(st.integers(0, 10))):
            sender = draw(st.integers(0, len(balances) - 1))
            made.append(
                oracle.Transaction(
                    CHAIN_ID,
                    nonces[sender] + draw(st.sampled_from([0] * 30 + [1])),
                    draw(st.sampled_from([9] * 30 + [0])),
                    draw(amounts),
                    draw(st.sampled_from([1, 1, 2, 50] * 8 + [0, WRAPPING])),
                    key(sender),
                    draw(st.sampled_from([*map(key, range(ACCOUNTS + 3)), FEES])),
                )
            )
            nonces[sender] += 1
        payloads.append(oracle.encode_payload(oracle.pack_lanes(made)))
    return balances, payloads, ledger


@settings(max_examples=200)
@given(blocks())
def test_random_blocks_equal_the_oracle(
    backends: list[Backend], drawn: tuple[list[int], list[bytes], Any]
) -> None:
    """Statuses, roots, hashes and refusals equal the oracle's, block after block, on each arm."""
    balances, payloads, ledger = drawn
    for backend in backends:
        made = accounts(balances)
        state = open_state(made, backend)
        for height, payload in enumerate(payloads, 1):
            before = state.state_hash()
            expected, made = oracle_result(made, payload, height, ledger=ledger)
            result, outcome = engine_result(state, payload, height, ledger=ledger)
            assert result == expected
            if outcome is None:
                assert state.state_hash() == before
                break
            state.undo([outcome.changes])
            assert state.state_hash() == before
            state.redo([outcome.changes])
            assert state.state_hash() == outcome.state_hash


def test_costs_that_wrap_mint_nothing(backends: list[Backend]) -> None:
    """Amounts whose sum wraps 2^64 fail one by one and leave the supply as it was."""
    made = [
        oracle.Transaction(CHAIN_ID, nonce, 9, amount, 1, key(0), key(1))
        for nonce, amount in enumerate([50, WRAPPING, 40])
    ]
    payload = oracle.encode_payload([made])
    for backend in backends:
        start = accounts([105, 0])
        expected, after = oracle_result(start, payload)
        result, _ = engine_result(open_state(start, backend), payload)
        assert result == expected
        assert sum(a.balance for a in after) == 105


@pytest.mark.parametrize("left", [0, 1, 2])
def test_the_last_nonce_is_never_used(backends: list[Backend], left: int) -> None:
    """With 2^64 - 1 an account is at its end: the next nonce is none, and does not begin anew."""
    first = 2**64 - 1 - left
    made = [
        oracle.Transaction(CHAIN_ID, nonce % 2**64, 9, 6, 1, key(0), key(1))
        for nonce in range(first, first + left + 1)
    ]
    start = [oracle.Account(key(0), 1000, first), oracle.Account(key(1), 0)]
    for count in range(1, len(made) + 1):
        payload = oracle.encode_payload([made[:count]])
        expected, _ = oracle_result(start, payload)
        assert (expected == ("NONCE", left)) is (count > left)
        for backend in backends:
            result, _ = engine_result(open_state(start, backend), payload)
            assert result == expected


def test_signatures_are_judged(backends: list[Backend]) -> None:
    """A good signature passes, a changed one names its position, an earlier defect goes first."""
    signer = SigningKey(bytes(32))
    sender = bytes(signer.verify_key)
    start = [oracle.Account(sender, 1000)]

    def signed(nonce: int) -> Any:
        blank = oracle.Transaction(CHAIN_ID, nonce, 9, 10, 1, sender, key(3))
        message = oracle.signed_message(blank, LEDGER.domain)
        return oracle.replace(blank, signature=signer.sign(message).signature)

    good = [signed(0), signed(1)]
    forged = oracle.replace(good[1], amount=11)
    late = oracle.replace(forged, fee=0)
    for lane in (good, [good[0], forged], [good[0], late]):
        payload = oracle.encode_payload([lane])
        for backend in backends:
            expected, _ = oracle_result(start, payload, verify=True)
            result, _ = engine_result(open_state(start, backend), payload, verify=True)
            assert result == expected


@pytest.mark.parametrize("count", [20_000, pytest.param(500_000, marks=pytest.mark.slow)])
def test_mutated_payloads_are_refused_or_equal(
    backends: list[Backend], rng: np.random.Generator, count: int
) -> None:
    """Payloads with changed, cut or added bytes end as the oracle says, the state unharmed."""
    transactions = [oracle.Transaction(CHAIN_ID, 0, 9, 20, 1, key(i), key(i + 1)) for i in range(3)]
    transactions.append(oracle.Transaction(CHAIN_ID, 1, 9, 20, 1, key(1), key(9)))
    valid = oracle.encode_payload(oracle.pack_lanes(transactions))
    start = accounts([1000] * 4)
    state = open_state(start, backends[1])
    opening = state.state_hash()
    for _ in range(count):
        data = bytearray(valid)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(len(data)))
            data[place] = int(rng.integers(256))
        length = int(rng.integers(10))
        if length == 0:
            del data[int(rng.integers(len(data))) :]
        elif length == 1:
            data += bytes(int(rng.integers(1, 100)))
        expected, _ = oracle_result(start, bytes(data))
        result, outcome = engine_result(state, bytes(data))
        assert result == expected
        if outcome is not None:
            state.undo([outcome.changes])
        assert state.state_hash() == opening
