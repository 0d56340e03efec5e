"""Random blocks for a device beside an arm of the host: every outcome, new accounts, long lanes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.codec import encode_payload
from engine.errors import InvalidPayload
from engine.lanes import pack
from engine.state import State
from engine.transition import Outcome, all_verified, execute_payload
from kernels.layout import U8, U64, Columns
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, LEDGER, context

WIDE_LEDGER = oracle.replace(
    LEDGER,
    accounts_max=2**32 - 2,
    limits=oracle.Limits(bytes=1 << 40, transactions=1 << 30, objects=1 << 30),
)
BALANCE = 10**6
AMOUNTS = np.array([0, 1, 4, 5, 40, 10**5, 10**6, 2**63, 2**64 - 52, 2**64 - 1], np.uint64)
DEFECT_EVERY = 8
"""One block in so many has a transaction that may not be included."""


def keys_of(count: int) -> U8:
    """Return keys of `count` accounts that differ in few bits."""
    keys = np.zeros((count, 32), np.uint8)
    keys[:, 24:] = np.arange(count, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    return keys


class RandomBlocks:
    """The same random blocks on two states, compared after each; `reference` is right."""

    def __init__(self, rng: np.random.Generator, states: tuple[State, State], keys: U8) -> None:
        """states: of the same accounts, nonces 0; keys: of these and of others yet to come."""
        self._rng = rng
        self._reference, self._device = states
        self._keys = keys
        self._known = self._reference.count
        self._nonces = np.zeros(len(keys), np.uint64)
        self._recipients: NDArray[np.int64] | None = None
        self.height = 0
        self.refused = 0

    def pay_to(self, recipients: NDArray[np.int64]) -> None:
        """Let all later blocks, of as many rows, pay to these keys.

        They have no defects and no sender of many, who would run out of money.
        """
        self._recipients = recipients

    def step(self, size: int) -> None:
        """Execute one block of `size` transactions on both, back and forth, and compare."""
        payload = self._payload(size)
        before = self._reference.state_hash()
        one, other = self._run(self._reference, payload), self._run(self._device, payload)
        if not isinstance(one, Outcome) or not isinstance(other, Outcome):
            assert one == other
            assert self._device.state_hash() == before
            self.refused += 1
            return
        for name in ("statuses", "transaction_hashes"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        for name, mine, theirs in zip(one.changes._fields, one.changes, other.changes, strict=True):
            assert np.array_equal(np.asarray(mine), np.asarray(theirs)), name
        for name in ("transactions_root", "receipts_hash", "state_hash", "fee_total"):
            assert getattr(one, name) == getattr(other, name), name
        self._device.undo([other.changes])
        assert self._device.state_hash() == before
        self._device.redo([other.changes])
        assert self._device.state_hash() == one.state_hash
        self.height += 1
        np.add.at(self._nonces, self._drawn, np.uint64(1))

    def _payload(self, size: int) -> bytes:
        """Make transfers of known accounts, a third of them of one sender, to anybody."""
        rng = self._rng
        sender = rng.integers(0, self._known, size)
        if self._recipients is None:
            sender[rng.random(size) < rng.choice([0.0, 0.3])] = int(rng.integers(0, self._known))
        if self._recipients is not None:
            recipient = self._recipients
        else:
            recipient = rng.integers(0, len(self._keys), size)
            recipient[rng.random(size) < rng.choice([0.0, 0.5])] = 0
        order = np.argsort(sender, kind="stable")
        place = np.empty(size, np.uint64)
        ordered = sender[order]
        starts = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1)).astype(np.int64)
        lengths = np.diff(np.append(starts, size))
        place[order] = np.arange(size) - np.repeat(starts, lengths)
        columns = Columns(
            version=np.ones(size, np.uint8),
            kind=np.zeros(size, np.uint8),
            chain_id=np.full(size, CHAIN_ID, np.uint32),
            nonce=self._nonces[sender] + place,
            valid_until=np.full(size, 2**40, np.uint64),
            amount=rng.choice(AMOUNTS, size, p=[0.1, 0.2, 0.2, 0.2, 0.2, *[0.02] * 5]),
            fee=np.ones(size, np.uint64),
            memo=rng.integers(0, 256, (size, 16), np.uint8),
            sender=self._keys[sender],
            recipient=self._keys[recipient],
            signature=rng.integers(0, 256, (size, 64), np.uint8),
        )
        if self._recipients is None and rng.integers(0, DEFECT_EVERY) == 0:
            fields: tuple[Any, ...] = columns
            column: U64 = fields[int(rng.choice([3, 4, 6]))]
            column[int(rng.integers(0, size))] = 0
        self._drawn = sender
        return bytes(encode_payload(*pack(columns)))

    def _run(self, state: State, payload: bytes) -> object:
        try:
            return execute_payload(
                state, payload, context(self.height + 1, WIDE_LEDGER), is_verified=all_verified
            )
        except InvalidPayload as refusal:
            return refusal.reason, refusal.position
