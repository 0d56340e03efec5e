"""Blocks on the device in the simulator beside the oracle: accounts, credits, growth, undo."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.codec import PayloadLimits, decode_payload
from engine.state import State
from kernels import accounts as host_accounts
from kernels.backend import open_backend
from kernels.gpu.device import Device
from kernels.gpu.uploads import Uploads
from kernels.layout import I32, NO_SLOT, Columns, Rules
from spec import oracle
from tests.engine.ledgers import CHAIN_ID, FEES, LEDGER, accounts, key
from tests.kernels.arms import random_columns
from tests.kernels.gpu import claims
from tests.kernels.gpu.blocks import BALANCE, RandomBlocks, keys_of
from tests.kernels.gpu.simulated.arms import (
    SETTINGS,
    Gpu,
    check_block,
    device,
    gpu,
    open_state,
    transfer,
)

__all__ = ["device", "gpu"]

RULES = Rules(CHAIN_ID, height=1, fee_minimum=1, account_minimum=5, accounts_max=1000)
AMOUNTS = [0, 1, 4, 5, 40, 100, 2**64 - 52, 2**64 - 1]


def batch_of(transactions: list[Any]) -> tuple[Columns, I32]:
    """Return the columns and lanes of a payload of these."""
    limits = PayloadLimits(bytes=1 << 20, transactions=1 << 10, objects=1 << 10)
    batch = decode_payload(oracle.encode_payload(oracle.pack_lanes(transactions)), limits)
    return batch.columns, batch.lane_offsets


@pytest.mark.parametrize("is_full", [False, True])
def test_random_blocks_equal_the_oracle(gpu: Gpu, rng: np.random.Generator, is_full: bool) -> None:
    """Blocks one after another, with new accounts and failures, come to what the oracle says."""
    made = accounts([int(rng.choice([0, 5, 100, 10**6])) for _ in range(6)])
    state = open_state(made, gpu.backend)
    ledger = oracle.replace(LEDGER, accounts_max=len(made) + 1 if is_full else 1000)
    for height in range(1, 4):
        nonces = {account.key: account.nonce for account in made}
        drawn = []
        for _ in range(int(rng.integers(0, 12))):
            sender = int(rng.integers(0, 6))
            recipient = FEES if rng.integers(0, 8) == 0 else key(int(rng.integers(0, 9)))
            amount = AMOUNTS[int(rng.integers(0, len(AMOUNTS)))]
            drawn.append(transfer(sender, nonces[key(sender)], amount, recipient))
            nonces[key(sender)] += 1
        made, outcome = check_block(state, made, drawn, height, ledger)
        if outcome is None:
            break


def test_new_accounts_take_slots_in_payload_order(gpu: Gpu) -> None:
    """Keys that are paid several times count once, where they come first; fees come last."""
    made = accounts([1000] * 9)
    order = [70, 60, 70, 90, 60, 80, 90, 50, 50]
    drawn = [transfer(i, 0, 9, key(order[i])) for i in range(9)]
    after, outcome = check_block(open_state(made, gpu.backend), made, drawn)
    created = [a.key for a in after[9:]]
    assert created == [key(70), key(60), key(90), key(80), key(50), FEES]
    keys = [row.tobytes() for row in outcome.changes.created_keys]
    assert keys == created


def test_the_fee_recipient_is_created_once(gpu: Gpu) -> None:
    """It takes its slot as a recipient, as the last one, or not at all without fees."""
    for drawn, free in (
        ([transfer(0, 0, 9, FEES), transfer(1, 0, 9, key(5))], False),
        ([transfer(0, 0, 9, key(1))], False),
        ([transfer(0, 0, 9, key(1), fee=0)], True),
    ):
        made = accounts([100, 100])
        ledger = oracle.replace(LEDGER, fee_minimum=0) if free else LEDGER
        check_block(open_state(made, gpu.backend), made, drawn, ledger=ledger)


@pytest.mark.parametrize("accounts_max", [11, 12, 13, 14])
def test_too_many_accounts_change_nothing(gpu: Gpu, accounts_max: int) -> None:
    """A block that would exceed the maximum, by the fee recipient alone, leaves no trace."""
    made = accounts([100] * 10)
    ledger = oracle.replace(LEDGER, accounts_max=accounts_max)
    drawn = [transfer(i, 0, 9, key(20 + i)) for i in range(3)]
    state = open_state(made, gpu.backend)
    after, outcome = check_block(state, made, drawn, ledger=ledger)
    assert (outcome is None) == (accounts_max < 14)
    if outcome is None:
        after, outcome = check_block(state, made, drawn[::-1])
        assert outcome is not None
    assert state.count == len(after) == 14


def test_all_that_a_block_can_change(gpu: Gpu) -> None:
    """A block that changes as many accounts as any of its size can is the oracle's."""
    claims.check_all_that_a_block_can_change(gpu.backend)


def test_a_tree_that_settling_has_hashed(gpu: Gpu) -> None:
    """The root is that of the records, whatever is undone before somebody asks for the tree."""
    made = [*accounts([100] * 5), oracle.Account(FEES, 100)]
    columns, offsets = batch_of([transfer(0, 0, 9, key(1)), transfer(1, 0, 9, key(3))])
    arms = [open_state(made, backend).accounts for backend in (open_backend("serial"), gpu.backend)]
    roots = []
    for resident in arms:
        before = resident.root()
        parties = resident.find_parties(columns, offsets)
        walk = resident.walk(columns, offsets, *parties, RULES)
        changes = resident.settle(columns, offsets, *parties, walk, FEES, RULES)
        assert changes is not None
        resident.undo(changes)
        resident.update_tree_slots(changes.slots, changes.count_after, changes.count_before)
        assert resident.root() == before
        resident.redo(changes)
        resident.update_tree(changes)
        roots.append(resident.root())
    assert roots[0] == roots[1] != before


def test_one_recipient_of_all(gpu: Gpu) -> None:
    """Credits to one account from many threads add up to the unit."""
    made = accounts([1000] * 20)
    drawn = [transfer(i, 0, 100 + i, key(0)) for i in range(20)]
    after, _ = check_block(open_state(made, gpu.backend), made, drawn)
    assert after[0].balance == 1000 - 1 + sum(100 + i for i in range(1, 20))


def test_arrays_grow_and_tombstones_go(
    gpu: Gpu, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accounts beyond every capacity, made and taken back again and again, stay what they are."""
    for module in ("kernels.host_accounts", "kernels.gpu.resident"):
        monkeypatch.setattr(f"{module}.CAPACITY_MIN", 16)
    count = 14
    made = accounts([10**6] * count)
    state = open_state(made, gpu.backend)
    resident = state.accounts
    for height in range(1, 3):
        order = rng.permutation(8)
        drawn = [transfer(i, height - 1, 9, key(5000 + 10 * height + i)) for i in order.tolist()]
        before = state.state_hash()
        made, outcome = check_block(state, made, drawn, height)
        for _ in range(5):
            state.undo([outcome.changes])
            state.redo([outcome.changes])
        assert state.state_hash() == outcome.state_hash != before
    found = resident.lookup(np.frombuffer(b"".join(a.key for a in made), np.uint8).reshape(-1, 32))
    assert found.tolist() == list(range(len(made)))
    assert len(resident.records) >= len(made) > 16
    gone = np.frombuffer(key(9999), np.uint8).reshape(1, 32)
    assert resident.lookup(gone).tolist() == [NO_SLOT]
    entries = resident._device._records.where[0]  # type: ignore[attr-defined]  # the device's own table
    assert host_accounts.count_limit(int(entries.shape[0])) < len(made) + 12 * 8, "filled anew"


def test_small_blocks_go_to_the_host_and_the_device_follows() -> None:
    """Blocks below the crossover and above it, mixed, come to what the oracle says."""
    opened = Gpu(replace(SETTINGS, crossover_transactions=3))
    made = accounts([1000] * 4)
    state = open_state(made, opened.backend)
    for height, size in enumerate((1, 4, 2, 3), start=1):
        drawn = [transfer(i, made[i].nonce, 9, key(10 * height + i)) for i in range(size)]
        made, outcome = check_block(state, made, drawn, height)
        assert outcome is not None
    assert opened.told == []
    assert opened.backend.degraded == ""
    opened.backend.close()


def test_columns_cross_whole_wherever_they_lie(device: Device, rng: np.random.Generator) -> None:
    """Columns of one buffer and of their own arrive as they are, and the same ones only once."""
    apart = random_columns(rng, 5)
    buffer = np.zeros(64 * 40, np.uint8)
    buffer = buffer[-buffer.ctypes.data % 64 :]
    views, place = [], 0
    for column in apart:
        view = buffer[place : place + column.nbytes].view(column.dtype).reshape(column.shape)
        view[:] = column
        views.append(view)
        place += -(-column.nbytes // 64) * 64
    together = Columns(*views)
    uploads = Uploads(device)
    for given in (apart, together):
        for column in given:
            column.flags.writeable = False
        there = uploads.get(given)
        hosts: tuple[NDArray[Any], ...] = given
        for host, twin in zip(hosts, there, strict=True):
            assert device.fetch(twin).tobytes() == host.tobytes()
            assert uploads.twin(host) is twin
        assert uploads.get(given) is there
    assert uploads.get(apart) is uploads.get(apart)
    all_of: Any = apart
    empty = Columns(*(column[:0] for column in all_of))
    assert all(twin.size == 0 for twin in uploads.get(empty))


def test_random_blocks_equal_the_serial_arm(gpu: Gpu, rng: np.random.Generator) -> None:
    """What `-m gpu` runs on a device comes to the same here, refusals included."""
    serial = open_backend("serial")
    keys = keys_of(40)
    balances = np.full(20, BALANCE, np.uint64)
    states = tuple(State(keys[:20], balances, backend=arm) for arm in (serial, gpu.backend))
    assert len(states) == 2
    blocks = RandomBlocks(rng, states, keys)
    for size in (1, 25, 30, 12):
        blocks.step(size)
    assert blocks.height + blocks.refused == 4
    serial.close()
