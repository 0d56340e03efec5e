"""Resident accounts against a dict: lookup, creation, growth, removal, and batches over threads."""

import numpy as np
import pytest

from kernels import accounts, host_accounts
from kernels.backend import Backend
from kernels.host_accounts import HostAccounts, key_words
from kernels.integers import sum_exact
from kernels.layout import NO_DEFECT, NO_SLOT, U8, U64, Changes, Columns, Rules
from tests.kernels.arms import backends

__all__ = ["backends"]

KEY = bytes(32)
RULES = Rules(chain_id=1, height=1, fee_minimum=1, account_minimum=5, accounts_max=2**32 - 2)


def keys_of(numbers: range, salt: int = 0) -> U8:
    """Return keys that differ in few bits: what a bad hash would put beside each other."""
    keys = np.zeros((len(numbers), 32), np.uint8)
    keys[:, 24:] = np.array(numbers, np.uint64).astype(">u8").view(np.uint8).reshape(-1, 8)
    keys[:, 0] = salt
    return keys


def opened(backend: Backend, keys: U8, balance: int = 1000) -> HostAccounts:
    """Open accounts of one balance."""
    balances = np.full(len(keys), balance, np.uint64)
    nonces = np.zeros(len(keys), np.uint64)
    resident = backend.open_accounts(keys, balances, nonces, leaf_key=KEY, node_key=KEY)
    assert isinstance(resident, HostAccounts)
    return resident


def transfers(sender: U8, recipient: U8, amount: U64, nonce: U64 | None = None) -> Columns:
    """Return transfers with a fee of 1."""
    n = len(sender)
    return Columns(
        version=np.ones(n, np.uint8),
        kind=np.zeros(n, np.uint8),
        chain_id=np.ones(n, np.uint32),
        nonce=np.zeros(n, np.uint64) if nonce is None else nonce,
        valid_until=np.ones(n, np.uint64),
        amount=amount,
        fee=np.ones(n, np.uint64),
        memo=np.zeros((n, 16), np.uint8),
        sender=sender,
        recipient=recipient,
        signature=np.zeros((n, 64), np.uint8),
    )


def settle(resident: HostAccounts, columns: Columns, rules: Rules = RULES) -> Changes | None:
    """Execute one lane per transaction."""
    offsets = np.arange(len(columns.kind) + 1, dtype=np.int32)
    senders, recipients = resident.find_parties(columns, offsets)
    walk = resident.walk(columns, offsets, senders, recipients, rules)
    assert walk.defect == NO_DEFECT
    changes = resident.settle(columns, offsets, senders, recipients, walk, b"\xff" * 32, rules)
    if changes is not None:
        resident.update_tree(changes)
    return changes


@pytest.mark.parametrize("count", [1, 38, 39, 5000])
def test_lookup(backends: list[Backend], count: int) -> None:
    """Every key has its slot, and no other key has one, at every load of the table."""
    for backend in backends:
        resident = opened(backend, keys_of(range(count)))
        assert resident.lookup(keys_of(range(count))).tolist() == list(range(count))
        assert set(resident.lookup(keys_of(range(count), salt=1)).tolist()) == {NO_SLOT}
        assert resident.lookup(keys_of(range(count, 2 * count))).tolist() == [NO_SLOT] * count


def test_records_from_before_they_grew_are_never_left(backends: list[Backend]) -> None:
    """A table may name slots that a reader's records do not have: their keys are not found."""
    keys = keys_of(range(100))
    words, rows = key_words(keys), np.empty(0, np.int32)
    rows.flags.writeable = False
    for backend in backends:
        resident = opened(backend, keys)
        for kernel in (accounts.lookup_each, accounts.lookup_range):
            for count in (0, 1, 63, 64, 99):
                found = np.empty(100, np.uint32)
                older = resident.records[:count]
                kernel(resident._entries, older, resident._secret, words, rows, found, 0, 100)
                assert found.tolist() == [*range(count), *[NO_SLOT] * (100 - count)]


def test_the_table_is_sized_by_its_load() -> None:
    """Sizes are powers of two, and at most 3/5 of the entries are used."""
    for count in (0, 1, 38, 39, 1000, 10**6):
        entries = accounts.entries_for(count)
        assert entries & (entries - 1) == 0
        assert count <= accounts.count_limit(entries) <= entries * 3 // 5


def test_creation_growth_and_undo(backends: list[Backend], rng: np.random.Generator) -> None:
    """New accounts take slots in order past every capacity; undo and redo restore each state."""
    for backend in backends:
        resident = opened(backend, keys_of(range(700)), balance=10**6)
        known = {key.tobytes(): slot for slot, key in enumerate(keys_of(range(700)))}
        states, history = [resident.root()], []
        number = 700
        for size in (1, 300, 699, 650):
            sender = keys_of(range(size))
            recipient = keys_of(range(number, number + size))
            order = rng.permutation(size)
            recipient = recipient[order]
            nonce = np.full(size, 0, np.uint64)
            _, _, nonces = resident.read(resident.lookup(sender))
            nonce[:] = nonces
            changes = settle(
                resident, transfers(sender, recipient, np.full(size, 9, np.uint64), nonce)
            )
            assert changes is not None
            for key in recipient:
                known.setdefault(key.tobytes(), len(known))
            known.setdefault(b"\xff" * 32, len(known))
            number += size
            keys = np.frombuffer(b"".join(known), np.uint8).reshape(-1, 32)
            assert resident.count == len(known)
            assert resident.lookup(keys).tolist() == list(known.values())
            history.append(changes)
            states.append(resident.root())
        for changes, state in zip(history[::-1], states[-2::-1], strict=True):
            resident.undo(changes)
            resident.update_tree_slots(changes.slots, changes.count_after, resident.count)
            assert resident.root() == state
            kept = list(range(resident.count))
            assert resident.lookup(keys[: resident.count]).tolist() == kept, "all that stay"
        assert resident.count == 700
        assert set(resident.lookup(keys_of(range(700, number))).tolist()) == {NO_SLOT}
        for changes, state in zip(history, states[1:], strict=True):
            resident.redo(changes)
            resident.update_tree_slots(changes.slots, changes.count_before, resident.count)
            assert resident.root() == state


def test_too_many_accounts_change_nothing(backends: list[Backend]) -> None:
    """A batch that would exceed accounts_max, by the fee recipient alone, leaves no trace."""
    for backend in backends:
        resident = opened(backend, keys_of(range(10)))
        before = resident.root(), resident.records.copy()
        columns = transfers(keys_of(range(3)), keys_of(range(10, 13)), np.full(3, 9, np.uint64))
        assert settle(resident, columns, RULES._replace(accounts_max=13)) is None
        assert settle(resident, columns, RULES._replace(accounts_max=12)) is None
        assert resident.count == 10
        assert resident.root() == before[0]
        assert (resident.records == before[1]).all()
        assert settle(resident, columns, RULES._replace(accounts_max=14)) is not None


def test_fees_are_paid_once_wherever_their_account_stands(
    backends: list[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads settle parts of the slots: the fee recipient belongs to one, at its edges as well."""
    monkeypatch.setattr(host_accounts, "SETTLE_GRAIN", 1)
    keys, offsets = keys_of(range(256)), np.arange(5, dtype=np.int32)
    columns = transfers(keys[[1, 62, 130, 254]], keys[[200, 3, 3, 129]], np.full(4, 7, np.uint64))
    for backend in backends:
        resident = opened(backend, keys)
        root = resident.root()
        for slot in (0, 1, 63, 64, 127, 128, 129, 191, 192, 255):
            senders, recipients = resident.find_parties(columns, offsets)
            walk = resident.walk(columns, offsets, senders, recipients, RULES)
            changes = resident.settle(
                columns, offsets, senders, recipients, walk, keys[slot].tobytes(), RULES
            )
            assert changes is not None
            expected = np.full(256, 1000)
            expected[[1, 62, 130, 254]] -= 8
            np.add.at(expected, [200, 3, 3, 129], 7)
            expected[slot] += 4
            assert resident.read(np.arange(256, dtype=np.uint32))[1].tolist() == expected.tolist()
            touched = sorted({1, 62, 130, 254, 200, 3, 129, slot})
            assert changes.slots.tolist() == touched
            resident.update_tree(changes)
            resident.undo(changes)
            resident.update_tree_slots(changes.slots, 256, 256)
            assert resident.root() == root


def test_units_that_appear_or_vanish_end_a_block(backends: list[Backend]) -> None:
    """Sums before and after are compared in 128 bits, over all parts, and no balance is above."""
    resident = opened(backends[0], keys_of(range(2)))
    good = np.array([[1, 5, 0, 2, 2000], [0, 0, 1, 3, 7]], np.uint64)
    resident._check_conservation(good)
    for part, place, text in ((0, 0, "summed"), (0, 1, "summed"), (1, 2, "summed"),
                              (1, 3, "summed"), (0, 4, "exceeds")):  # fmt: skip
        bad = good.copy()
        bad[part, place] += np.uint64(1)
        with pytest.raises(AssertionError, match=text):
            resident._check_conservation(bad)


def test_large_batches_are_the_same_on_every_arm(
    backends: list[Backend], rng: np.random.Generator
) -> None:
    """50,000 transfers, split over threads, give the same write set, statuses and root."""
    count, size = 60_000, 50_000
    sender = keys_of(range(count))[rng.permutation(count)[:size]]
    recipient = keys_of(range(count + 500))[rng.integers(0, count + 500, size)]
    recipient[rng.integers(0, 3, size) == 0] = keys_of(range(1))[0]
    amount = rng.integers(0, 1100, size).astype(np.uint64)
    amount[rng.integers(0, 50, size) == 0] = 2**64 - 1
    outcomes = []
    for backend in backends:
        resident = opened(backend, keys_of(range(count)))
        changes = settle(resident, transfers(sender, recipient, amount))
        assert changes is not None
        arrays = [array.tobytes() for array in changes[:6]]
        outcomes.append((arrays, changes.count_after, resident.root()))
        balances = resident.records[: resident.count, 4]
        assert sum_exact(balances) == 1000 * count
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_the_first_defect_is_found_by_every_thread(
    backends: list[Backend], rng: np.random.Generator
) -> None:
    """With defects in several parts of a batch the least position is named, on each arm."""
    count = 20_000
    sender = keys_of(range(count))
    for places in ([19_999], [0], [9_999, 10_000, 12_000], [4, 15_000], [10_001]):
        columns = transfers(sender, sender, np.zeros(count, np.uint64))
        for place in places:
            columns.fee[place] = 0
        offsets = np.arange(count + 1, dtype=np.int32)
        for backend in backends:
            resident = opened(backend, sender)
            parties = resident.find_parties(columns, offsets)
            walk = resident.walk(columns, offsets, *parties, RULES)
            assert walk.defect_index == places[0]


def test_what_cannot_be_accounts_is_refused(backends: list[Backend]) -> None:
    """A key twice, a supply of 2^63, and arrays of different lengths are errors."""
    keys = keys_of(range(3))
    twice = np.concatenate((keys, keys[1:2]))
    for backend in backends:
        with pytest.raises(ValueError, match="account 3 has the key of an account before it"):
            opened(backend, twice)
        with pytest.raises(ValueError, match="2\\^63 or more"):
            opened(backend, keys, balance=2**62)
        with pytest.raises(ValueError, match="3 keys, 2 balances"):
            backend.open_accounts(
                keys, np.zeros(2, np.uint64), np.zeros(3, np.uint64), leaf_key=KEY, node_key=KEY
            )
        with pytest.raises(ValueError, match="keys must be"):
            opened(backend, keys).lookup(keys[:, :31])
