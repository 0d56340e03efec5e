"""Payments made into payloads: keys, nonces, opening balances, signatures, lanes, bytes.

Nothing here is timed: it is what clients, the pool and a proposer did before the block came. All
arms of a benchmark share one result, so that they run on the same bytes. Read `arms` next.
"""

from collections.abc import Callable
from dataclasses import dataclass

import blake3
import numpy as np

from bench.traces import I64
from bench.workloads import FEE, Payments, account_keys, nonces, opening_balances
from engine.codec import encode_payload
from engine.columns import signed_messages
from engine.lanes import pack
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from kernels.layout import U8, U64, Columns

CHAIN_ID = 7
VALID_UNTIL = 1 << 20
"""height; no benchmark runs as many blocks"""
TRANSACTION_CONTEXT = "tos transaction v1"
SEED_OF_SEEDS = 1 << 62
"""Keeps the seeds of signing keys apart from the keys that nobody signs for."""

Progress = Callable[[int, int], None]
"""Called with (done, total) blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every arm gets: an opening state and payloads in order of height, from height 1."""

    payments: Payments
    keys: U8
    """(accounts, 32) uint8, in slot order"""
    balances: U64
    """(accounts,) uint64, base units"""
    payloads: tuple[bytes, ...]
    lane_counts: tuple[int, ...]
    genesis_hash: bytes
    fee_recipient: bytes
    """32 bytes; has no account before the first block"""

    @property
    def transaction_domain(self) -> bytes:
        """Return the 32 bytes that every signed message begins with."""
        return transaction_domain(self.genesis_hash)


def build(
    payments: Payments,
    *,
    seed: int,
    is_signed: bool,
    progress: Progress | None = None,
    domain_of: Callable[[U8, U64], bytes] | None = None,
) -> Workload:
    """Make the payloads; `is_signed` gives senders real keys and rows real signatures.

    Without it, keys and signatures are bytes that nobody looks into. domain_of: returns what
    signatures cover first, from keys and opening balances; else a made-up genesis says it.
    """
    count = payments.accounts + payments.created
    keys = account_keys(np.arange(count, dtype=np.uint64), seed)
    genesis_hash = blake3.blake3(b"bench" + seed.to_bytes(8, "little")).digest()
    seeds = _signing_seeds(payments.source, keys, seed) if is_signed else None
    opening_keys = np.ascontiguousarray(keys[: payments.accounts])
    balances = opening_balances(payments)
    domain = transaction_domain(genesis_hash)
    if domain_of is not None:
        domain = domain_of(opening_keys, balances)
    number = nonces(payments.source)
    payloads, lane_counts = [], []
    rng = np.random.Generator(np.random.PCG64([seed, 64]))
    for block in range(payments.block_count):
        start = block * payments.per_block
        rows = slice(start, start + payments.per_block)
        columns = _columns(payments, rows, number, keys)
        if seeds is not None:
            _sign(columns, seeds[payments.source[rows]], domain)
        else:
            columns.signature[:] = rng.integers(0, 256, columns.signature.shape, np.uint8)
        packed, lane_offsets = pack(columns)
        payloads.append(bytes(encode_payload(packed, lane_offsets)))
        lane_counts.append(len(lane_offsets) - 1)
        if progress is not None:
            progress(block + 1, payments.block_count)
    return Workload(
        payments=payments,
        keys=opening_keys,
        balances=balances,
        payloads=tuple(payloads),
        lane_counts=tuple(lane_counts),
        genesis_hash=genesis_hash,
        fee_recipient=blake3.blake3(b"fees" + genesis_hash).digest(),
    )


def transaction_domain(genesis_hash: bytes) -> bytes:
    """Return the 32 bytes that every message signed for this genesis begins with."""
    return blake3.blake3(genesis_hash, derive_key_context=TRANSACTION_CONTEXT).digest()


def _columns(payments: Payments, rows: slice, number: U64, keys: U8) -> Columns:
    n = len(payments.source[rows])
    return Columns(
        version=np.ones(n, np.uint8),
        kind=np.zeros(n, np.uint8),
        chain_id=np.full(n, CHAIN_ID, np.uint32),
        nonce=number[rows].copy(),
        valid_until=np.full(n, VALID_UNTIL, np.uint64),
        amount=payments.amount[rows].copy(),
        fee=np.full(n, FEE, np.uint64),
        memo=np.zeros((n, 16), np.uint8),
        sender=keys[payments.source[rows]],
        recipient=keys[payments.target[rows]],
        signature=np.zeros((n, 64), np.uint8),
    )


def _signing_seeds(source: I64, keys: U8, seed: int) -> U8:
    """Return (accounts, 32) uint8: a seed for every account; senders' keys go into `keys`."""
    senders = np.unique(source)
    seeds = np.zeros((len(keys), 32), np.uint8)
    seeds[senders] = account_keys(senders.astype(np.uint64), seed ^ SEED_OF_SEEDS)
    keys[senders] = insecure_public_keys(seeds[senders])
    return seeds


def _sign(columns: Columns, seeds: U8, domain: bytes) -> None:
    """Write a signature of each row into `columns.signature`; seeds: (n, 32), of its sender."""
    messages = signed_messages(columns, domain)
    columns.signature[:] = insecure_sign(seeds, columns.sender, messages)
