"""A node's own store in LMDB: final blocks by height and hash, boundaries of epochs, evidence.

A commit is durable when `put` returns, whole or not at all. Rows carry a checksum over table, key
and value; one that differs is an error, never an answer. Payloads are the executor's. The disk
thread writes; anybody may read. Spec: spec/consensus.md#files.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
from blake3 import blake3

from consensus.core import codec
from consensus.core.events import Persist
from consensus.core.types import (
    RANGE_HEADERS_MAX,
    BlockAnswer,
    Boundary,
    Certificate,
    Epoch,
    Evidence,
    Final,
    FinalizedBlock,
    Hash32,
    Header,
    Message,
    PublicKey,
    RangeAnswer,
    Request,
    Validator,
    Want,
)
from runtime.durable import sync_folder
from runtime.errors import ExplainedError

VERSION = 1
MAP_BYTES = 2**40
"""address space that LMDB may grow into; the file is as large as its pages"""
READERS_MAX = 64
CHECK_BYTES = 16
NUMBER_MAX = 2**64 - 1
"""the greatest number that a key has room for; peers ask for the epoch after any that they name"""
EVIDENCE_READ_MAX = 4_096
"""pieces that are read at once, the newest"""
TABLES = ("state", "heights", "hashes", "boundaries", "evidence")

_KEY = blake3(b"", derive_key_context="tos consensus row v1").digest()
_EVIDENCE_KEY = struct.Struct(">QQHBB")
_VALIDATOR_BYTES = 40
_HASH_BYTES = 32


class StoreError(ExplainedError):
    """A store that cannot be used. Codes begin with `consensus_store.`"""


class Store:
    """What is durable beside the journal."""

    def __init__(self, folder: Path, genesis_hash: Hash32) -> None:
        """Open, or make it where there is none yet. Raises StoreError, OSError."""
        self.folder = folder
        is_new = not folder.exists()
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            self._environment = lmdb.open(
                str(folder),
                map_size=MAP_BYTES,
                max_dbs=len(TABLES),
                max_readers=READERS_MAX,
                mode=0o600,
            )
            self._tables = {name: self._environment.open_db(name.encode()) for name in TABLES}
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error
        if is_new:
            sync_folder(folder)
            sync_folder(folder.parent)
        self._check_chain(genesis_hash)

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()

    # --- writing --------------------------------------------------------------------------------

    def put(self, persists: Sequence[Persist]) -> bool:
        """Write what these have for the store in one commit; return whether there was anything.

        Raises StoreError: then stop the node.
        """
        if not any(item.finalized or item.boundary or item.evidence for item in persists):
            return False
        with self._begin(write=True) as transaction:
            for persist in persists:
                for block in persist.finalized:
                    self._put_block(transaction, block)
                if persist.boundary is not None:
                    key = _big(persist.boundary.epoch)
                    value = _encode_boundary(persist.boundary)
                    self._put(transaction, "boundaries", key, value)
                for item in persist.evidence:
                    value = codec.encode_vote(item.first) + codec.encode_vote(item.second)
                    self._put(transaction, "evidence", _evidence_key(item), value)
        return True

    def _put_block(self, transaction: Any, block: FinalizedBlock) -> None:
        certificate = block.certificate
        tail = b"" if certificate is None else codec.encode_certificate(certificate)
        value = block.block_hash + codec.encode_header(block.header) + tail
        key = _big(block.header.height)
        self._put(transaction, "heights", key, value)
        self._put(transaction, "hashes", block.block_hash, key)

    # --- reading --------------------------------------------------------------------------------

    def top(self) -> FinalizedBlock | None:
        """Return the highest final block, which has its certificate; None: only genesis."""
        with self._begin() as transaction, self._cursor(transaction, "heights") as cursor:
            if not cursor.last():
                return None
            return _decode_block(self._checked("heights", *cursor.item()))

    def block(self, height: int) -> FinalizedBlock | None:
        """Return a final block."""
        with self._begin() as transaction:
            value = self._get(transaction, "heights", _big(height))
            return None if value is None else _decode_block(value)

    def height_of(self, block_hash: bytes) -> int | None:
        """Return the height of a final block."""
        with self._begin() as transaction:
            key = self._get(transaction, "hashes", block_hash)
        return None if key is None else int.from_bytes(key, "big")

    def load(self, first: int, count: int) -> tuple[FinalizedBlock, ...]:
        """Return final blocks from a height on, up to the first that is missing."""
        found = []
        with self._begin() as transaction:
            for height in range(first, first + count):
                value = self._get(transaction, "heights", _big(height))
                if value is None:
                    break
                found.append(_decode_block(value))
        return tuple(found)

    def certificate(self, height: int) -> Final | None:
        """Return what makes a height final: the lowest block from it on that has a certificate."""
        for block in self.load(height, 2 * RANGE_HEADERS_MAX):
            if block.certificate is not None:
                return Final(header=block.header, certificate=block.certificate)
        return None

    def boundary(self, epoch: int) -> Boundary | None:
        """Return the beginning of an epoch above 0; None where it has not begun, as 2^64 never."""
        if epoch > NUMBER_MAX:
            return None
        with self._begin() as transaction:
            value = self._get(transaction, "boundaries", _big(epoch))
            return None if value is None else _decode_boundary(value)

    def last_boundaries(self, count: int) -> tuple[Boundary, ...]:
        """Return the latest boundaries, ascending."""
        found = [_decode_boundary(value) for value in self._last("boundaries", count)]
        return tuple(found[::-1])

    def evidence(self) -> tuple[Evidence, ...]:
        """Return what is stored of evidence, by epoch and view, the latest EVIDENCE_READ_MAX."""
        half = codec.VOTE_BYTES
        found = [
            Evidence(first=codec.decode_vote(value[:half]), second=codec.decode_vote(value[half:]))
            for value in self._last("evidence", EVIDENCE_READ_MAX)
        ]
        return tuple(found[::-1])

    def answer(self, request: Request) -> Message | None:
        """Answer a peer as `AnswerFromStore` says; None where there is nothing to say."""
        if request.want == Want.BLOCK:
            return self._answer_block(request.block_hash)
        if request.want == Want.BOUNDARY:
            boundary = self.boundary(request.epoch + 1)
            if boundary is None:
                return None
            return Final(header=boundary.header, certificate=boundary.certificate)
        if request.want == Want.RANGE:
            return self._answer_range(request.first)
        assert request.want == Want.FINAL, request
        top = self.top()
        if top is None:
            return None
        assert top.certificate is not None, "the highest final block has its certificate"
        return Final(header=top.header, certificate=top.certificate)

    def _answer_block(self, block_hash: Hash32) -> Message | None:
        height = self.height_of(block_hash)
        block = None if height is None else self.block(height)
        return None if block is None else BlockAnswer(header=block.header)

    def _answer_range(self, first: int) -> RangeAnswer | None:
        headers: list[Header] = []
        certificate, count = None, 0
        for block in self.load(first, RANGE_HEADERS_MAX):
            if headers and block.header.epoch != headers[0].epoch:
                break
            headers.append(block.header)
            if block.certificate is not None:
                certificate, count = block.certificate, len(headers)
        if certificate is None:
            return None
        return RangeAnswer(headers=tuple(headers[:count]), certificate=certificate)

    # --- rows -----------------------------------------------------------------------------------

    @contextmanager
    def _begin(self, *, write: bool = False) -> Iterator[Any]:
        try:
            with self._environment.begin(write=write) as transaction:
                yield transaction
        except (lmdb.Error, codec.DecodeError) as error:
            raise self._damaged(str(error)) from error

    def _cursor(self, transaction: Any, table: str) -> Any:
        return transaction.cursor(db=self._tables[table])

    def _last(self, table: str, count: int) -> list[bytes]:
        """Return the values of the last rows, the very last first."""
        found: list[bytes] = []
        with self._begin() as transaction, self._cursor(transaction, table) as cursor:
            is_there = cursor.last()
            while is_there and len(found) < count:
                found.append(self._checked(table, *cursor.item()))
                is_there = cursor.prev()
        return found

    def _get(self, transaction: Any, table: str, key: bytes) -> bytes | None:
        stored = transaction.get(key, db=self._tables[table])
        return None if stored is None else self._checked(table, key, stored)

    def _put(self, transaction: Any, table: str, key: bytes, value: bytes) -> None:
        transaction.put(key, value + _check(table, key, value), db=self._tables[table])

    def _checked(self, table: str, key: bytes, stored: bytes) -> bytes:
        value = stored[:-CHECK_BYTES]
        if len(stored) < CHECK_BYTES or _check(table, key, value) != stored[-CHECK_BYTES:]:
            raise self._damaged(f"the row {key.hex()} of {table} has another checksum")
        return value

    def _check_chain(self, genesis_hash: Hash32) -> None:
        """Compare version and chain with those of the first opening."""
        mine = VERSION.to_bytes(4, "little") + genesis_hash
        with self._begin() as transaction:
            found = self._get(transaction, "state", b"chain")
        if found is None:
            with self._begin(write=True) as transaction:
                self._put(transaction, "state", b"chain", mine)
        elif found != mine:
            raise StoreError(
                "consensus_store.other_chain",
                what="this store belongs to another chain or another version",
                where=str(self.folder),
                why=f"it says version {int.from_bytes(found[:4], 'little')}, "
                f"genesis {found[4:].hex()}",
                what_to_do="give every chain a home of its own",
            )

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            "consensus_store.damaged",
            what="the store of final blocks cannot be read or written",
            where=str(self.folder),
            why=why,
            what_to_do="see that the disk has room and works; if the files are damaged, move the "
            "folder `store` and the file `journal` away together: the node then catches up from "
            "its peers and observes for two epochs before it votes",
        )


def _big(number: int) -> bytes:
    """Return a number as a key: big-endian, so that keys ascend with numbers."""
    return number.to_bytes(8, "big")


def _check(table: str, key: bytes, value: bytes) -> bytes:
    data = table.encode().ljust(16, b"\0") + len(key).to_bytes(8, "little") + key + value
    return blake3(data, key=_KEY).digest(CHECK_BYTES)


def _evidence_key(item: Evidence) -> bytes:
    one, two = item.first, item.second
    kinds = sorted((one.kind, two.kind))
    return _EVIDENCE_KEY.pack(one.epoch, one.view, one.signer, *kinds)


def _decode_block(value: bytes) -> FinalizedBlock:
    end = _HASH_BYTES + codec.HEADER_BYTES
    certificate: Certificate | None = None
    if len(value) > end:
        certificate = codec.decode_certificate(value[end:])
    return FinalizedBlock(
        block_hash=Hash32(value[:_HASH_BYTES]),
        header=codec.decode_header(value[_HASH_BYTES:end]),
        certificate=certificate,
    )


def _encode_boundary(boundary: Boundary) -> bytes:
    certificate = codec.encode_certificate(boundary.certificate)
    return b"".join(
        (
            boundary.epoch.to_bytes(8, "little"),
            boundary.block_hash,
            codec.encode_header(boundary.header),
            len(certificate).to_bytes(4, "little"),
            certificate,
            *(one.public_key + one.power.to_bytes(8, "little") for one in boundary.validators),
        )
    )


def _decode_boundary(value: bytes) -> Boundary:
    header_at = 8 + _HASH_BYTES
    length_at = header_at + codec.HEADER_BYTES
    start = length_at + 4
    end = start + int.from_bytes(value[length_at:start], "little")
    return Boundary(
        epoch=Epoch(int.from_bytes(value[:8], "little")),
        block_hash=Hash32(value[8:header_at]),
        header=codec.decode_header(value[header_at:length_at]),
        certificate=codec.decode_certificate(value[start:end]),
        validators=tuple(
            Validator(
                public_key=PublicKey(value[at : at + 32]),
                power=int.from_bytes(value[at + 32 : at + _VALIDATOR_BYTES], "little"),
            )
            for at in range(end, len(value), _VALIDATOR_BYTES)
        ),
    )
