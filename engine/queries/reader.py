"""Answers to what users ask, from views, store and service; no HTTP in here.

Accounts and status are read in memory and never wait (they raise `Changing` while the writer is at
work: ask again). Everything else may read the disk, and is called on a thread of its own.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from threading import Event
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from engine.address import decode_address, encode_address
from engine.constants import SIGNED_BYTES, TRANSACTION_BYTES
from engine.errors import AddressError
from engine.header import Header
from engine.pool_rules import PoolStatus
from engine.queries import answers
from engine.queries.errors import (
    QueryError,
    bad_address,
    bad_request,
    busy,
    damaged,
    not_found,
    pruned,
)
from engine.queries.proof_trees import ProofTrees, TooSoon, TreeKeeper, make_trees
from engine.queries.proofs import AccountProver, transaction_proof
from engine.queries.statuses import StatusKeeper
from engine.recent_blocks import BLOCKS_MAX
from engine.service import Service
from engine.store.indexes import Place
from engine.store.store import Store
from engine.store.values import StoredBlock
from engine.types import AT, At
from engine.views import Changing
from engine.writer import seconds
from engine_api.protocol import Deadline
from kernels.layout import BELOW_ACCOUNT_MINIMUM, INSUFFICIENT_BALANCE, SUCCESS, U8

T = TypeVar("T")
ADDRESSES_MAX = 2**16
"""Addresses whose keys are remembered, and keys whose addresses are."""
PAGE_MAX = 100
PAGE_DEFAULT = 20
PROOF_WAIT_MS = 5_000
"""How long a proof waits for its turn among the writer's work."""
BEFORE_MAX = 2**64 - 1
SETTLE_PAUSE_MS = 1
SETTLE_ATTEMPTS = 5_000
INDEX_ATTEMPTS = 1_000
"""Pauses for which a history waits for the newest blocks to be indexed."""

POOL_STATES: dict[PoolStatus, answers.TransactionState] = {
    PoolStatus.PENDING: "pending",
    PoolStatus.REJECTED: "rejected",
    PoolStatus.REPLACED: "replaced",
    PoolStatus.DROPPED: "dropped",
    PoolStatus.EXPIRED: "expired",
}
"""Of a transaction in no block."""
STATUS_NAMES: dict[int, Any] = {
    SUCCESS: "SUCCESS",
    INSUFFICIENT_BALANCE: "INSUFFICIENT_BALANCE",
    BELOW_ACCOUNT_MINIMUM: "BELOW_ACCOUNT_MINIMUM",
}


class Queries:
    """What one node knows."""

    def __init__(self, service: Service, store: Store, *, software: str) -> None:
        """Answer from a running service and its store."""
        self.service = service
        self.genesis = store.genesis
        self._store = store
        self._software = software
        self._statuses = StatusKeeper()
        self._prover = AccountProver()
        self._trees = TreeKeeper()
        prefix = store.genesis.address_prefix
        self._key_of = lru_cache(ADDRESSES_MAX)(partial(decode_address, prefix=prefix))
        self.address_of = lru_cache(ADDRESSES_MAX)(partial(encode_address, prefix=prefix))

    def key_of(self, address: str) -> bytes:
        """Return the key of an address. Raises QueryError."""
        try:
            return self._key_of(address)
        except AddressError as error:
            raise bad_address(error) from error

    # In memory

    def status(self) -> answers.Status:
        """Return where the node stands."""
        genesis, blocks = self.genesis, self.service.views.standing.blocks
        names = {
            at: answers.BlockName(height=blocks[at].height, hash=blocks[at].block_hash.hex())
            for at in AT
        }
        return answers.Status(
            chain_id=genesis.chain_id,
            genesis_hash=self._store.genesis_hash.hex(),
            address_prefix=genesis.address_prefix,
            symbol=genesis.symbol,
            decimals=genesis.decimals,
            account_minimum=str(genesis.account_minimum),
            fee_minimum=str(genesis.fee_minimum),
            pending_count=self.service.queued_count,
            degraded=self.service.degraded,
            software=self._software,
            **names,
        )

    def account(self, address: str, at: At = "finalized") -> answers.Account:
        """Return an account at a followed block. Raises QueryError, Changing."""
        key = self.key_of(address)
        standing = self.service.views.standing
        read = self.service.views.read(key, at)
        node = standing.blocks[at] if read is None else read.at
        balance = 0 if read is None else read.balance
        reserve = min(balance, self.genesis.account_minimum)
        nonce = 0 if read is None else read.nonce
        following = None
        if at == "head":
            waiting = self.service.pool.next_nonce_of(key)
            following = str(nonce if waiting is None else max(nonce, waiting))
        return answers.Account(
            address=self.address_of(key),
            exists=read is not None,
            slot=None if read is None else read.slot,
            balance=str(balance),
            spendable=str(balance - reserve),
            nonce=str(nonce),
            next_nonce=following,
            at=at,
            block=answers.BlockName(height=node.height, hash=node.block_hash.hex()),
        )

    # From disk, or waiting for the writer

    def proven_account(self, address: str, at: At) -> answers.Account:
        """Return an account with the proof that the header of its block has it.

        Raises QueryError, TooSoon.
        """
        key = self.key_of(address)
        deadline = Deadline.after_ms(PROOF_WAIT_MS)
        work = partial(self._prover.prove, key=key, at=at)
        found = self.service.ask("a proof was made", work, deadline)
        if isinstance(found, TooSoon):
            raise found
        if found is None:
            raise not_found(
                "proof.no_account",
                "there is no such account at that block, and absence cannot be proven",
                "ask without proof, or after its first credit is final",
            )
        block_hash, proof = found
        stored = self._store.block(block_hash)
        if stored is None:
            raise not_found(
                "proof.no_header",
                "the block is genesis, which has no header, or its header is no longer kept",
                "wait for the first block, or ask with at=head",
            )
        leaf = bytes.fromhex(proof["leaf"])
        record = leaf[64 * (int(proof["slot"]) % 2) :][:64]
        balance = int.from_bytes(record[32:40], "little")
        reserve = min(balance, self.genesis.account_minimum)
        return answers.Account(
            address=self.address_of(key),
            exists=True,
            slot=int(proof["slot"]),
            balance=str(balance),
            spendable=str(balance - reserve),
            nonce=str(int.from_bytes(record[40:48], "little")),
            at=at,
            block=answers.BlockName(height=stored.height, hash=block_hash.hex()),
            proof={**proof, "header": stored.header.hex()},
        )

    def history(self, address: str, before: int | None, limit: int) -> answers.History:
        """Return a page of an account's final transactions, newest first."""
        key = self.key_of(address)
        self._wait_indexed(self._store.finalized.height if before is None else (before - 1) >> 32)
        read = self._settled(lambda: self.service.views.read(key, "finalized"))
        entries: list[answers.HistoryEntry] = []
        following = None
        if read is not None:
            page = self._store.account_history(read.slot, before, limit)
            following = page.before
            for place in page.places:
                entry = self._entry(place)
                if entry is None:
                    following = None
                    break
                entries.append(entry)
        return answers.History(
            address=self.address_of(key),
            transactions=entries,
            before=None if following is None else str(following),
        )

    def transaction(self, text: str, *, is_proven: bool = False) -> answers.TransactionAnswer:
        """Return where a transaction is. Raises QueryError if nobody knows it, TooSoon."""
        name = _hash_of(text)
        pause = Event()
        lacking = self._lacking()
        for _ in range(SETTLE_ATTEMPTS):
            found = self._find(name)
            if found is not None:
                break
            waiting = self._from_pool(name, lacking)
            if waiting is not None:
                if is_proven:
                    raise _not_included()
                return waiting
            # A block took it between both looks; readers see that block in a moment.
            pause.wait(seconds(SETTLE_PAUSE_MS))
        else:
            raise busy("the executor is at work on a large block")
        block, position, is_final = found
        record = self._store.record(block.block_hash, position)
        if record is None:
            raise pruned("the block of this transaction")
        if blake3(record).digest() != name:
            raise damaged()
        receipt = self._receipt(block, position, record, is_final=is_final)
        answer = answers.TransactionAnswer(
            hash=name.hex(),
            state="finalized" if is_final else "included",
            reason="" if receipt.status == "SUCCESS" else receipt.status,
            transaction=self.transaction_of(record),
            receipt=receipt,
        )
        return self._with_proof(answer, block, position, record) if is_proven else answer

    def receipt(self, text: str) -> answers.Receipt:
        """Return what a transaction came to."""
        receipt = self.transaction(text).receipt
        if receipt is None:
            raise _not_included()
        return receipt

    def block(self, text: str) -> answers.Block:
        """Return a block by height, hash, or the word finalized, safe or head."""
        stored = self._named_block(text)
        finalized = self._store.finalized.height
        is_final = stored.height <= finalized and (
            (final := self._store.block_at(stored.height)) is not None
            and final.block_hash == stored.block_hash
        )
        fields = Header.decode(stored.header)
        hashes = {
            name: getattr(fields, name).hex()
            for name in answers.Block.__struct_fields__
            if isinstance(getattr(fields, name, None), bytes)
        }
        hashes["proposer"] = "0x" + fields.proposer.hex()
        hashes["fee_recipient"] = self.address_of(bytes(fields.fee_recipient))
        return answers.Block(
            height=fields.height,
            hash=stored.block_hash.hex(),
            is_final=is_final,
            version=fields.version,
            chain_id=fields.chain_id,
            epoch=fields.epoch,
            timestamp_ms=fields.timestamp_ms,
            payload_bytes=fields.payload_bytes,
            transaction_count=fields.transaction_count,
            **hashes,
        )

    def transaction_of(self, record: bytes) -> answers.Transaction:
        """Return the fields of a record."""
        numbers = [int.from_bytes(record[i : i + 8], "little") for i in (8, 16, 24, 32)]
        return answers.Transaction(
            nonce=str(numbers[0]),
            valid_until=str(numbers[1]),
            amount=str(numbers[2]),
            fee=str(numbers[3]),
            memo=record[48:64].hex(),
            sender=self.address_of(record[64:96]),
            recipient=self.address_of(record[96:128]),
            signature=record[SIGNED_BYTES:TRANSACTION_BYTES].hex(),
        )

    # Below

    def _lacking(self) -> str:
        """Name final heights whose transactions neither memory nor index knows; empty: none."""
        recent = self.service.views.recent_heights()
        for first, last in self._store.unindexed():
            if last - first >= len(recent) or not recent.issuperset(range(first, last + 1)):
                return f"{first} to {last}"
        return ""

    def _wait_indexed(self, height: int) -> None:
        """Wait until all final blocks up to a height are in the index. Raises QueryError."""
        pause = Event()
        for _ in range(INDEX_ATTEMPTS):
            spans = [span for span in self._store.unindexed() if span[0] <= height]
            if not spans:
                return
            first, last = spans[0]
            if last - first >= BLOCKS_MAX:
                break
            pause.wait(seconds(SETTLE_PAUSE_MS))
        raise _not_indexed(f"{first} to {last}")

    def _from_pool(self, name: bytes, lacking: str) -> answers.TransactionAnswer | None:
        """Return what the pool knows of a transaction, None if a block has it; or QueryError.

        lacking: final heights that may have it all the same, whatever the pool says of it.
        """
        found = self.service.status_of(name)
        if found.status in (PoolStatus.INCLUDED, PoolStatus.FINALIZED):
            return None
        if lacking and found.status is not PoolStatus.PENDING:
            raise _not_indexed(lacking)
        state = POOL_STATES.get(found.status)
        if state is None:
            raise not_found(
                "transaction.unknown",
                "no final, followed or waiting transaction has this hash here; outcomes of others "
                f"are known from {found.covered_from_ms} on (milliseconds since 1970), at most "
                "since the node started",
                "compare the hash; if it is right, the transaction never came or is forgotten: "
                "send the same one again; another one with another nonce could be paid beside it",
            )
        reason = "" if state == "pending" else found.reason.name
        if found.is_parked:
            reason = "PARKED"
        return answers.TransactionAnswer(
            hash=name.hex(), state=state, reason=reason, transaction=None, receipt=None
        )

    def _settled(self, read: Callable[[], T]) -> T:
        """Read from memory, waiting for the writer to be done. Raises QueryError."""
        pause = Event()
        for _ in range(SETTLE_ATTEMPTS):
            try:
                return read()
            except Changing:
                pause.wait(seconds(SETTLE_PAUSE_MS))
        raise busy("the executor is at work on a large block")

    def _find(self, name: bytes) -> tuple[StoredBlock, int, bool] | None:
        """Return (block, position, whether it is final) of an included transaction."""
        followed = self.service.views.find_followed(name)
        if followed is not None:
            node = followed[0].node
            stored = self._store.block(node.block_hash)
            if stored is not None:
                return stored, followed[1], False
        recent = self.service.views.find_recent(name)
        place = self._store.find_transaction(name) if recent is None else Place(*recent)
        if place is None:
            return None
        stored = self._store.block_at(place.height)
        if stored is None:
            raise pruned("the block of this transaction")
        return stored, place.position, True

    def _entry(self, place: Place) -> answers.HistoryEntry | None:
        """Return one line of an account's history, None where it is pruned."""
        stored = self._store.block_at(place.height)
        record = self._store.compared_at(place)
        if stored is None or record is None:
            return None
        receipt = self._receipt(stored, place.position, record, is_final=True)
        return answers.HistoryEntry(
            hash=receipt.transaction_hash,
            transaction=self.transaction_of(record),
            receipt=receipt,
        )

    def _receipt(
        self, block: StoredBlock, position: int, record: bytes, *, is_final: bool
    ) -> answers.Receipt:
        status = int(self._statuses_of(block.block_hash)[position])
        return answers.Receipt(
            transaction_hash=blake3(record).hexdigest(),
            status=STATUS_NAMES[status],
            kind=record[1],
            units=0,
            fee_charged=str(int.from_bytes(record[32:40], "little")),
            block=answers.BlockName(height=block.height, hash=block.block_hash.hex()),
            position=position,
            is_final=is_final,
        )

    def _statuses_of(self, block_hash: bytes) -> U8:
        """Return the statuses of a block's transactions. Raises QueryError."""
        for followed in self.service.views.standing.followed:
            if followed.node.block_hash == block_hash:
                return followed.outcome.statuses
        return self._statuses.statuses_of(block_hash, partial(self._read_statuses, block_hash))

    def _read_statuses(self, block_hash: bytes) -> U8:
        history = self._store.history(block_hash)
        if history is None:
            raise pruned("the receipts of this block")
        return history.statuses

    def _with_proof(
        self, answer: answers.TransactionAnswer, block: StoredBlock, position: int, record: bytes
    ) -> answers.TransactionAnswer:
        """Return the answer with its proof. Raises QueryError, TooSoon."""
        statuses = self._statuses_of(block.block_hash)
        make = partial(self._make_trees, block.block_hash, statuses)
        trees = self._trees.trees_of(block.block_hash, make)
        proof = transaction_proof(block.header, record, int(statuses[position]), position, trees)
        return msgspec.structs.replace(answer, proof=proof)

    def _make_trees(self, block_hash: bytes, statuses: U8) -> ProofTrees:
        payload = self._store.payload(block_hash)
        if payload is None:
            raise pruned("the payload of this block")
        limits = self.genesis.parameters.limits
        return make_trees(self.service.backend, payload, statuses, limits)

    def _stored(self, name: bytes) -> StoredBlock | None:
        """Return a block that was VALID: one that is final, or that is executed here."""
        stored = self._store.block(name)
        if stored is None or any(name == item.hash for item in self.service.status.unfinalized):
            return stored
        final = self._store.block_at(stored.height)
        return stored if final is not None and final.block_hash == name else None

    def _named_block(self, text: str) -> StoredBlock:
        """Return the block of a height, a hash or a word. Raises QueryError."""
        stored = None
        if text in AT:
            stored = self._store.block(self.service.views.standing.blocks[text].block_hash)
        elif text.isascii() and text.isdecimal() and len(text) <= len(str(BEFORE_MAX)):
            height = min(int(text), BEFORE_MAX)
            stored = self._store.block_at(height)
            if stored is None and 0 < height <= self._store.finalized.height:
                raise pruned("this block")
        else:
            stored = self._stored(_hash_of(text))
        if stored is None:
            raise not_found(
                "block.unknown",
                "there is no block of this name here; height 0 is genesis and has no header",
                "name a height from 1 to the finalized one, the hash of a stored block, or one of "
                "finalized, safe, head",
            )
        return stored


def _hash_of(text: str) -> bytes:
    """Return the 32 bytes of 64 hex digits, with or without 0x. Raises QueryError."""
    digits = text.removeprefix("0x")
    if len(digits) != 64 or not set(digits.lower()) <= set("0123456789abcdef"):
        raise bad_request(
            "query.hash", "a hash is 64 hex digits", "copy the whole hash, without spaces"
        )
    return bytes.fromhex(digits)


def _not_indexed(heights: str) -> QueryError:
    return busy(f"the final blocks {heights} are not in the index yet, so that this is not known")


def _not_included() -> QueryError:
    return not_found(
        "transaction.pending",
        "the transaction waits for a block and has no receipt or proof yet",
        "ask again after the next block",
    )
