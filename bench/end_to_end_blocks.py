"""A chain of blocks with right headers, made ahead of a measurement.

Payments are those of `workloads`; the genesis is a real one, so keys stand in its order and
signatures cover its hash. Results come from one execution in this process, before any clock runs.
"""

from dataclasses import dataclass

import numpy as np

from bench.blocks import CHAIN_ID, build
from bench.workloads import ACCOUNT_MINIMUM, FEE_MINIMUM, synthetic
from engine.codec import payload_commitment
from engine.genesis import Genesis, Parameters, genesis_hash, make_genesis, transaction_domain
from engine.header import Header
from engine.state import State
from engine.transition import BlockContext, LedgerRules, all_verified, execute_payload
from engine.types import Epoch, Hash32, Height, PublicKey, TimestampMs
from kernels.backend import open_backend
from kernels.layout import U8
from runtime.keypair import KeyPair

PARAMETERS = Parameters(
    heights_per_epoch=1_000,
    delta_ms=100,
    execute_max_ms=1_000,
    transfer_max_ms=1_000,
    retransmit_interval_ms=100,
    evidence_window_epochs=2,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainBlocks:
    """Blocks from height 1 on, each on the one before."""

    genesis: Genesis
    headers: list[bytes]
    payloads: tuple[bytes, ...]
    hashes: list[bytes]
    per_block: int
    transaction_hashes: U8
    """(blocks * per_block, 32) uint8, in canonical order"""


def make_chain(*, accounts: int, per_block: int, blocks: int, seed: int) -> ChainBlocks:
    """Make a chain where everybody pays everybody, with real signatures."""
    payments = synthetic(
        "uniform", accounts=accounts, per_block=per_block, blocks=blocks, seed=seed
    )

    def domain_of(keys: U8, balances: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> bytes:
        return transaction_domain(genesis_hash(genesis_of(keys, balances)))

    made = build(payments, seed=seed, is_signed=True, domain_of=domain_of)
    genesis = genesis_of(made.keys, made.balances)
    name = genesis_hash(genesis)
    backend = open_backend("cpu")
    state = State(genesis.account_keys, genesis.account_balances, backend=backend)
    rules = LedgerRules(genesis.fee_minimum, genesis.account_minimum, genesis.accounts_max)
    headers: list[bytes] = []
    names: list[bytes] = []
    transaction_hashes = np.empty((blocks * per_block, 32), np.uint8)
    parent = name
    for index, payload in enumerate(made.payloads):
        context = BlockContext(
            chain_id=CHAIN_ID,
            height=index + 1,
            fee_recipient=made.fee_recipient,
            transaction_domain=transaction_domain(name),
            rules=rules,
            limits=genesis.parameters.limits,
        )
        outcome = execute_payload(state, payload, context, is_verified=all_verified)
        transaction_hashes[index * per_block : (index + 1) * per_block] = outcome.transaction_hashes
        header = Header(
            chain_id=CHAIN_ID,
            epoch=Epoch(0),
            height=Height(index + 1),
            parent_hash=Hash32(parent),
            timestamp_ms=TimestampMs(index + 1),
            proposer=PublicKey(bytes(32)),
            fee_recipient=PublicKey(made.fee_recipient),
            validator_set_id=Hash32(bytes(32)),
            payload_commitment=payload_commitment(payload),
            payload_bytes=len(payload),
            transaction_count=per_block,
            transactions_root=Hash32(outcome.transactions_root),
            state_hash=Hash32(outcome.state_hash),
            receipts_hash=Hash32(outcome.receipts_hash),
        )
        parent = header.block_hash()
        headers.append(header.encode())
        names.append(parent)
    backend.close()
    return ChainBlocks(
        genesis=genesis,
        headers=headers,
        payloads=made.payloads,
        hashes=names,
        per_block=per_block,
        transaction_hashes=transaction_hashes,
    )


def genesis_of(keys: U8, balances: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> Genesis:
    """Return the genesis of a benchmark's accounts."""
    return make_genesis(
        chain_id=CHAIN_ID,
        timestamp_ms=0,
        account_minimum=ACCOUNT_MINIMUM,
        fee_minimum=FEE_MINIMUM,
        parameters=PARAMETERS,
        validators=[(KeyPair.of(bytes(32)).public_key, 1)],
        account_keys=keys,
        account_balances=balances,
    )
