"""Small chains for the tests of the store: real payloads, executed, in real blocks."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.codec import decode_payload, payload_commitment
from engine.genesis import Genesis, Parameters, genesis_hash, make_genesis, transaction_domain
from engine.header import Header
from engine.state import State
from engine.store.config import StoreConfig
from engine.store.store import Store
from engine.store.values import FinalBlock
from engine.transition import BlockContext, LedgerRules, Outcome, all_verified, execute_payload
from engine.types import Epoch, Hash32, Height, PublicKey, TimestampMs
from kernels.backend import Backend
from runtime.keypair import KeyPair
from spec import oracle

CHAIN_ID = 7
FEES = b"\xfe" * 32
SMALL = StoreConfig(segment_bytes=4096, free_bytes_min=0, snapshot_every=10**6)
PARAMETERS = Parameters(
    heights_per_epoch=100,
    delta_ms=100,
    execute_max_ms=100,
    transfer_max_ms=100,
    retransmit_interval_ms=100,
    evidence_window_epochs=2,
)


def account_key(number: int) -> bytes:
    """Return the key of an account, in ascending order."""
    return number.to_bytes(32, "big")


def validator_key(number: int) -> bytes:
    """Return the key of a validator."""
    return KeyPair.of(bytes([number]) * 32).public_key


def chain_genesis(accounts: int = 8, chain_id: int = CHAIN_ID) -> Genesis:
    """Return a genesis with accounts 0.. of 10^12 units each."""
    keys = b"".join(account_key(i) for i in range(accounts))
    return make_genesis(
        chain_id=chain_id,
        timestamp_ms=0,
        account_minimum=5,
        fee_minimum=1,
        parameters=PARAMETERS,
        validators=[(validator_key(1), 3), (validator_key(2), 4)],
        validator_schedule=[(5, [(validator_key(3), 9)])],
        account_keys=np.frombuffer(keys, np.uint8).reshape(-1, 32),
        account_balances=np.full(accounts, 10**12, np.uint64),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A block that was executed, with all that the store takes."""

    height: int
    parent_hash: bytes
    block_hash: bytes
    header: bytes
    payload: bytes
    outcome: Outcome

    @property
    def final(self) -> FinalBlock:
        """What finalization takes."""
        return FinalBlock(
            block_hash=self.block_hash,
            changes=self.outcome.changes,
            statuses=self.outcome.statuses,
        )


class Maker:
    """Makes blocks on the block that it stands on."""

    def __init__(self, genesis: Genesis, backend: Backend) -> None:
        """Stand on genesis."""
        self.genesis = genesis
        self.state = State(genesis.account_keys, genesis.account_balances, backend=backend)
        self.chain_hash = genesis_hash(genesis)
        self.tip: Made | None = None
        self.made: list[Made] = []

    @property
    def tip_hash(self) -> bytes:
        """Hash of the block that it stands on."""
        return self.tip.block_hash if self.tip else self.chain_hash

    def block(self, rng: np.random.Generator, transactions: int = 10) -> Made:
        """Make a block of random payments, to old accounts and to new ones."""
        count = self.state.count
        keys, _, nonces = self.state.accounts.read(np.arange(count, dtype=np.uint32))
        next_nonce = {key.tobytes(): int(n) for key, n in zip(keys, nonces, strict=True)}
        senders = [account_key(i) for i in range(8)]
        rows = []
        for _ in range(transactions):
            sender = senders[int(rng.integers(len(senders)))]
            recipient = account_key(int(rng.integers(40)))
            amount = int(rng.integers(0, 30))
            rows.append(
                oracle.Transaction(
                    CHAIN_ID, next_nonce[sender], 10**6, amount, 1, sender, recipient
                )
            )
            next_nonce[sender] += 1
        return self.grow(bytes(oracle.encode_payload(oracle.pack_lanes(rows))))

    def grow(self, payload: bytes) -> Made:
        """Execute a payload and stand on its block."""
        height = self.tip.height + 1 if self.tip else 1
        context = BlockContext(
            chain_id=self.genesis.chain_id,
            height=height,
            fee_recipient=FEES,
            transaction_domain=transaction_domain(self.chain_hash),
            rules=LedgerRules(self.genesis.fee_minimum, 5, self.genesis.accounts_max),
            limits=PARAMETERS.limits,
        )
        outcome = execute_payload(self.state, payload, context, is_verified=all_verified)
        header = Header(
            chain_id=self.genesis.chain_id,
            epoch=Epoch(0),
            height=Height(height),
            parent_hash=Hash32(self.tip_hash),
            timestamp_ms=TimestampMs(1000 * height + len(self.made)),
            proposer=PublicKey(bytes(32)),
            fee_recipient=PublicKey(FEES),
            validator_set_id=Hash32(bytes(32)),
            payload_commitment=payload_commitment(payload),
            payload_bytes=len(payload),
            transaction_count=len(outcome.statuses),
            transactions_root=Hash32(outcome.transactions_root),
            state_hash=Hash32(outcome.state_hash),
            receipts_hash=Hash32(outcome.receipts_hash),
        )
        self.tip = Made(
            height=height,
            parent_hash=self.tip_hash,
            block_hash=header.block_hash(),
            header=header.encode(),
            payload=payload,
            outcome=outcome,
        )
        self.made.append(self.tip)
        return self.tip

    def back(self) -> None:
        """Go back to the parent of the block that it stands on."""
        assert self.tip is not None
        self.state.undo([self.tip.outcome.changes])
        parent = self.tip.parent_hash
        self.tip = next((item for item in self.made if item.block_hash == parent), None)


def store_block(store: Store, made: Made) -> None:
    """Make a block durable."""
    store.begin_append(made.block_hash, made.header, made.payload).wait()


def payload_of(store: Store, block_hash: bytes) -> bytes | None:
    """Return a stored payload as bytes."""
    payload = store.payload(block_hash)
    return None if payload is None else bytes(payload)


def index_block(store: Store, maker: Maker, made: Made) -> None:
    """Index a finalized block, as its owner would."""
    columns = decode_payload(made.payload, PARAMETERS.limits).columns
    lookup = maker.state.accounts.lookup
    store.index(
        made.height,
        made.outcome.transaction_hashes,
        lookup(columns.sender),
        lookup(columns.recipient),
        made.outcome.statuses,
    )


def new_store(home: Path, genesis: Genesis, config: StoreConfig = SMALL) -> Store:
    """Make a home and open it."""
    Store.create(home, genesis)
    return Store.open(home, config)
