"""From bytes to what the pool can judge: checks of records that need no state, and signatures.

Runs on the thread of whoever brings a batch. The cheap checks come first; what waits already or was
verified before costs no signature; then all others at once, vectorised. A record whose signature is
not valid leaves no trace but its answer. Spec: spec/transaction.md, spec/signatures.md#verdict.
"""

from collections.abc import Callable

import numpy as np

from engine.constants import (
    DOMAIN_BYTES,
    MESSAGE_BYTES,
    SIGNED_BYTES,
    TRANSACTION_BYTES,
    TRANSACTION_VERSION,
    TRANSFER,
)
from engine.lanes import I64
from engine.mempool import Mempool
from engine.pool_rules import BATCH_MAX, Checked, PoolReason
from engine.verified import VerifiedMarks
from kernels import pending_rows
from kernels.backend import Backend
from kernels.host_accounts import read_only
from kernels.layout import NO_SLOT, U8, U64

_RESERVED_WORD = 5
"""Bytes 40 to 47 of a record, zero; bytes 2 and 3 are part of the first word."""
_KIND_MASK = np.uint64(0xFFFF_FFFF)


class Admission:
    """Checks batches for one pool; any thread may call."""

    def __init__(
        self,
        pool: Mempool,
        *,
        chain_id: int,
        domain: bytes,
        backend: Callable[[], Backend],
        marks: VerifiedMarks,
    ) -> None:
        """Judge by one chain.

        domain: what every signature of the chain covers first, 32 bytes; backend: says on which
        one to hash and verify at present.
        """
        assert len(domain) == DOMAIN_BYTES, len(domain)
        self._pool = pool
        self._domain = np.frombuffer(domain, np.uint8)
        self._backend = backend
        self._marks = marks
        self._kind_word = np.uint64(TRANSACTION_VERSION | TRANSFER << 8)
        self._first_word = self._kind_word | np.uint64(chain_id << 32)

    def check(self, batch: bytes | memoryview) -> Checked:
        """Check records of 192 bytes, one after another; at most BATCH_MAX of them."""
        words = as_words(batch)
        assert len(words) <= BATCH_MAX, "a batch has a bound"
        codes = self._check_alone(words)
        records = words.view(np.uint8)
        hashes = self._backend().hash_messages(records)
        senders = np.ascontiguousarray(records[:, 64:96])
        is_open = codes == PoolReason.ACCEPTED
        codes[is_open & (self._pool.find(hashes) != NO_SLOT)] = PoolReason.DUPLICATE
        rows = np.flatnonzero(codes == PoolReason.ACCEPTED)
        if len(rows):
            rows = rows[~self._marks.is_verified(hashes[rows])]
        if len(rows):
            self._verify(records, senders, hashes, rows, codes)
        return Checked(
            words=words,
            hashes=hashes,
            senders=senders,
            recipients=np.ascontiguousarray(records[:, 96:128]),
            codes=codes,
        )

    def _check_alone(self, words: U64) -> U8:
        """Return the first fault of each record that shows without hash, signature and state."""
        codes = np.zeros(len(words), np.uint8)
        codes[words[:, pending_rows.FEE] < np.uint64(self._pool.rules.fee_minimum)] = (
            PoolReason.FEE_BELOW_MINIMUM
        )
        codes[words[:, pending_rows.UNTIL] <= np.uint64(self._pool.height)] = PoolReason.EXPIRED
        codes[words[:, 0] != self._first_word] = PoolReason.WRONG_CHAIN
        is_other = (words[:, 0] & _KIND_MASK) != self._kind_word
        is_other |= words[:, _RESERVED_WORD] != np.uint64(0)
        codes[is_other] = PoolReason.MALFORMED
        return codes

    def _verify(self, records: U8, senders: U8, hashes: U8, rows: I64, codes: U8) -> None:
        """Verify the signatures of rows, mark the valid ones, note the others."""
        if len(rows) == len(records):
            chosen = records
        else:
            chosen, senders = records[rows], senders[rows]
        messages = np.empty((len(rows), MESSAGE_BYTES), np.uint8)
        messages[:, :DOMAIN_BYTES] = self._domain
        messages[:, DOMAIN_BYTES:] = chosen[:, :SIGNED_BYTES]
        signatures = np.ascontiguousarray(chosen[:, SIGNED_BYTES:])
        verdicts = self._backend().verify_signatures(senders, signatures, messages)
        is_valid = verdicts != 0
        self._marks.mark(hashes[rows[is_valid]])
        codes[rows[~is_valid]] = PoolReason.SIGNATURE


def as_words(batch: bytes | memoryview) -> U64:
    """Return records as (n, 24) uint64 words, read-only; bytes that are not aligned are copied."""
    data = np.frombuffer(batch, np.uint8)
    if data.ctypes.data % 8:
        data = data.copy()
    return read_only(data.view(np.uint64).reshape(-1, TRANSACTION_BYTES // 8))
