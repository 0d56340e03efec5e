"""Random blocks of a few long lanes, made to fail where tiles begin and end.

`walk` writes nothing, so one set of accounts serves any number of blocks.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.backend import Accounts, Backend
from kernels.gpu.guarded import GuardedAccounts
from kernels.gpu.lane_tiles import LANE_TILE
from kernels.layout import (
    I32,
    INSUFFICIENT_BALANCE,
    NO_DEFECT,
    U8,
    U32,
    U64,
    Columns,
    Rules,
    Walk,
)
from tests.engine.ledgers import CHAIN_ID
from tests.kernels.gpu.blocks import keys_of

MINIMUM = 5
HEIGHT = 3
NONCE_END = 2**64 - 1
BALANCES = (2**60, 0, 6, 105, 2**61, 2**61, 10**6, 10**6, 10**9, 2**61, 2**59)
NONCES = (0, 0, 9, 0, NONCE_END - 3 * LANE_TILE, NONCE_END - LANE_TILE - 1, 0, 2**40, 0, 0, 0)
"""Of the accounts, in order."""
ENDING = (4, 5)
"""Accounts that have few nonces left."""
RICH = range(6, len(BALANCES))
"""Accounts that can pay the fees of a long lane."""
REFUSED, ALL_IS_PAID, MONEY_ENDS = OUTCOMES = ("refused", "all is paid", "money ends")
STRANGERS = 2
"""Keys without an account, behind those of the accounts."""
SMALL = np.array([0, 1, 4, 5, 6, 40], np.uint64)
HUGE = np.array([2**62, 2**63 - 1, 2**63, 2**64 - 52, 2**64 - 2, 2**64 - 1], np.uint64)
WRONG: dict[str, int] = {
    "version": 2, "kind": 3, "chain_id": CHAIN_ID + 1, "nonce": 77, "valid_until": HEIGHT - 1,
    "fee": 0,
}  # fmt: skip
"""column -> a value for which a transaction is refused, of the fee where there is a minimum"""


def walk_whole(
    accounts: Accounts, columns: Columns, offsets: I32, parties: tuple[U32, U32], rules: Rules
) -> Walk:
    """Return what lanes come to, with the balances and nonces that a device keeps to itself."""
    there = accounts._device if isinstance(accounts, GuardedAccounts) else None
    if there is None:
        return accounts.walk(columns, offsets, *parties, rules)
    return there.walk(columns, offsets, *parties, rules, is_whole=True)


def open_lane_accounts(backend: Backend) -> Accounts:
    """Return the accounts in a backend."""
    return backend.open_accounts(
        keys_of(len(BALANCES)), np.array(BALANCES, np.uint64), np.array(NONCES, np.uint64),
        leaf_key=bytes(32), node_key=bytes(range(32)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A lane of one sender, one entry per transaction."""

    sender: int
    recipients: NDArray[np.int64]
    amounts: U64
    fees: U64


class RandomLanes:
    """Makes blocks, and compares what two sets of the accounts of this file make of them."""

    def __init__(self, rng: np.random.Generator, reference: Accounts, device: Accounts) -> None:
        """`reference` is right."""
        self._rng = rng
        self._arms = (reference, device)
        self._keys = keys_of(len(BALANCES) + STRANGERS)
        self.seen: Counter[str] = Counter()
        """what became of blocks"""

    def step(self, tiles: int) -> None:
        """Walk a block of one to four lanes of at most `tiles` tiles on both, and compare."""
        rng = self._rng
        has_fees = bool(rng.random() < 0.7)
        rules = Rules(CHAIN_ID, HEIGHT, int(has_fees), MINIMUM, accounts_max=1000)
        senders = rng.permutation(RICH)[: int(rng.integers(1, 5))]
        anybody = int(rng.choice([*ENDING, int(rng.integers(0, len(BALANCES)))]))
        odd = rng.random(len(senders)) < 0.1
        senders[odd] = rng.choice([len(BALANCES), senders[0], anybody], int(odd.sum()))
        lanes = [self._lane(int(sender), tiles, has_fees=has_fees) for sender in senders]
        offsets = np.cumsum([0, *(len(lane.amounts) for lane in lanes)]).astype(np.int32)
        columns = self._columns(lanes, offsets)
        if rng.random() < 0.25:
            for _ in range(int(rng.integers(1, 3))):
                lane_number = int(rng.integers(0, len(lanes)))
                start, stop = (int(offset) for offset in offsets[lane_number : lane_number + 2])
                place = start + self._place(stop - start)
                # Of many in a row, too: their threads all say that theirs is the first.
                last = int(rng.choice([place + 1, stop]))
                self._spoil(columns, slice(place, last), has_fees=has_fees)
        self.compare(columns, offsets, rules)

    def step_to(self, length: int, lacking: int | None) -> None:
        """Walk one lane of a known length in which one place, or none, lacks a unit."""
        sender = len(BALANCES) - 1
        lane = Lane(
            sender=sender,
            recipients=self._rng.integers(0, len(BALANCES), length),
            amounts=self._rng.choice(SMALL, length),
            fees=np.ones(length, np.uint64),
        )
        if lacking is not None:
            spent = int(lane.amounts[:lacking].sum()) + lacking + 1
            lane.amounts[lacking] = BALANCES[sender] - MINIMUM - spent + 1
        self._walk_one(lane)

    def step_past_a_border(self, tile: int) -> None:
        """Walk one lane whose money ends with a tile, but for the fees of those behind it.

        What fails there would be too small for a new account: it spends its fee alone, so a sum of
        what is spent does not show that it failed.
        """
        sender, place = len(BALANCES) - 1, (tile + 1) * LANE_TILE - 1
        length = place + MINIMUM - 1
        lane = Lane(
            sender=sender,
            recipients=np.zeros(length, np.int64),
            amounts=np.zeros(length, np.uint64),
            fees=np.ones(length, np.uint64),
        )
        lane.amounts[0] = BALANCES[sender] - MINIMUM - length
        lane.amounts[place] = MINIMUM - 1
        lane.recipients[place] = len(BALANCES)
        self._walk_one(lane)

    def _walk_one(self, lane: Lane) -> None:
        offsets = np.array([0, len(lane.amounts)], np.int32)
        rules = Rules(CHAIN_ID, HEIGHT, 1, MINIMUM, accounts_max=1000)
        self.compare(self._columns([lane], offsets), offsets, rules)

    def compare(self, columns: Columns, offsets: I32, rules: Rules) -> None:
        """Assert that both make the same of a block."""
        results = []
        for accounts in self._arms:
            parties = accounts.find_parties(columns, offsets)
            results.append(walk_whole(accounts, columns, offsets, parties, rules))
        one, other = results
        assert (one.defect, one.defect_index) == (other.defect, other.defect_index)
        if one.defect != NO_DEFECT:
            self.seen[REFUSED] += 1
            return
        assert np.array_equal(one.statuses, other.statuses)
        assert np.array_equal(one.sender_balances, other.sender_balances)
        assert np.array_equal(one.sender_nonces, other.sender_nonces)
        assert one.fee_total == other.fee_total
        self.seen[MONEY_ENDS if INSUFFICIENT_BALANCE in one.statuses else ALL_IS_PAID] += 1

    def _length(self, tiles: int) -> int:
        """Draw the length of a lane: short, at the end of a tile, or any."""
        rng = self._rng
        at_border = int(rng.integers(1, tiles + 1)) * LANE_TILE + int(rng.integers(-1, 2))
        anywhere = int(rng.integers(1, tiles * LANE_TILE + 1))
        return int(rng.choice([int(rng.integers(1, 4)), at_border, at_border, anywhere]))

    def _place(self, length: int) -> int:
        """Draw a transaction of a lane, most likely one beside the border of a tile."""
        rng = self._rng
        border = int(rng.integers(0, length // LANE_TILE + 1)) * LANE_TILE
        near = border + int(rng.integers(-1, 2))
        place = int(rng.choice([0, length - 1, near, near, near, int(rng.integers(0, length))]))
        return min(max(place, 0), length - 1)

    def _lane(self, sender: int, tiles: int, *, has_fees: bool) -> Lane:
        rng, length = self._rng, self._length(tiles)
        fees = rng.integers(1, 4, length).astype(np.uint64) * np.uint64(has_fees)
        amounts = rng.choice(SMALL, length)
        known = rng.integers(0, len(BALANCES), length)
        is_new = rng.random(length) < rng.choice([0.0, 0.3, 1.0])
        recipients = np.where(is_new, len(BALANCES) + known % STRANGERS, known)
        lane = Lane(sender=sender, recipients=recipients, amounts=amounts, fees=fees)
        kind = rng.choice(["good", "good", "exact", "exact", "huge", "often"])
        if kind == "exact":
            self._spend_exactly(lane)
        elif kind == "huge":
            for _ in range(int(rng.integers(1, 4))):
                amounts[self._place(length)] = rng.choice(HUGE)
        elif kind == "often":
            amounts[self._place(length) :: int(rng.choice([1, 2, 2, LANE_TILE]))] = rng.choice(HUGE)
        return lane

    def _spend_exactly(self, lane: Lane) -> None:
        """Let one transaction lack a unit, or the lane spend all that its sender has, to the unit.

        Or a unit less, or a unit more.
        """
        rng = self._rng
        balance = BALANCES[lane.sender] if lane.sender < len(BALANCES) else 0
        place = self._place(len(lane.amounts))
        is_small = (lane.recipients >= len(BALANCES)) & (lane.amounts < MINIMUM)
        costs = lane.fees + np.where(is_small, np.uint64(0), lane.amounts)
        room = balance - min(balance, MINIMUM) - int(costs[:place].sum() + lane.fees[place])
        if rng.random() < 0.5:
            amount = room + 1
        else:
            lane.amounts[place + 1 :] = rng.choice([np.uint64(0), HUGE[-1]])
            amount = room - int(lane.fees[place + 1 :].sum()) + int(rng.choice([0, 0, 0, -1, 1]))
        lane.amounts[place] = max(0, amount)
        lane.recipients[place] = 0

    def _columns(self, lanes: list[Lane], offsets: I32) -> Columns:
        count = int(offsets[-1])
        nonces: list[U64] = []
        for lane in lanes:
            first = NONCES[lane.sender] if lane.sender < len(NONCES) else 0
            nonces.append(np.uint64(first) + np.arange(len(lane.amounts), dtype=np.uint64))
        senders = np.repeat([lane.sender for lane in lanes], np.diff(offsets))
        return Columns(
            version=np.ones(count, np.uint8),
            kind=np.zeros(count, np.uint8),
            chain_id=np.full(count, CHAIN_ID, np.uint32),
            nonce=np.concatenate(nonces),
            valid_until=np.full(count, HEIGHT, np.uint64),
            amount=np.concatenate([lane.amounts for lane in lanes]),
            fee=np.concatenate([lane.fees for lane in lanes]),
            memo=np.zeros((count, 16), np.uint8),
            sender=self._keys[senders],
            recipient=self._keys[np.concatenate([lane.recipients for lane in lanes])],
            signature=np.zeros((count, 64), np.uint8),
        )

    def _spoil(self, columns: Columns, rows: slice, *, has_fees: bool) -> None:
        """Make transactions ones that are refused."""
        names = [*WRONG, "sender", "fee above"]
        name = str(self._rng.choice(names if has_fees else [*set(names) - {"fee"}]))
        if name == "sender":
            columns.sender[rows, 31] ^= 0x80
        elif name == "fee above":
            columns.fee[rows] = 2**63
        else:
            column: U8 | U64 = getattr(columns, name)
            column[rows] = WRONG[name]
