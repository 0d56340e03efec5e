"""Homes with a service in them, and blocks for them that the oracle made: real keys and results."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nacl.bindings
import numpy as np

from engine.codec import payload_commitment
from engine.events import Event
from engine.genesis import Genesis, Parameters, genesis_hash, make_genesis, transaction_domain
from engine.header import Header
from engine.opening import open_service
from engine.service import Service
from engine.store.config import StoreConfig
from engine.store.store import Store
from engine.types import Epoch, Hash32, Height, PublicKey, TimestampMs
from engine_api.types import BlockId, Limits
from kernels.backend import Backend
from spec import oracle
from tests.engine_api.toy import Block

CHAIN_ID = 7
SENDERS = 8
"""Accounts of genesis that have secrets; salts choose among them."""
FEE_RECIPIENT = b"\xfe" * 32
BALANCE = 10**9
STORE = StoreConfig(segment_bytes=2**20, free_bytes_min=0, snapshot_every=10**6)
PARAMETERS = Parameters(
    heights_per_epoch=100,
    delta_ms=100,
    execute_max_ms=100,
    transfer_max_ms=100,
    retransmit_interval_ms=100,
    evidence_window_epochs=2,
    payload_bytes_max=2**20,
    transactions_max=4_096,
    objects_max=4_096,
)


@functools.cache
def key_pair(number: int) -> tuple[bytes, bytes]:
    """Return (public key, secret) of a sender."""
    return nacl.bindings.crypto_sign_seed_keypair(number.to_bytes(32, "little"))


@functools.cache
def small_genesis(senders: int = SENDERS, accounts_max: int = 10**6) -> Genesis:
    """Return a chain of a few accounts with secrets."""
    keys = np.frombuffer(b"".join(key_pair(n)[0] for n in range(senders)), np.uint8)
    return make_genesis(
        chain_id=CHAIN_ID,
        timestamp_ms=1,
        account_minimum=5,
        fee_minimum=1,
        accounts_max=accounts_max,
        parameters=PARAMETERS,
        validators=[(key_pair(100 + n)[0], n) for n in range(1, 5)],
        validator_schedule=[(3, [(key_pair(109)[0], 1)])],
        account_keys=keys.reshape(-1, 32),
        account_balances=np.full(senders, BALANCE, np.uint64),
    )


class Maker:
    """Makes valid blocks on any block, by the oracle alone."""

    def __init__(self, genesis: Genesis | None = None, senders: int = SENDERS) -> None:
        """Start from genesis."""
        self.genesis = genesis or small_genesis(senders)
        self.hash = genesis_hash(self.genesis)
        self.domain = transaction_domain(self.hash)
        self.senders = senders
        limits = self.genesis.parameters.limits
        self.ledger = oracle.Ledger(
            CHAIN_ID,
            self.genesis.fee_minimum,
            self.genesis.account_minimum,
            self.genesis.accounts_max,
            self.domain,
            oracle.Limits(limits.bytes, limits.transactions, limits.objects),
        )
        opening = [oracle.Account(key, balance) for key, balance in self.genesis.accounts]
        self.states: dict[bytes, list[Any]] = {self.hash: opening}

    def transaction(
        self, sender: int, nonce: int, recipient: bytes, amount: int = 10, fee: int = 1
    ) -> Any:
        """Return a signed transfer."""
        public, secret = key_pair(sender)
        made = oracle.Transaction(CHAIN_ID, nonce, 2**40, amount, fee, public, recipient)
        signed = nacl.bindings.crypto_sign(oracle.signed_message(made, self.domain), secret)
        return replace(made, signature=signed[:64])

    def accounts(self, block: Block | None) -> list[Any]:
        """Return the oracle's accounts after a block, whose parent was made here."""
        name = block.hash if block else self.hash
        if name not in self.states:
            assert block is not None
            done = oracle.execute_payload(
                self.states[block.fields.parent_hash],
                bytes(block.payload),
                self.ledger,
                block.height,
                FEE_RECIPIENT,
                False,
            )
            self.states[name] = done.accounts
        return self.states[name]

    def block(self, parent: Block | None, salt: int, count: int = 3) -> Block:
        """Return a block of `count` transfers; the same arguments give the same block."""
        made = self.accounts(parent)
        height = parent.height + 1 if parent else 1
        seed = oracle.plain_hash(
            (parent.hash if parent else self.hash) + salt.to_bytes(8, "little")
        )
        rng = np.random.default_rng(list(seed))
        by_key = {account.key: account for account in made}
        nonces = {n: by_key[key_pair(n)[0]].nonce for n in range(self.senders)}
        transactions = []
        for _ in range(count):
            sender = int(rng.integers(self.senders))
            recipient = rng.bytes(32) if rng.random() < 0.3 else made[rng.integers(len(made))].key
            amount = int(rng.integers(0, 50))
            transactions.append(self.transaction(sender, nonces[sender], recipient, amount))
            nonces[sender] += 1
        return self.block_of(parent, transactions, 1_000 * height + salt % 1_000)

    def block_of(
        self, parent: Block | None, transactions: Sequence[Any], timestamp_ms: int
    ) -> Block:
        """Return the block of these transactions in their lanes."""
        payload = bytes(oracle.encode_payload(oracle.pack_lanes(list(transactions))))
        height = parent.height + 1 if parent else 1
        done = oracle.execute_payload(
            self.accounts(parent), payload, self.ledger, height, FEE_RECIPIENT, False
        )
        header = Header(
            chain_id=CHAIN_ID,
            epoch=Epoch(0),
            height=Height(height),
            parent_hash=Hash32(parent.hash if parent else self.hash),
            timestamp_ms=TimestampMs(timestamp_ms),
            proposer=PublicKey(bytes([4]) * 32),
            fee_recipient=PublicKey(FEE_RECIPIENT),
            validator_set_id=Hash32(bytes([5]) * 32),
            payload_commitment=payload_commitment(payload),
            payload_bytes=len(payload),
            transaction_count=len(transactions),
            transactions_root=Hash32(done.transactions_root),
            state_hash=Hash32(done.state_hash),
            receipts_hash=Hash32(done.receipts_hash),
        )
        block = Block(header=header.encode(), payload=payload)
        self.states[block.hash] = done.accounts
        return block


class Home:
    """A home on disk with a service over it; knows the events that the service told."""

    def __init__(
        self,
        folder: Path,
        maker: Maker | None = None,
        *,
        config: StoreConfig = STORE,
        backend: Callable[[], Backend] | str = "auto",
        **options: Any,
    ) -> None:
        """Make the home and open it."""
        self.maker = maker or Maker()
        self.folder = folder
        self.events: list[Event] = []
        self._config = config
        self._backend = backend
        self._options = options
        Store.create(folder, self.maker.genesis)
        self.open()

    def open(self) -> None:
        """Open store and service."""
        self.store = Store.open(self.folder, self._config, self.maker.hash)
        backend = self._backend if isinstance(self._backend, str) else self._backend()
        self.service: Service = open_service(
            self.store, backend=backend, threads=2, report=self.events.append, **self._options
        )

    def close(self) -> None:
        """Close both."""
        self.service.close()
        self.store.close()

    def restart(self) -> None:
        """Close and open again."""
        self.close()
        self.open()


class HomeDriver:
    """Drives a service in this process through the conformance suite."""

    fee_recipient = FEE_RECIPIENT

    def __init__(self, home: Home) -> None:
        """Drive a fresh home."""
        self.home = home
        self.genesis = BlockId(height=0, hash=home.maker.hash)
        parameters = home.maker.genesis.parameters
        self.unfinalized_max = parameters.unfinalized_max
        self.limits = Limits(
            bytes=parameters.payload_bytes_max,
            transactions=parameters.transactions_max,
            objects=parameters.objects_max,
        )

    @property
    def engine(self) -> Any:
        """The service as it runs now."""
        return self.home.service

    def block(self, parent: Block | None, salt: int) -> Block:
        """Return a valid block."""
        return self.home.maker.block(parent, salt)

    def commitment(self, payload: bytes) -> bytes:
        """Return the commitment of any bytes."""
        return payload_commitment(payload)

    def records(self, count: int) -> bytes:
        """Return records that are includable on genesis, of one sender each."""
        made = [self.home.maker.transaction(n, 0, b"\x01" * 32) for n in range(count)]
        return b"".join(oracle.encode_transaction(item) for item in made)

    def restart(self) -> None:
        """Open the home anew."""
        self.home.restart()
