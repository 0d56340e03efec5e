"""The pool's rules once more, in plain Python: one transaction at a time, nothing remembered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.pool_rules import FREED_SHARE, PoolReason, PoolStatus, status_of_leaving
from kernels.pending import AGE_STEP, CHAIN_MAX, PARKED_MAX
from spec import oracle

Accounts = dict[bytes, Any]
"""Oracle accounts by key."""


@dataclass
class Entry:
    """What waits."""

    transaction: Any
    hash: bytes
    arrival: int


class PoolModel:
    """Does what `engine.mempool.Mempool` says it does."""

    def __init__(self, rows: int, account_minimum: int) -> None:
        """Start empty at height 0."""
        self.rows = rows
        self.account_minimum = account_minimum
        self.height = 0
        self.entries: dict[tuple[bytes, int], Entry] = {}
        self.outcomes: dict[bytes, tuple[PoolStatus, PoolReason]] = {}
        self.refusals: dict[bytes, tuple[PoolStatus, PoolReason]] = {}
        self.quarantined: set[bytes] = set()
        self.arrivals = 0

    def status_of(self, name: bytes) -> tuple[PoolStatus, PoolReason]:
        """Return status and reason."""
        if any(entry.hash == name for entry in self.entries.values()):
            return PoolStatus.PENDING, PoolReason.ACCEPTED
        unknown = (PoolStatus.UNKNOWN, PoolReason.ACCEPTED)
        return self.outcomes.get(name) or self.refusals.get(name) or unknown

    def spendable(self, account: Any) -> int:
        """Return what bounds amounts and fees."""
        return int(account.balance) - min(int(account.balance), self.account_minimum)

    def chain(self, sender: bytes) -> list[Entry]:
        """Return what waits of a sender, by nonce."""
        nonces = sorted(nonce for key, nonce in self.entries if key == sender)
        return [self.entries[sender, nonce] for nonce in nonces]

    def ready(self, sender: bytes, accounts: Accounts) -> list[Entry]:
        """Return those before the first gap."""
        found = []
        nonce = accounts[sender].nonce
        while (sender, nonce) in self.entries:
            found.append(self.entries[sender, nonce])
            nonce += 1
        return found

    def order(self, accounts: Accounts) -> list[tuple[int, int, Entry]]:
        """Return all that waits as (rank, age, entry), best first; rank 1 is parked."""
        placed = []
        for sender in {key for key, _ in self.entries}:
            ready = self.ready(sender, accounts)
            least, age = 2**64, 0
            for entry in ready:
                least = min(least, entry.transaction.fee)
                age = max(entry.arrival, age + 1)
                placed.append((least + 2, age, entry))
            placed += [(1, e.arrival, e) for e in self.chain(sender) if e not in ready]
        return sorted(placed, key=lambda item: (-item[0], item[1]))

    def add(self, transactions: Sequence[Any], accounts: Accounts) -> list[PoolReason]:
        """Take a batch in, one after the other, then free room."""
        codes = []
        for item in transactions:
            name = oracle.transaction_hash(item)
            code = self.refusal(item, name, accounts)
            if code is PoolReason.ACCEPTED:
                code = self.put(item, name, accounts, is_forced=False)
            codes.append(code)
        names = [oracle.transaction_hash(item) for item in transactions]
        if len(self.entries) > self.rows:
            self.free(len(self.entries) - self.rows + self.rows // FREED_SHARE, accounts)
            here = {entry.hash for entry in self.entries.values()}
            codes = [
                PoolReason.POOL_FULL if c is PoolReason.ACCEPTED and n not in here else c
                for c, n in zip(codes, names, strict=True)
            ]
        for code, name in zip(codes, names, strict=True):
            if code > PoolReason.SIGNATURE and code is not PoolReason.POOL_FULL:
                self.refusals[name] = (PoolStatus.REJECTED, code)
        return codes

    def refusal(self, item: Any, name: bytes, accounts: Accounts) -> PoolReason:
        """Say what is wrong with a transaction by itself."""
        if item.sender not in accounts:
            return PoolReason.UNKNOWN_SENDER
        if item.recipient not in accounts and item.amount < self.account_minimum:
            return PoolReason.RECIPIENT_BELOW_MINIMUM
        if item.valid_until <= self.height:
            return PoolReason.EXPIRED
        return PoolReason.QUARANTINED if name in self.quarantined else PoolReason.ACCEPTED

    def put(self, item: Any, name: bytes, accounts: Accounts, *, is_forced: bool) -> PoolReason:
        """Put a transaction into its chain, or say why not."""
        if any(entry.hash == name for entry in self.entries.values()):
            return PoolReason.DUPLICATE
        account = accounts[item.sender]
        chain = self.chain(item.sender)
        if item.nonce < account.nonce:
            return PoolReason.NONCE_USED
        if item.nonce >= account.nonce + CHAIN_MAX or item.nonce == 2**64 - 1:
            return PoolReason.NONCE_TOO_FAR
        price = item.amount + item.fee
        if price > self.spendable(account):
            return PoolReason.INSUFFICIENT_BALANCE
        others = sum(e.transaction.amount + e.transaction.fee for e in chain)
        old = self.entries.get((item.sender, item.nonce))
        if old is not None:
            if item.fee < old.transaction.fee + max(-(-old.transaction.fee // 10), 1):
                return PoolReason.FEE_BUMP_TOO_LOW
            others -= old.transaction.amount + old.transaction.fee
        else:
            ready = self.ready(item.sender, accounts)
            is_next = item.nonce == account.nonce + len(ready)
            if not is_next and len(chain) - len(ready) >= PARKED_MAX:
                return PoolReason.TOO_MANY_PARKED
        if others + price > self.spendable(account) and not is_forced:
            return PoolReason.INSUFFICIENT_BALANCE
        if old is not None:
            self.outcomes[old.hash] = (PoolStatus.REPLACED, PoolReason.REPLACED_BY_FEE)
            self.entries[item.sender, item.nonce] = Entry(item, name, old.arrival)
        else:
            self.arrivals += AGE_STEP
            self.entries[item.sender, item.nonce] = Entry(item, name, self.arrivals)
        return PoolReason.ACCEPTED

    def drop(self, entry: Entry, reason: PoolReason) -> None:
        """Let one go."""
        del self.entries[entry.transaction.sender, entry.transaction.nonce]
        if reason is not PoolReason.INCLUDED:
            self.outcomes[entry.hash] = (status_of_leaving(reason), reason)

    def free(self, count: int, accounts: Accounts) -> None:
        """Drop so many of the worst."""
        for _, _, entry in self.order(accounts)[::-1][: max(count, 0)]:
            self.drop(entry, PoolReason.POOL_FULL)

    def cut(self, accounts: Accounts) -> None:
        """Drop what is too much for a sender, from the greatest nonce on."""
        for sender in {key for key, _ in self.entries}:
            while len(self.chain(sender)) - len(self.ready(sender, accounts)) > PARKED_MAX:
                self.drop(self.chain(sender)[-1], PoolReason.TOO_MANY_PARKED)
            while chain := self.chain(sender):
                cost = sum(e.transaction.amount + e.transaction.fee for e in chain)
                if cost <= self.spendable(accounts[sender]):
                    break
                self.drop(chain[-1], PoolReason.INSUFFICIENT_BALANCE)

    def follow(
        self, height: int, accounts: Accounts, included: Iterable[bytes], returned: Sequence[Any]
    ) -> None:
        """Move to another head."""
        self.height = height
        included = set(included)
        for entry in list(self.entries.values()):
            sender = entry.transaction.sender
            if entry.hash in included:
                self.drop(entry, PoolReason.INCLUDED)
            elif sender not in accounts:
                self.drop(entry, PoolReason.NO_ACCOUNT)
            elif entry.transaction.nonce < accounts[sender].nonce:
                self.drop(entry, PoolReason.NONCE_USED)
        for item in returned:
            if oracle.transaction_hash(item) not in included:
                self.take_back(item, accounts)
        if len(self.entries) > self.rows:
            self.cut(accounts)
            self.free(len(self.entries) - self.rows, accounts)
        for entry in list(self.entries.values()):
            if entry.transaction.valid_until <= height:
                self.drop(entry, PoolReason.EXPIRED)
        self.cut(accounts)

    def take_back(self, item: Any, accounts: Accounts) -> None:
        """Put a transaction of an abandoned block into its chain."""
        name = oracle.transaction_hash(item)
        if item.sender not in accounts:
            code = PoolReason.NO_ACCOUNT
        elif item.valid_until <= self.height:
            code = PoolReason.EXPIRED
        else:
            code = self.put(item, name, accounts, is_forced=True)
        if not code.is_taken:
            self.outcomes[name] = (status_of_leaving(code), code)

    def quarantine(self, name: bytes, accounts: Accounts) -> None:
        """Refuse a transaction for good."""
        self.quarantined.add(name)
        for entry in list(self.entries.values()):
            if entry.hash == name:
                self.drop(entry, PoolReason.QUARANTINED)
        self.cut(accounts)

    def records(self) -> list[Any]:
        """Return all that waits in order of arrival."""
        entries = sorted(self.entries.values(), key=lambda entry: entry.arrival)
        return [entry.transaction for entry in entries]

    def select(
        self, head: Accounts, parent: Accounts, height: int, transactions: int, objects: int
    ) -> list[list[Any]]:
        """Return the lanes of a payload at a height, on a parent that may not be the head."""
        lanes: dict[bytes, list[Any]] = {}
        closed: set[bytes] = set()
        count = 0
        for rank, _, entry in self.order(head):
            item = entry.transaction
            if rank == 1 or item.sender in closed or item.sender not in parent:
                continue
            lane = lanes.get(item.sender, [])
            following = parent[item.sender].nonce + len(lane)
            if item.nonce < following or count == transactions:
                continue
            spent = sum(t.amount + t.fee for t in lane)
            is_fit = item.nonce == following and item.valid_until >= height
            is_fit &= item.amount + item.fee <= self.spendable(parent[item.sender]) - spent
            is_fit &= item.recipient in parent or item.amount >= self.account_minimum
            is_fit &= item.sender in lanes or len(lanes) < objects
            if not is_fit:
                closed.add(item.sender)
                continue
            lanes.setdefault(item.sender, []).append(item)
            count += 1
        return list(lanes.values())
