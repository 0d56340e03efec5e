"""Claims about known keys: a hint saves a square root, and whatever it is, no verdict changes."""

import random
from typing import Any

import numpy as np
import pytest

import spec.oracle
from kernels import ed25519_batch
from kernels.backend import KNOWN_KEYS_MAX, open_backend
from kernels.ed25519_batch import BATCH_MAX, BATCH_MIN, Batches
from kernels.known_keys import KnownKeys
from kernels.known_keys_lanes import HINT_WORDS
from kernels.lanes64 import WIDTH
from kernels.layout import U8
from kernels.pool import Pool
from tests.kernels.elements import needs_lanes
from tests.kernels.forgeries import (
    as_rows,
    corrupted,
    libsodium,
    mixed_torsion,
    odd_encodings,
    signed_rows,
)

pytestmark = needs_lanes
oracle: Any = spec.oracle
Rows = tuple[U8, U8, U8]
ENTRIES = 2**16
HINT_BYTES = 8 * HINT_WORDS


def verified(known: KnownKeys, rows: Rows) -> list[bool]:
    """Return the verdicts of a call."""
    out = np.zeros(len(rows[0]), np.uint8)
    Batches(1, known).verify_range(*rows, out, 0, len(out))
    return out.astype(bool).tolist()


def asked(known: KnownKeys, rows: Rows) -> tuple[int, int]:
    """Return how many keys of a call of valid signatures were known, and how many not."""
    hits, misses = known.counts
    assert verified(known, rows) == [True] * len(rows[0])
    return known.counts[0] - hits, known.counts[1] - misses


def hint_of(x: int) -> list[int]:
    """Return the words of a hint."""
    words: list[int] = np.frombuffer(oracle.uint(x, HINT_BYTES), np.uint64).tolist()
    return words


def x_of(key: bytes) -> int:
    """Return x of the point that a key encodes."""
    x: int = oracle.ed_decode(key)[0]
    return x


def is_known(key: bytes, hint: int) -> bool:
    """Say whether the kernels take this hint for this key; both stand in every lane."""
    known = KnownKeys(1)
    known.table[0] = hint_of(hint)
    arrays = ed25519_batch._open_arrays()
    rows = as_rows([(key, bytes(64), b"")] * WIDTH)
    out = np.zeros(WIDTH, np.uint8)
    missed = ed25519_batch._prepare(arrays, known, rows, out, 0, WIDTH)
    assert missed in (0, WIDTH)
    return missed == 0


def test_a_key_that_comes_again_is_known(seed: int) -> None:
    """Of every number of signatures, and where a call has known and new ones; not beyond."""
    rng = np.random.default_rng(seed)
    known = KnownKeys(ENTRIES)
    rows = signed_rows(rng, BATCH_MAX + BATCH_MIN + 3, 16)
    count = len(rows[0])
    assert asked(known, rows) == (0, count)
    hits, misses = asked(known, rows)
    # Some stand in the place of others: of n keys in m places about n^2 / 2 m.
    assert misses < 2 * count**2 // ENTRIES
    assert hits + misses == count
    others = signed_rows(rng, count, 16)
    mixed: Any = [array.copy() for array in rows]
    for mine, its in zip(mixed, others, strict=True):
        mine[::3] = its[::3]
    hits, misses = asked(known, (mixed[0], mixed[1], mixed[2]))
    new = len(range(0, count, 3))
    assert new <= misses < new + 2 * count**2 // ENTRIES
    known.forget()
    assert asked(known, rows)[0] < count // 100


def test_a_table_without_entries_knows_nothing(seed: int) -> None:
    """Nor does it write."""
    rows, known = signed_rows(np.random.default_rng(seed), BATCH_MIN, 16), KnownKeys(0)
    for _ in range(2):
        assert asked(known, rows) == (0, BATCH_MIN)
    assert not known.table.any()


@pytest.mark.parametrize("entries", [-1, KNOWN_KEYS_MAX + 1])
def test_nonsense_is_refused(entries: int) -> None:
    """A table has a size that memory may have."""
    with pytest.raises(ValueError, match="known keys must be"):
        KnownKeys(entries)


@pytest.mark.parametrize(("name", "entries"), [("cpu", ENTRIES), ("cpu", 0), ("serial", ENTRIES)])
def test_a_backend_knows_keys_if_it_is_told_to(name: Any, entries: int, seed: int) -> None:
    """All calls share a table; `serial` keeps nothing."""
    rows = signed_rows(np.random.default_rng(seed), BATCH_MIN, 16)
    backend = open_backend(name, 1, known_keys=entries)
    try:
        assert backend.verify_signatures(*rows).all()
        assert backend.known_keys == (0, BATCH_MIN if name == "cpu" else 0)
        assert backend.verify_signatures(*rows).all()
        hits = backend.known_keys[0]
        assert hits > BATCH_MIN - 20 if name == "cpu" and entries else hits == 0
    finally:
        backend.close()


def test_what_is_not_valid_is_not_kept(seed: int) -> None:
    """Keys cost nothing, signatures do: only who has one takes a place."""
    rng = np.random.default_rng(seed)
    rows, known = signed_rows(rng, BATCH_MIN + 7, 16), KnownKeys(ENTRIES)
    bad = np.arange(0, len(rows[0]), 5)
    forged = (rows[0], rows[1].copy(), rows[2])
    forged[1][bad, 40] ^= np.uint8(1)
    assert [i for i, is_valid in enumerate(verified(known, forged)) if not is_valid] == bad.tolist()
    hits, misses = asked(known, rows)
    assert len(bad) <= misses < len(bad) + 10
    assert hits > 300


@pytest.mark.parametrize("entries", [1, 2, 8, ENTRIES])
def test_hostile_calls_whatever_is_known(entries: int, seed: int) -> None:
    """Torsion, encodings that are none and wrong signatures, new and again, beside honest ones."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    odd = list(odd_encodings(rng))
    cases = [*mixed_torsion(rng, 1), *rng.sample(odd, 200)]
    honest, _ = corrupted(numbers, signed_rows(numbers, BATCH_MIN, 32), 50)
    parts = zip(honest, as_rows(cases), strict=True)
    keys, signed, messages = (np.concatenate(part) for part in parts)
    expected, known = libsodium((keys, signed, messages)), KnownKeys(entries)
    for _ in range(3):
        assert verified(known, (keys, signed, messages)) == expected
        order = numbers.permutation(len(keys))
        keys, signed, messages = keys[order], signed[order], messages[order]
        expected = [expected[i] for i in order]


def test_only_x_of_the_key_is_taken(seed: int) -> None:
    """The specification's function says the same of right, wrong, swapped and odd hints."""
    rng = random.Random(seed)
    keys = [oracle.ed_encode(oracle.ed_multiply(rng.randrange(1, oracle.ED_L), oracle.ED_BASE))
            for _ in range(4)]  # fmt: skip
    keys += [bytes([*key[:31], key[31] ^ 0x80]) for key in keys[:2]]
    no_point = next(n for n in range(2, 99) if oracle.ed_decode(oracle.uint(n, 32)) is None)
    keys += [oracle.uint(no_point, 32), oracle.uint(1, 32), oracle.uint(1 | 1 << 255, 32)]
    hints = [0, 1, oracle.ED_P - 1, oracle.ED_P, 2**255 - 1, 2**256 - 1, rng.getrandbits(256)]
    for key in keys[:6]:
        x = x_of(key)
        hints += [x, oracle.ED_P - x, x | 1 << 255, x ^ 1 << rng.randrange(255)]
    taken = 0
    for key in keys:
        for hint in hints:
            expected = oracle.known_x(key, oracle.uint(hint, HINT_BYTES)) is not None
            assert is_known(key, hint) == expected, (key.hex(), hint)
            taken += expected
    # Each point is that of two keys, and x comes with the highest bit, and as p - x of the other.
    assert taken >= 12


def test_small_x_may_be_larger_than_p() -> None:
    """A hint is read modulo p: x + p stands for x where it fits into 255 bits."""
    found = 0
    for x in range(1, 19):
        square = (1 + x * x) * pow(1 - oracle.ED_D * x * x, -1, oracle.ED_P) % oracle.ED_P
        y = pow(square, (oracle.ED_P + 3) // 8, oracle.ED_P)
        if y * y % oracle.ED_P != square:
            y = y * pow(2, (oracle.ED_P - 1) // 4, oracle.ED_P) % oracle.ED_P
        if y * y % oracle.ED_P == square:
            key = oracle.uint(y | (x & 1) << 255, 32)
            assert is_known(key, x)
            assert is_known(key, x + oracle.ED_P)
            assert not is_known(key, oracle.ED_P - x)
            found += 1
    assert found


def test_damaged_tables_change_no_verdict(seed: int) -> None:
    """Noise, hints of others, negatives: in all places, or in some words of them."""
    rng = np.random.default_rng(seed)
    rows = signed_rows(rng, BATCH_MIN, 16)
    made, _ = corrupted(rng, rows, 40)
    expected, known = libsodium(made), KnownKeys(8)
    for turn in range(12):
        assert verified(known, made) == expected
        if turn % 3 == 0:
            known.table[:] = np.frombuffer(rng.bytes(known.table.nbytes), np.uint64).reshape(-1, 4)
        elif turn % 3 == 1:
            known.table[:] = np.roll(known.table, 1, 0)
        else:
            known.table[:, turn % 4] = 0


def test_threads_share_a_table(seed: int) -> None:
    """Calls at once write the same few places; each has its verdicts."""
    rng = np.random.default_rng(seed)
    rows, bad = signed_rows(rng, 6 * BATCH_MIN, 16), 3 * BATCH_MIN + 5
    rows[1][bad, 40] ^= np.uint8(1)
    batches, pool = Batches(3, KnownKeys(2)), Pool(3)
    try:
        for _ in range(4):
            out = np.zeros(len(rows[0]), np.uint8)
            ranges = [(BATCH_MIN * k, BATCH_MIN * (k + 1)) for k in range(6)]
            pool.run(batches.verify_range, ranges, *rows, out)
            assert np.flatnonzero(out == 0).tolist() == [bad]
    finally:
        pool.close()
