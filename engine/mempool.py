"""The transaction pool: what waits for a payload, in columns, and what became of the rest.

Local policy; no rule of it reaches consensus. A transaction is taken in when

1. a payload of this chain can carry it (version, kind, chain, reserved bytes), it may still be
   included at the next height, its fee is at least the chain's minimum, its signature is valid
   (`pool_admission.py`, off the writer's thread);
2. its sender has an account at the head, its recipient has one or gets enough for one, and there
   is room for it;
3. its nonce is one of the 4,096 from the account's next on. Nonces that follow each other are
   *ready*; beyond a gap at most 64 are *parked*;
4. the account can pay it beside everything else that its sender has here;
5. with the nonce of another one that waits it pays at least 110 % of that one's fee, and at least
   one unit more: it takes the other's place.

All that waits has one order: by fee, where a cheap early nonce lowers those that follow it, then by
age; parked ones come last. When there are more than the limit, the pool frees a 64th of itself from
the end of that order, newcomers included. A payload takes from the beginning
(`pool_selection.py`), and only what will succeed on its parent's state.

The pool follows the head. What the new blocks included leaves, and so does what their accounts
cannot pay or their nonces overtook, and what expires; what stood in abandoned blocks comes back.
Outcomes of what left are kept in a ring, those of what was refused in a smaller one; what is
included is known to the chain alone.

No clock, thread or disk here: time is an argument, and any thread may call, one at a time gets in.
"""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.lanes import I64
from engine.pool_outcomes import OutcomeRing
from engine.pool_rules import (
    BATCH_MAX,
    FREED_SHARE,
    QUARANTINE_MAX,
    AccountsRead,
    Checked,
    Move,
    PoolAnswer,
    PoolCounts,
    PoolLimits,
    PoolNews,
    PoolReason,
    PoolStatus,
    status_of_leaving,
)
from engine.transition import LedgerRules
from kernels import accounts, memory, pending, pending_rows
from kernels.host_accounts import key_words, read_only
from kernels.layout import NO_SLOT, U8, U32, U64
from kernels.pending_rows import Pending

Listener = Callable[[PoolNews], None]
_U64_MAX = np.uint64(2**64 - 1)
_RECORD_KEYS = slice(8, 12), slice(12, 16)
"""Words of sender and recipient in a record."""


class Mempool:
    """The pool of one chain; made empty."""

    def __init__(
        self,
        *,
        rules: LedgerRules,
        height: int,
        secret: bytes,
        limits: PoolLimits | None = None,
        listener: Listener | None = None,
        since_ms: int = 0,
    ) -> None:
        """Stand at a head.

        height: of the head; secret: 64 random bytes of this process; listener: is told what
        came and left, under the pool's lock, and returns at once; since_ms: the time, before which
        other pools of this node may have known outcomes.
        """
        self.limits = limits or PoolLimits()
        self.rules = rules
        self.height = height
        self.lock = threading.RLock()
        """held by whoever looks at `rows` or changes them"""
        words = read_only(np.frombuffer(secret, np.uint64).copy())
        self.rows: Pending = pending_rows.open_pending(self.limits.rows + BATCH_MAX, words)
        self.marks = np.zeros(self.limits.rows + BATCH_MAX, np.int32)
        """per sender, for `pending_order.find_lanes`"""
        self._outcomes = OutcomeRing(self.limits.outcomes, words)
        self._refusals = OutcomeRing(self.limits.refusals, words)
        self._quarantine: dict[bytes, None] = {}
        self._listener = listener
        self._since_ms = since_ms
        self._pair: U64 = np.zeros((1, 4), np.uint64)
        self._until_min = 2**64 - 1
        """no row expires below this height"""

    def __len__(self) -> int:
        """Count the transactions that wait."""
        return int(self.rows.counts[pending_rows.COUNT])

    @property
    def ready_count(self) -> int:
        """Transactions that wait with all nonces before them there."""
        counts = self.rows.counts
        return int(counts[pending_rows.COUNT] - counts[pending_rows.PARKED])

    def counts(self) -> PoolCounts:
        """Say how full the pool is."""
        with self.lock:
            counts = self.rows.counts
            return PoolCounts(
                pending=int(counts[pending_rows.COUNT]),
                parked=int(counts[pending_rows.PARKED]),
                senders=int(counts[pending_rows.SENDERS] - counts[pending_rows.FREE_SENDERS]),
                pending_max=self.limits.rows,
                outcomes=len(self._outcomes) + len(self._refusals),
                resident_bytes_max=pending_rows.resident_bytes(self.rows)
                + self.marks.nbytes
                + self._outcomes.resident_bytes
                + self._refusals.resident_bytes,
            )

    def status_of(self, transaction_hash: bytes) -> PoolAnswer:
        """Return what the pool knows of a transaction.

        One that was sent again after its inclusion may be REJECTED here: ask the chain first.
        """
        with self.lock:
            row = int(self.find(np.frombuffer(transaction_hash, np.uint8).reshape(1, 32))[0])
            forgotten_ms = max(self._outcomes.forgotten_ms, self._refusals.forgotten_ms)
            covered = max(self._since_ms, forgotten_ms)
            if row != NO_SLOT:
                is_parked = int(self.rows.rank[row]) == 1
                return PoolAnswer(
                    status=PoolStatus.PENDING, is_parked=is_parked, covered_from_ms=covered
                )
            found = self._outcomes.find(transaction_hash) or self._refusals.find(transaction_hash)
        if found is None:
            return PoolAnswer(status=PoolStatus.UNKNOWN, covered_from_ms=covered)
        status, reason, at_ms = found
        return PoolAnswer(
            status=PoolStatus(status),
            reason=PoolReason(reason),
            at_ms=at_ms,
            covered_from_ms=covered,
        )

    def take_memory(self) -> None:
        """Take the memory of the tables now: the first batch reaches for all of it, at random."""
        for table in (self.rows.by_hash, self.rows.by_pair, self.rows.by_key):
            memory.take(table)

    def find(self, hashes: U8) -> U32:
        """Return the rows of (n, 32) hashes, (n,) uint32, NO_SLOT for those that do not wait."""
        found = np.empty(len(hashes), np.uint32)
        with self.lock:
            pending_rows.find_rows(self.rows, key_words(hashes), found)
        return found

    def add(self, batch: Checked, read: AccountsRead, *, now_ms: int, is_full: bool = False) -> U8:
        """Take a batch in; return a PoolReason for each record, (n,) uint8.

        read: accounts at the pool's head, of the batch's senders and then of its recipients, 2n.
        is_full: no payload may create an account there. At most BATCH_MAX records.
        """
        count = len(batch.codes)
        assert count <= BATCH_MAX, "a batch has a bound"
        assert len(read.nonces) == 2 * count, "senders, then recipients"
        codes = batch.codes.copy()
        amounts = batch.words[:, pending_rows.AMOUNT]
        _mark(codes, ~read.exists[:count], PoolReason.UNKNOWN_SENDER)
        is_small = ~read.exists[count:] & (amounts < np.uint64(self.rules.account_minimum))
        _mark(codes, is_small, PoolReason.RECIPIENT_BELOW_MINIMUM)
        if is_full:
            _mark(codes, ~read.exists[count:], PoolReason.ACCOUNTS_FULL)
        with self.lock:
            is_late = batch.words[:, pending_rows.UNTIL] <= np.uint64(self.height)
            _mark(codes, is_late, PoolReason.EXPIRED)
            _mark(codes, self._is_quarantined(batch.hashes), PoolReason.QUARANTINED)
            spendable = self._spendable(read.balances[:count])
            replaced = self._admit(batch, spendable, read.nonces[:count], codes, is_forced=False)
            self._forget_cheapest(codes, batch.hashes, now_ms)
            self._note(codes, batch, replaced, now_ms)
        return codes

    def follow(self, move: Move, *, now_ms: int) -> None:
        """Move to another head: what is included or expired leaves, what was abandoned comes."""
        with self.lock:
            self.height = move.height
            rows = self.rows
            rows.counts[pending_rows.LEFT] = 0
            if len(self) and len(move.included):
                found = self.find(move.included)
                pending.drop_rows(rows, found, np.uint8(PoolReason.INCLUDED))
            if len(self):
                pending.update_accounts(
                    *(rows, key_words(move.keys), read_only(move.accounts.exists.view(np.uint8))),
                    read_only(self._spendable(move.accounts.balances)),
                    read_only(move.accounts.nonces),
                )
            if len(move.returned) or self._until_min <= self.height:
                # What was overtaken is not counted as expired, and no chain takes anything before.
                pending.settle_touched(rows, False)
                self._write_left(now_ms)
                self._take_back(move, now_ms)
            pending.drop_rows(rows, self._expired(), np.uint8(PoolReason.EXPIRED))
            self._settle(now_ms)
            self._forget_cheapest(np.empty(0, np.uint8), np.empty((0, 32), np.uint8), now_ms)

    def quarantine(self, transaction_hash: bytes, *, now_ms: int) -> None:
        """Drop a transaction and refuse it from now on: the serial arm may not include it."""
        with self.lock:
            self._quarantine[transaction_hash] = None
            if len(self._quarantine) > QUARANTINE_MAX:
                del self._quarantine[next(iter(self._quarantine))]
            rows = self.find(np.frombuffer(transaction_hash, np.uint8).reshape(1, 32))
            self._drop(rows, PoolReason.QUARANTINED, now_ms)

    def sender_keys(self) -> U8:
        """Return the keys of all senders, (n, 32) uint8, a copy."""
        with self.lock:
            senders = self.rows.senders[: int(self.rows.counts[pending_rows.SENDERS])]
            here = senders[senders[:, pending_rows.LENGTH] != 0, :4]
            return np.ascontiguousarray(here).view(np.uint8)

    def next_nonce_of(self, key: bytes) -> int | None:
        """Return the first nonce of a sender that is missing; None if nothing of it waits."""
        words = key_words(np.frombuffer(key, np.uint8).reshape(1, 32))
        with self.lock:
            found = np.empty(1, np.uint32)
            rows = self.rows
            nowhere = read_only(np.empty(0, np.int32))
            accounts.lookup_each(
                rows.by_key, rows.senders, rows.secret, words, nowhere, found, 0, 1
            )
            sender = int(found[0])
            return None if sender == NO_SLOT else int(rows.senders[sender, pending_rows.END])

    def drop(self, rows: U32, reason: PoolReason, *, now_ms: int) -> None:
        """Let rows go; what needed their nonces is parked."""
        with self.lock:
            self._drop(rows, reason, now_ms)

    def drop_creating(self, has_account: Callable[[U8], NDArray[np.bool_]], *, now_ms: int) -> None:
        """Let go what would create an account: the chain has no room, and it stops its sender.

        has_account: says for each of (n, 32) keys whether it has one.
        """
        with self.lock:
            rows = np.flatnonzero(self.rows.rank[: self._high()])
            if len(rows):
                is_kept = has_account(_bytes_of(self.rows.words[rows], _RECORD_KEYS[1]))
                self.drop(rows[~is_kept].astype(np.uint32), PoolReason.ACCOUNTS_FULL, now_ms=now_ms)

    def settle(self) -> None:
        """Put all chains in order, so that rank and age are right. Called under the lock."""
        pending.settle_touched(self.rows, True)

    def records(self) -> U8:
        """Return all that wait, in order of arrival, (n, 192) uint8, a copy."""
        with self.lock:
            rows = np.flatnonzero(self.rows.rank[: self._high()])
            rows = rows[np.argsort(self.rows.links[rows, pending_rows.ARRIVED])]
            return self.rows.words[rows].view(np.uint8)

    def _high(self) -> int:
        """Return the number of rows that were ever used."""
        return int(self.rows.counts[pending_rows.ROWS])

    def _spendable(self, balances: U64) -> U64:
        minimum = np.uint64(self.rules.account_minimum)
        return np.asarray(balances - np.minimum(balances, minimum), np.uint64)

    def _is_quarantined(self, hashes: U8) -> NDArray[np.bool_]:
        is_bad = np.zeros(len(hashes), np.bool_)
        if self._quarantine:
            listed = np.frombuffer(b"".join(self._quarantine), np.uint64).reshape(-1, 4)
            for row in np.flatnonzero(np.isin(key_words(hashes)[:, 0], listed[:, 0])):
                is_bad[row] = hashes[row].tobytes() in self._quarantine
        return is_bad

    def _admit(
        self, batch: Checked, spendable: U64, nonces: U64, codes: U8, *, is_forced: bool
    ) -> U8:
        """Run the kernel; return the hashes that were replaced, (m, 32)."""
        replaced = np.empty((len(codes), 4), np.uint64)
        pending.admit(
            *(self.rows, batch.words, key_words(batch.hashes), key_words(batch.senders)),
            *(read_only(spendable), read_only(nonces), is_forced, self._pair, codes, replaced),
        )
        taken = batch.words[codes == PoolReason.ACCEPTED, pending_rows.UNTIL]
        if len(taken):
            self._until_min = min(self._until_min, int(taken.min()))
        return replaced[: int(self.rows.counts[pending_rows.REPLACED])].view(np.uint8)

    def _take_back(self, move: Move, now_ms: int) -> None:
        """Take in transactions of abandoned blocks that are not in the new ones as well."""
        is_again = np.isin(key_words(move.returned_hashes)[:, 0], key_words(move.included)[:, 0])
        rows = np.flatnonzero(~is_again)
        for start in range(0, len(rows), BATCH_MAX):
            self._take_back_part(move, rows[start : start + BATCH_MAX], now_ms)

    def _take_back_part(self, move: Move, part: I64, now_ms: int) -> None:
        """Take in rows of what returned; those that no longer fit are let go."""
        counts = self.rows.counts
        senders = int(counts[pending_rows.SENDERS] - counts[pending_rows.FREE_SENDERS])
        if senders + len(part) > len(self.rows.senders):
            # Senders without rows keep their places until chains are settled for good.
            self._settle(now_ms)
        words = read_only(move.returned[part]).view(np.uint64)
        read = move.returned_accounts
        codes = np.zeros(len(words), np.uint8)
        _mark(codes, ~read.exists[part], PoolReason.NO_ACCOUNT)
        _mark(codes, words[:, pending_rows.UNTIL] <= np.uint64(self.height), PoolReason.EXPIRED)
        batch = Checked(
            words=words,
            hashes=move.returned_hashes[part],
            senders=_bytes_of(words, _RECORD_KEYS[0]),
            recipients=_bytes_of(words, _RECORD_KEYS[1]),
            codes=codes,
        )
        spendable = self._spendable(read.balances[part])
        replaced = self._admit(batch, spendable, read.nonces[part], codes, is_forced=True)
        self._write_each(batch.hashes, codes, now_ms)
        codes[codes > PoolReason.DUPLICATE] = PoolReason.DUPLICATE
        self._note(codes, batch, replaced, now_ms)
        if len(self) > self.limits.rows:
            self._settle(now_ms)
            self._free_rows(len(self) - self.limits.rows)
            self._settle(now_ms)

    def _expired(self) -> U32:
        """Return the rows that cannot be included at the next height any more."""
        if self._until_min > self.height:
            return np.empty(0, np.uint32)
        until = self.rows.until[: self._high()]
        is_late = until <= np.uint64(self.height)
        left = until[~is_late]
        self._until_min = int(left.min()) if len(left) else 2**64 - 1
        return np.flatnonzero(is_late & (self.rows.rank[: self._high()] != 0)).astype(np.uint32)

    def _drop(self, rows: U32, reason: PoolReason, now_ms: int) -> None:
        self.rows.counts[pending_rows.LEFT] = 0
        pending.drop_rows(self.rows, rows, np.uint8(reason))
        self._settle(now_ms)

    def _settle(self, now_ms: int) -> None:
        """Put chains in order, then write down what left."""
        self.settle()
        self._write_left(now_ms)

    def _write_left(self, now_ms: int) -> None:
        """Write down what left since LEFT was set to 0, before its rows are taken again."""
        count = int(self.rows.counts[pending_rows.LEFT])
        if not count:
            return
        hashes = self.rows.hashes[self.rows.left_rows[:count]].view(np.uint8)
        codes = self.rows.left_codes[:count].copy()
        self.rows.counts[pending_rows.LEFT] = 0
        self._write_each(hashes, codes, now_ms)

    def _write_each(self, hashes: U8, codes: U8, now_ms: int) -> None:
        """Write down why each of (n, 32) hashes left, (n,) PoolReason; skip those that did not."""
        for reason in np.unique(codes[codes > PoolReason.DUPLICATE]):
            which = codes == reason
            if reason == PoolReason.INCLUDED:
                self._tell(PoolStatus.INCLUDED, hashes[which], codes[which])
            else:
                self._write(status_of_leaving(int(reason)), hashes[which], codes[which], now_ms)

    def _forget_cheapest(self, codes: U8, hashes: U8, now_ms: int) -> None:
        """Free room if there is too little; change the codes of newcomers that go at once."""
        if len(self) <= self.limits.rows:
            return
        self.rows.counts[pending_rows.LEFT] = 0
        self.settle()
        self._free_rows(len(self) - self.limits.rows + self.limits.rows // FREED_SHARE)
        self._settle(now_ms)
        is_gone = (codes == PoolReason.ACCEPTED) & (self.find(hashes) == NO_SLOT)
        codes[is_gone] = PoolReason.POOL_FULL

    def _free_rows(self, count: int) -> None:
        """Drop so many from the end of the order."""
        if count <= 0:
            return
        rank, age = self.rows.rank[: self._high()], self.rows.links[:, pending_rows.AGE]
        rows = np.flatnonzero(rank)
        count = min(count, len(rows))
        ranks = rank[rows]
        least = np.partition(ranks, count - 1)[count - 1]
        gone, ties = rows[ranks < least], rows[ranks == least]
        if (wanted := count - len(gone)) < len(ties):
            ties = ties[np.argpartition(age[ties], len(ties) - wanted)[len(ties) - wanted :]]
        rows = np.concatenate([gone, ties]).astype(np.uint32)
        pending.drop_rows(self.rows, rows, np.uint8(PoolReason.POOL_FULL))

    def _note(self, codes: U8, batch: Checked, replaced: U8, now_ms: int) -> None:
        """Write down what a batch came to: replaced ones, and refused ones that were signed."""
        if len(replaced):
            why = np.full(len(replaced), PoolReason.REPLACED_BY_FEE, np.uint8)
            self._write(PoolStatus.REPLACED, replaced, why, now_ms)
        is_refused = (codes > PoolReason.SIGNATURE) & (codes != PoolReason.POOL_FULL)
        if is_refused.any():
            refused = batch.hashes[is_refused]
            self._refusals.put(refused, PoolStatus.REJECTED, codes[is_refused], now_ms)
        if self._listener is not None:
            is_new = codes == PoolReason.ACCEPTED
            self._tell(PoolStatus.PENDING, batch.hashes[is_new], codes[is_new])

    def _write(self, status: PoolStatus, hashes: U8, reasons: U8, now_ms: int) -> None:
        self._outcomes.put(hashes, status, reasons, now_ms)
        self._tell(status, hashes, reasons)

    def _tell(self, status: PoolStatus, hashes: U8, reasons: U8) -> None:
        if self._listener is not None and len(hashes):
            self._listener(PoolNews(status=status, hashes=hashes, reasons=reasons))


def _mark(codes: U8, is_bad: NDArray[np.bool_], reason: PoolReason) -> None:
    """Give a reason to the bad ones that have none yet."""
    codes[is_bad & (codes == PoolReason.ACCEPTED)] = reason


def _bytes_of(words: U64, columns: slice) -> U8:
    return np.ascontiguousarray(words[:, columns]).view(np.uint8)
