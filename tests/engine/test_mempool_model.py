"""The pool against its rules in plain Python, over calls in any order, forks and restarts."""

import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from engine.codec import PayloadLimits
from engine.mempool import Mempool
from engine.pool_file import read_pool, write_pool
from engine.pool_rules import AccountsRead, Checked, Move, PoolLimits
from engine.pool_selection import best_rows, select
from engine.transition import LedgerRules
from kernels.backend import open_backend
from kernels.host_accounts import read_only
from kernels.layout import U8
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, FEES, LEDGER, accounts, key, open_state
from tests.engine.pool_model import Accounts, PoolModel

ROWS = 130
"""Few enough to be full often; two more go each time."""
SENDERS = 6
GENESIS = bytes(range(32))
RULES = LedgerRules(LEDGER.fee_minimum, LEDGER.account_minimum, LEDGER.accounts_max)
SEEDS = st.integers(0, 2**32 - 1)


def hashes_of(transactions: list[Any]) -> U8:
    """Return transaction hashes, (n, 32)."""
    joined = b"".join(oracle.transaction_hash(item) for item in transactions)
    return np.frombuffer(joined, np.uint8).reshape(-1, 32)


def records_of(transactions: list[Any]) -> U8:
    """Return records, (n, 192)."""
    joined = b"".join(oracle.encode_transaction(item) for item in transactions)
    return np.frombuffer(joined, np.uint8).reshape(-1, 192)


def read_of(made: Accounts, keys: list[bytes]) -> AccountsRead:
    """Return accounts as the pool reads them."""
    found = [made.get(name) for name in keys]
    return AccountsRead(
        exists=np.array([account is not None for account in found], np.bool_),
        balances=np.array([account.balance if account else 0 for account in found], np.uint64),
        nonces=np.array([account.nonce if account else 0 for account in found], np.uint64),
    )


def checked(transactions: list[Any]) -> Checked:
    """Return a batch whose signatures are taken as verified."""
    records = records_of(transactions)
    return Checked(
        words=read_only(records.view(np.uint64).reshape(-1, 24)),
        hashes=hashes_of(transactions),
        senders=np.ascontiguousarray(records[:, 64:96]),
        recipients=np.ascontiguousarray(records[:, 96:128]),
        codes=np.zeros(len(transactions), np.uint8),
    )


class Pools(RuleBasedStateMachine):
    """One pool and its model on a chain that grows, shrinks and branches."""

    @initialize()
    def start(self) -> None:
        """Begin with an empty pool at genesis."""
        balances = [400, 5_000, 90_000, 10**6, 10**6, 10**9]
        self.blocks: list[tuple[list[Any], list[Any]]] = [(accounts(balances), [])]
        """accounts after each block of the followed branch, and its transactions"""
        self.model = PoolModel(ROWS, RULES.account_minimum)
        self.seen: dict[bytes, None] = {}
        self.now_ms = 0
        self.pool = self.empty_pool()
        self.followed = self.accounts
        """the accounts at the head that both follow; blocks may be made above it"""
        self.backend = open_backend("serial")

    def teardown(self) -> None:
        """Close what was opened."""
        if hasattr(self, "backend"):
            self.backend.close()

    def empty_pool(self) -> Mempool:
        """Return a pool at the head."""
        limits = PoolLimits(transactions=ROWS, outcomes=2**14, refusals=2**14)
        secret = bytes(range(64))
        return Mempool(rules=RULES, height=len(self.blocks) - 1, secret=secret, limits=limits)

    @property
    def accounts(self) -> Accounts:
        """The accounts at the head."""
        return {account.key: account for account in self.blocks[-1][0]}

    def transactions(self, rng: np.random.Generator, count: int) -> list[Any]:
        """Return transfers of every kind: next ones, gaps, replacements, poor and late ones."""
        made = []
        weights = (0.1, 0.4, 0.2, 0.3) if rng.integers(4) else (0.05, 0.1, 0.8, 0.05)
        numbers = SENDERS + 1 if weights[0] == 0.1 else 1
        for _ in range(count):
            sender = key(SENDERS - int(rng.integers(numbers)) + (numbers > 1) - 1)
            account = self.accounts.get(sender)
            base = account.nonce if account else 0
            waiting = len(self.model.chain(sender))
            step = (0, int(rng.integers(waiting + 2)), 2 + int(rng.integers(90)), waiting)
            nonce = base + step[int(rng.choice(4, p=weights))] - int(rng.random() < 0.05)
            if rng.random() < 0.02:
                nonce = base + 4_095 + int(rng.integers(2))
            ends = rng.choice((0, 1, 2, 9, 10**6), p=(0.03, 0.1, 0.1, 0.17, 0.6))
            amount = rng.choice((0, 3, 10, 300, 2**63), p=(0.1, 0.1, 0.5, 0.28, 0.02))
            fee = rng.choice(
                (1, 2, 3, 10, 11, 12, 2**62), p=(0.2, 0.2, 0.2, 0.15, 0.15, 0.08, 0.02)
            )
            made.append(
                oracle.Transaction(
                    CHAIN_ID,
                    max(nonce, 0),
                    len(self.blocks) - 1 + int(ends),
                    int(amount),
                    int(fee),
                    sender,
                    key(int(rng.integers(SENDERS + 3))),
                    rng.bytes(16),
                )
            )
        return made

    @rule(seed=SEEDS, count=st.integers(1, 90))
    def add(self, seed: int, count: int) -> None:
        """A batch has the same answers."""
        rng = np.random.default_rng(seed)
        batch = self.transactions(rng, count)
        if self.seen and rng.random() < 0.3:
            batch += [entry.transaction for entry in self.model.entries.values()][:3]
        self.add_all(batch)

    def add_all(self, batch: list[Any]) -> None:
        """Add to both and compare."""
        self.now_ms += 1
        self.seen.update((oracle.transaction_hash(item), None) for item in batch)
        keys = [item.sender for item in batch] + [item.recipient for item in batch]
        read = read_of(self.accounts, keys)
        codes = self.pool.add(checked(batch), read, now_ms=self.now_ms)
        assert codes.tolist() == self.model.add(batch, self.accounts)

    def move(self, undone: list[list[Any]], done: list[list[Any]], known: set[bytes]) -> None:
        """Let both follow the chain to where it stands."""
        self.now_ms += 1
        returned = [item for block in undone for item in block]
        included = [item for block in done for item in block]
        keys = sorted(known | set(self.accounts))
        move = Move(
            height=len(self.blocks) - 1,
            included=hashes_of(included),
            returned=records_of(returned),
            returned_hashes=hashes_of(returned),
            returned_accounts=read_of(self.accounts, [item.sender for item in returned]),
            keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32),
            accounts=read_of(self.accounts, keys),
        )
        self.pool.follow(move, now_ms=self.now_ms)
        self.followed = self.accounts
        names = [oracle.transaction_hash(item) for item in included]
        self.model.follow(len(self.blocks) - 1, self.accounts, names, returned)

    def block(self, rng: np.random.Generator) -> list[Any]:
        """Grow the chain by a block of what waits and of what nobody saw; return it."""
        tip, height = self.accounts, len(self.blocks)
        lanes = self.model.select(self.followed, tip, height, int(rng.integers(40)), SENDERS)
        strangers = {key(n) for n in range(SENDERS) if rng.random() < 0.2}
        lanes = [lane for lane in lanes if lane[0].sender not in strangers]
        for sender in sorted(strangers):
            account = self.accounts[sender]
            if account.balance > 100:
                fields = (CHAIN_ID, account.nonce, 2**40, int(rng.integers(5, 90)), 1, sender)
                lanes.append([oracle.Transaction(*fields, key(int(rng.integers(SENDERS + 3))))])
        payload = oracle.encode_payload(lanes)
        done = oracle.execute_payload(self.blocks[-1][0], payload, LEDGER, height, FEES, False)
        block = [item for lane in lanes for item in lane]
        self.seen.update((oracle.transaction_hash(item), None) for item in block)
        self.blocks.append((done.accounts, block))
        return block

    @rule(seed=SEEDS, count=st.integers(1, 3))
    def grow(self, seed: int, count: int) -> None:
        """Blocks follow the head."""
        rng = np.random.default_rng(seed)
        known = set(self.accounts)
        done = [self.block(rng) for _ in range(count)]
        self.compare_builds(200, SENDERS)
        self.move([], done, known)

    @rule(seed=SEEDS, depth=st.integers(1, 4), count=st.integers(0, 4))
    def branch(self, seed: int, depth: int, count: int) -> None:
        """Blocks are abandoned, and others follow instead of them."""
        rng = np.random.default_rng(seed)
        depth = min(depth, len(self.blocks) - 1)
        known = set(self.accounts)
        undone = [block for _, block in self.blocks[len(self.blocks) - depth :]]
        del self.blocks[len(self.blocks) - depth :]
        done = []
        for _ in range(count):
            done.append(self.block(rng))
            known |= set(self.accounts)
        self.compare_builds(200, SENDERS)
        self.move(undone, done, known)

    @rule(index=st.integers(0, 200))
    def quarantine(self, index: int) -> None:
        """The serial arm refuses something that waits, or something unknown."""
        name = bytes(32)
        if self.model.entries:
            entries = sorted(self.model.entries.values(), key=lambda entry: entry.arrival)
            name = entries[index % len(entries)].hash
        self.pool.quarantine(name, now_ms=self.now_ms)
        self.model.quarantine(name, self.accounts)

    @rule()
    def restart(self) -> None:
        """What waited is sent again to a new pool; what it came to before is forgotten."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pool"
            write_pool(path, GENESIS, self.pool.records())
            records = read_pool(path, GENESIS, 10**6)
        before = self.model
        self.model = PoolModel(ROWS, RULES.account_minimum)
        self.model.height = before.height
        self.pool = self.empty_pool()
        batch = before.records()
        assert records.tobytes() == records_of(batch).tobytes()
        if batch:
            self.add_all(batch)

    @rule(most=st.integers(0, 200), lanes=st.integers(0, SENDERS))
    def build(self, most: int, lanes: int) -> None:
        """The same payload is chosen on the head, and the oracle finds all of it successful."""
        self.compare_builds(most, lanes)

    def compare_builds(self, most: int, lanes: int) -> None:
        """Compare what is chosen on the newest block, which the pool may not follow yet."""
        made = self.blocks[-1][0]
        state = open_state(made, self.backend)
        limits = PayloadLimits(bytes=2**30, transactions=most, objects=lanes)
        found = select(self.pool, state, height=len(self.blocks), limits=limits)
        height = len(self.blocks)
        expected = self.model.select(self.followed, self.accounts, height, most, lanes)
        payload = found.payload()
        assert payload == oracle.encode_payload(expected)
        done = oracle.execute_payload(made, payload, LEDGER, len(self.blocks), FEES, False)
        assert set(done.statuses) <= {oracle.SUCCESS}

    @invariant()
    def same(self) -> None:
        """Order, contents and every status ever known are the same."""
        if not hasattr(self, "pool"):
            return
        order = self.model.order(self.accounts)
        with self.pool.lock:
            self.pool.settle()
            rows = best_rows(self.pool, 10**6)
        ready = [entry.hash for rank, _, entry in order if rank > 1]
        assert [self.pool.rows.hashes[row].tobytes() for row in rows] == ready
        counts = self.pool.counts()
        assert (counts.pending, counts.parked) == (len(order), len(order) - len(ready))
        assert counts.senders == len({name for name, _ in self.model.entries})
        for name in self.seen:
            answer = self.pool.status_of(name)
            assert (answer.status, answer.reason) == self.model.status_of(name)
        for number in range(SENDERS):
            chain = self.model.ready(key(number), self.accounts)
            expected = self.accounts[key(number)].nonce + len(chain)
            has_rows = bool(self.model.chain(key(number)))
            assert self.pool.next_nonce_of(key(number)) == (expected if has_rows else None)


TestPools = Pools.TestCase
TestPools.settings = hypothesis.settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
)


@pytest.mark.slow
class TestPoolsLong(TestPools):  # type: ignore[valid-type,misc]  # made by Hypothesis
    """The same for longer."""

    settings = hypothesis.settings(TestPools.settings, max_examples=1_000, stateful_step_count=50)
