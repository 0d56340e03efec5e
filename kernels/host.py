"""The host's backend: scalar bodies for `serial`, vector forms over threads for `cpu`."""

import secrets
from collections.abc import Callable
from typing import Literal

import numpy as np

from kernels import blake3, blake3_wide, receipt_hash, signatures, transaction_hash
from kernels.blake3_vectors import WIDTH
from kernels.host_accounts import HostAccounts, StateTree, read_only
from kernels.layout import I32, U8, U64, Columns
from kernels.merkle import MerkleTree, list_root
from kernels.pool import Pool
from kernels.signed_message import signed_messages

HASH_GRAIN = 2048
"""Messages below which a second thread costs more than it brings."""
_SINGLE: signatures.PathName = "libsodium"
"""The path of a single signature, whatever the others take: it is always in use."""
SECRET_BYTES = 64
"""Of the account table's keyed hash; drawn anew per process, never part of a result."""


def new_secret() -> bytes:
    """Return a new secret for a table of accounts."""
    return secrets.token_bytes(SECRET_BYTES)


def read_only_columns(columns: Columns) -> Columns:
    """Return columns as read-only views."""
    return Columns(*(read_only(column) for column in columns))


class HostBackend:
    """Implements `kernels.backend.Backend` on the host."""

    def __init__(
        self, name: Literal["serial", "cpu"], threads: int | None, known_keys: int = 0
    ) -> None:
        """Start the pool (None: one thread per core) and check the paths of signatures.

        known_keys: see `open_backend`. `serial` verifies by libsodium alone, so that it can confirm
        what another path refused. Raises what `kernels.signatures` does: PathUnavailable,
        VerdictDiffers.
        """
        self.name: Literal["serial", "cpu", "gpu"] = name
        self._wide = name == "cpu"
        self._pool = Pool(threads)
        self.threads = self._pool.threads
        path: signatures.PathName = signatures.choose_path() if self._wide else "libsodium"
        for used in dict.fromkeys((path, _SINGLE)):
            signatures.start_path(used)
        self._verifier = signatures.Verifier(path, self._pool, known_keys)

    @property
    def degraded(self) -> str:
        """See Backend.degraded: a host has nothing to give up."""
        return ""

    @property
    def known_keys(self) -> tuple[int, int]:
        """See Backend.known_keys."""
        return self._verifier.known.counts

    def hash_messages(self, messages: U8) -> U8:
        """See Backend.hash_messages."""
        if messages.ndim != 2 or messages.dtype != np.uint8:
            raise ValueError(f"messages must be (n, m) uint8: {messages.shape} {messages.dtype}")
        out = np.empty((len(messages), 32), np.uint8)
        kernel = blake3_wide.hash_rows_wide if self._wide else blake3.hash_rows_scalar
        key = blake3.key_words(None)
        ranges = self._pool.ranges(len(messages), grain=HASH_GRAIN)
        self._pool.run(kernel, ranges, read_only(messages), key, blake3.PLAIN, out)
        return out

    def hash_transactions(self, columns: Columns) -> U8:
        """See Backend.hash_transactions."""
        out = np.empty((len(columns.kind), 32), np.uint8)
        kernel = transaction_hash.hash_transactions_scalar
        if self._wide and len(out) >= WIDTH:
            kernel = transaction_hash.hash_transactions_wide
        ranges = self._pool.ranges(len(out), grain=HASH_GRAIN)
        self._pool.run(kernel, ranges, read_only_columns(columns), out)
        return out

    def hash_receipts(self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes) -> U8:
        """See Backend.hash_receipts."""
        out = np.empty((len(hashes), 32), np.uint8)
        kernel = receipt_hash.hash_receipts_scalar
        if self._wide and len(out) >= WIDTH:
            kernel = receipt_hash.hash_receipts_wide
        columns = [read_only(column) for column in (hashes, statuses, kinds, fees)]
        ranges = self._pool.ranges(len(out), grain=HASH_GRAIN)
        self._pool.run(kernel, ranges, *columns, blake3.key_words(key), out)
        return out

    def transactions_root(
        self, columns: Columns, node_key: bytes, absent: bytes
    ) -> tuple[U8, bytes]:
        """See Backend.transactions_root."""
        hashes = self.hash_transactions(columns)
        return hashes, self.list_root(hashes, node_key, absent)

    def receipts_root(
        self, hashes: U8, statuses: U8, kinds: U8, fees: U64, key: bytes, node_key: bytes,
        absent: bytes,
    ) -> bytes:  # fmt: skip
        """See Backend.receipts_root."""
        leaves = self.hash_receipts(hashes, statuses, kinds, fees, key)
        return self.list_root(leaves, node_key, absent)

    def prefetch(self, columns: Callable[[], Columns]) -> None:
        """See Backend.prefetch: a block is executed where it lies."""

    def list_root(self, leaves: U8, node_key: bytes, absent: bytes) -> bytes:
        """See Backend.list_root."""
        root: bytes = list_root(leaves, node_key, absent, self._pool, self._wide)
        return root

    def verify_signatures(self, public_keys: U8, signatures_: U8, messages: U8) -> U8:
        """See Backend.verify_signatures."""
        count = len(public_keys)
        for name, array, width in (
            ("public_keys", public_keys, 32),
            ("signatures", signatures_, 64),
            ("messages", messages, messages.shape[-1]),
        ):
            if array.shape != (count, width) or array.dtype != np.uint8:
                raise ValueError(f"{name} must be ({count}, {width}) uint8, not {array.shape}")
        rows = [read_only(array) for array in (public_keys, signatures_, messages)]
        out = self._verifier.verify(*rows)
        return out.view(np.bool_)

    def signed_messages(self, columns: Columns, rows: I32, domain: bytes) -> U8:
        """Return what the signatures of transactions rows, (m,) int32, sign: (m, 160) uint8."""
        return signed_messages(columns, rows, domain, self._pool)

    def verify_transactions(self, columns: Columns, rows: I32, domain: bytes) -> U8:
        """See Backend.verify_transactions."""
        messages = self.signed_messages(columns, rows, domain)
        keys, signatures_ = columns.sender, columns.signature
        if len(rows) != len(keys):
            keys, signatures_ = keys[rows], signatures_[rows]
        return self.verify_signatures(keys, signatures_, messages)

    def open_accounts(
        self,
        keys: U8,
        balances: U64,
        nonces: U64,
        *,
        leaf_key: bytes,
        node_key: bytes,
        capacity: int = 0,
    ) -> HostAccounts:
        """See Backend.open_accounts."""
        tree = self.new_tree(leaf_key, node_key)
        return self.open_on(tree, keys, balances, nonces, secret=new_secret(), capacity=capacity)

    def new_tree(self, leaf_key: bytes, node_key: bytes) -> MerkleTree:
        """Return an empty tree of accounts."""
        return MerkleTree(leaf_key=leaf_key, node_key=node_key, pool=self._pool, wide=self._wide)

    def open_on(
        self,
        tree: StateTree,
        keys: U8,
        balances: U64,
        nonces: U64,
        *,
        secret: bytes,
        capacity: int,
    ) -> HostAccounts:
        """Make accounts resident under a tree of the caller's; otherwise `open_accounts`."""
        return HostAccounts(
            keys,
            balances,
            nonces,
            tree=tree,
            pool=self._pool,
            wide=self._wide,
            secret=secret,
            capacity=capacity,
        )

    def close(self) -> None:
        """See Backend.close."""
        self._pool.close()
