"""What `bench.blocks` promises: payloads that the specification accepts."""

from typing import Any

import nacl.signing
import numpy as np
import pytest

import spec.oracle
from bench.blocks import Workload, build, transaction_domain
from bench.check import oracle_blocks
from bench.workloads import BEYOND_MEANS, synthetic
from engine.codec import PayloadLimits, decode_payload
from engine.columns import signed_messages

oracle: Any = spec.oracle
LIMITS = PayloadLimits(bytes=1 << 30, transactions=1 << 20, objects=1 << 20)


def workload(name: str, *, is_signed: bool = False) -> Workload:
    """Return a workload that the oracle executes in a moment."""
    payments = synthetic(name, accounts=300, per_block=60, blocks=2, seed=4)
    return build(payments, seed=4, is_signed=is_signed)


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Payloads, keys and genesis follow from the payments and the seed, signed or not."""
    for is_signed in (False, True):
        first, again = (workload("uniform", is_signed=is_signed) for _ in range(2))
        assert first.payloads == again.payloads
        assert first.genesis_hash == again.genesis_hash
        assert np.array_equal(first.keys, again.keys)


@pytest.mark.parametrize("name", ["uniform", "hot-sender", "two-accounts"])
def test_the_oracle_accepts_the_blocks(name: str) -> None:
    """Lanes, nonces, keys and balances are such that no transaction is refused."""
    made = workload(name)
    assert len(oracle_blocks(made, 2, is_signed=False)) == 2
    assert made.lane_counts[0] == len(np.unique(made.payments.source[:60]))


def test_signatures_are_real() -> None:
    """Signed payloads verify under PyNaCl, over the message that the specification names."""
    made = workload("uniform", is_signed=True)
    batch = decode_payload(made.payloads[1], LIMITS)
    messages = signed_messages(batch.columns, made.transaction_domain)
    for row in range(0, 60, 7):
        key = nacl.signing.VerifyKey(batch.columns.sender[row].tobytes())
        key.verify(messages[row].tobytes(), batch.columns.signature[row].tobytes())
    assert len(oracle_blocks(made, 2, is_signed=True)) == 2


def test_signed_messages_and_domain_are_the_specifications() -> None:
    """What is signed, domain and 128 bytes of the record, equals the oracle's."""
    made = workload("uniform")
    columns = decode_payload(made.payloads[0], LIMITS).columns
    messages = signed_messages(columns, made.transaction_domain)
    lanes = oracle.decode_payload(made.payloads[0], oracle.Limits())
    domain = made.transaction_domain
    rows = [oracle.signed_message(item, domain) for lane in lanes for item in lane]
    assert [message.tobytes() for message in messages] == rows
    assert transaction_domain(made.genesis_hash) == oracle.transaction_domain(made.genesis_hash)


def test_doomed_payments_fail_and_the_others_succeed() -> None:
    """Only an amount beyond everybody's means fails for the balance; statuses are the oracle's."""
    payments = synthetic("hot-recipient", accounts=300, per_block=3000, blocks=1, seed=8)
    made = build(payments, seed=8, is_signed=False)
    ledger = oracle.Ledger(
        chain_id=7, fee_minimum=1, account_minimum=100, accounts_max=1000,
        domain=made.transaction_domain,
    )  # fmt: skip
    accounts = [
        oracle.Account(key.tobytes(), int(balance))
        for key, balance in zip(made.keys, made.balances, strict=True)
    ]
    executed = oracle.execute_payload(
        accounts, made.payloads[0], ledger, 1, made.fee_recipient, verify=False
    )
    batch = decode_payload(made.payloads[0], LIMITS)
    is_doomed = batch.columns.amount == BEYOND_MEANS
    assert is_doomed.any()
    assert executed.statuses == np.where(is_doomed, 1, 0).tolist()
