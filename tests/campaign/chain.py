"""A small chain whose every state the oracle knows: blocks for an executor, with right answers.

Blocks are made by the specification alone (`spec.oracle`): payload, roots, header. So whatever an
executor answers can be compared with what is right, and nothing of the executor is used to say so.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from spec import oracle

CHAIN_ID = 7
FEE_RECIPIENT = b"\xfe" * 32
ACCOUNT_MINIMUM = 5
BALANCE = 1_000_000_000
START_MS = 1_700_000_000_000
UNFINALIZED_MAX = 8
PAYLOAD_BYTES_MAX = 2**22
VALIDATOR = bytes(SigningKey(bytes(32)).verify_key)
"""who never signs anything: only an executor runs"""
NEW_KEYS = 300
"""keys that get accounts over time"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block and the state after it."""

    height: int
    hash: bytes
    parent_hash: bytes
    timestamp_ms: int
    header: bytes
    payload: bytes
    transaction_count: int
    state_hash: bytes
    accounts: list[Any] = field(repr=False)


class OracleChain:
    """Genesis, accounts with their signing keys, and the blocks that were made."""

    def __init__(self, rng: random.Random, sender_count: int = 48) -> None:
        """Draw the keys."""
        self._rng = rng
        signers = [SigningKey(rng.randbytes(32)) for _ in range(sender_count)]
        self._signers = {bytes(signer.verify_key): signer for signer in signers}
        self._recipients = [*self._signers, *(rng.randbytes(32) for _ in range(NEW_KEYS))]
        self.genesis_json = self._genesis_json()
        self.genesis: Block | None = None
        self.blocks: dict[bytes, Block] = {}
        self._ledger: Any = None

    def write_genesis(self, path: Path) -> None:
        """Write the genesis for `init`."""
        path.write_text(json.dumps(self.genesis_json))

    def begin(self, genesis_hash: bytes) -> Block:
        """Take the hash that `init` printed; the accounts stand in order of their keys."""
        accounts = [oracle.Account(key, BALANCE) for key in sorted(self._signers)]
        self._ledger = oracle.Ledger(
            CHAIN_ID,
            fee_minimum=1,
            account_minimum=ACCOUNT_MINIMUM,
            accounts_max=2**32 - 2,
            domain=oracle.transaction_domain(genesis_hash),
        )
        self.genesis = Block(
            height=0,
            hash=genesis_hash,
            parent_hash=bytes(32),
            timestamp_ms=START_MS,
            header=b"",
            payload=b"",
            transaction_count=0,
            state_hash=oracle.state_hash(accounts),
            accounts=accounts,
        )
        self.blocks = {genesis_hash: self.genesis}
        return self.genesis

    def transactions(self, parent: Block, count: int) -> list[Any]:
        """Return signed transfers that are includable on a block; some of them will not succeed."""
        rng, made = self._rng, []
        nonces = {account.key: account.nonce for account in parent.accounts}
        senders = list(self._signers)
        for _ in range(count):
            sender = rng.choice(senders)
            amount = BALANCE * 2 if rng.random() < 0.02 else rng.randrange(0, 1_000)
            unsigned = oracle.Transaction(
                CHAIN_ID,
                nonces[sender],
                parent.height + 100,
                amount,
                rng.randrange(1, 5),
                sender,
                rng.choice(self._recipients),
                rng.randbytes(16),
            )
            nonces[sender] += 1
            made.append(self._signed(unsigned))
        return made

    def make(self, parent: Block, count: int) -> Block:
        """Return a new block of `count` transfers on a block of this chain."""
        lanes = oracle.pack_lanes(self.transactions(parent, count))
        step_ms = self._rng.randrange(1, 1_000)
        return self.adopt(parent, oracle.encode_payload(lanes), parent.timestamp_ms + step_ms)

    def adopt(self, parent: Block, payload: bytes, timestamp_ms: int) -> Block:
        """Return the block of any valid payload, with the results that the oracle computes."""
        height = parent.height + 1
        done = oracle.execute_payload(
            parent.accounts, payload, self._ledger, height, FEE_RECIPIENT, verify=False
        )
        header = oracle.encode_header(
            {
                "version": 1,
                "chain_id": CHAIN_ID,
                "height": height,
                "parent_hash": parent.hash,
                "timestamp_ms": timestamp_ms,
                "proposer": bytes(31) + b"\1",
                "fee_recipient": FEE_RECIPIENT,
                "validator_set_id": bytes(31) + b"\2",
                "payload_commitment": oracle.payload_commitment(payload),
                "payload_bytes": len(payload),
                "transaction_count": len(done.statuses),
                "transactions_root": done.transactions_root,
                "state_hash": done.state_hash,
                "receipts_hash": done.receipts_hash,
            }
        )
        block = Block(
            height=height,
            hash=oracle.block_hash(header),
            parent_hash=parent.hash,
            timestamp_ms=timestamp_ms,
            header=header,
            payload=payload,
            transaction_count=len(done.statuses),
            state_hash=done.state_hash,
            accounts=done.accounts,
        )
        return self.blocks.setdefault(block.hash, block)

    def ancestors(self, block: Block) -> list[Block]:
        """Return a block and its ancestors that are still kept, the newest first."""
        found = [block]
        while found[-1].parent_hash in self.blocks:
            found.append(self.blocks[found[-1].parent_hash])
        return found

    def descends(self, block: Block, ancestor: Block) -> bool:
        """Say whether a block is another one or comes after it."""
        here = block
        while here.height > ancestor.height and here.parent_hash in self.blocks:
            here = self.blocks[here.parent_hash]
        return here.hash == ancestor.hash

    def forget(self, finalized: Block, keep: int) -> list[Block]:
        """Drop what does not descend from the finalized block, and what lies `keep` below it.

        Returns the blocks of abandoned branches.
        """
        kept = {block.hash for block in self.ancestors(finalized)[: keep + 1]}
        dropped = []
        for block in list(self.blocks.values()):
            if block.hash in kept or self.descends(block, finalized):
                continue
            del self.blocks[block.hash]
            if block.height > finalized.height - keep:
                dropped.append(block)
        return dropped

    def _signed(self, unsigned: Any) -> Any:
        message = oracle.signed_message(unsigned, self._ledger.domain)
        signature = self._signers[unsigned.sender].sign(message).signature
        return oracle.replace(unsigned, signature=signature)

    def _genesis_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "chain_id": CHAIN_ID,
            "timestamp_ms": START_MS,
            "account_minimum": ACCOUNT_MINIMUM,
            "fee_minimum": 1,
            "parameters": {
                "heights_per_epoch": 100,
                "delta_ms": 200,
                "execute_max_ms": 300,
                "transfer_max_ms": 400,
                "retransmit_interval_ms": 1000,
                "evidence_window_epochs": 4,
                "unfinalized_max": UNFINALIZED_MAX,
                "payload_bytes_max": PAYLOAD_BYTES_MAX,
            },
            "validators": [{"public_key": f"0x{VALIDATOR.hex()}", "power": 1}],
            "accounts": [
                {"address": f"0x{key.hex()}", "balance": BALANCE} for key in self._signers
            ],
        }
