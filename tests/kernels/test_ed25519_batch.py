"""Claims about batches: one equation accepts what the specification calls valid, nothing else."""

import random
import secrets
from typing import Any

import numpy as np
import pytest

import spec.oracle
from kernels import ed25519, ed25519_batch
from kernels.bit_sums25519 import DIGIT_BITS
from kernels.ed25519_batch import BATCH_MAX, BATCH_MIN, Batches
from kernels.ed25519_batch_lanes import KEY_WINDOWS, NONCE_WORDS
from kernels.known_keys import KnownKeys, Misses
from kernels.lanes64 import WIDTH
from kernels.layout import U8, U64
from kernels.memory import zeros
from kernels.pool import Pool
from tests.kernels.elements import needs_lanes
from tests.kernels.forgeries import (
    Case,
    as_rows,
    challenge,
    corrupted,
    libsodium,
    mixed_torsion,
    odd_encodings,
    signed_rows,
    torsion_points,
)

pytestmark = needs_lanes
oracle: Any = spec.oracle
Rows = tuple[U8, U8, U8]
ENTRIES = 2**12
DRAWS = 24
"""Batches of one that a forgery must not pass: torsion alone would let one of two through."""


def joined(*parts: Rows) -> Rows:
    """Return rows one after the other."""
    keys, signed, messages = (np.concatenate(part) for part in zip(*parts, strict=True))
    return keys, signed, messages


def judged(rows: Rows, start: int = 0, stop: int | None = None) -> tuple[bool, list[bool]]:
    """Return whether the equation of rows holds, and who may be valid: of new and of known keys."""
    found = []
    end = len(rows[0]) if stop is None else stop
    arrays, known = ed25519_batch._open_arrays(), KnownKeys(ENTRIES)
    for _ in range(2):
        out = np.full(len(rows[0]), 7, np.uint8)
        missed = ed25519_batch._prepare(arrays, known, rows, out, start, end)
        holds = ed25519_batch._is_equal(arrays, end - start)
        assert (out[:start] == 7).all(), "no other rows are written"
        assert (out[end:] == 7).all(), "no other rows are written"
        found.append((holds, out[start:end].astype(bool).tolist()))
        known.keep(arrays.misses, missed, end - start, np.ones_like(out))
    assert found[0] == found[1], "a known key is the same key"
    return found[0]


def batches() -> Batches:
    """Return what verifies and knows no keys."""
    return Batches(1, KnownKeys(0))


def verified(rows: Rows) -> list[bool]:
    """Return the verdicts of a call."""
    out = np.zeros(len(rows[0]), np.uint8)
    batches().verify_range(*rows, out, 0, len(out))
    return out.astype(bool).tolist()


def valid_but_for(rng: random.Random, off: int, torsion_a: Any, torsion_r: Any) -> Case:
    """Return a signature that fits but for `off`, added to S, and torsion added to A and R."""
    secret, nonce = (rng.randrange(oracle.ED_L) for _ in range(2))
    key = oracle.ed_add(oracle.ed_multiply(secret, oracle.ED_BASE), torsion_a)
    point = oracle.ed_add(oracle.ed_multiply(nonce, oracle.ED_BASE), torsion_r)
    r, public, message = oracle.ed_encode(point), oracle.ed_encode(key), rng.randbytes(32)
    s = nonce + challenge(r, public, message) * secret + off
    return public, r + oracle.uint(s % oracle.ED_L, 32), message


def is_odd(encoding: bytes) -> bool:
    """Say whether bytes are no encoding of a point, or of one of small order."""
    return oracle.ed_decode(encoding) is None or oracle.is_small_order(encoding)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 127, 128, 129, 600])
def test_valid_signatures_hold(count: int, seed: int) -> None:
    """Of any number, also where they do not fill groups, and from any row on."""
    rows = signed_rows(np.random.default_rng(seed), count + 3, 160)
    assert judged(rows, 0, count) == (True, [True] * count)
    assert judged(rows, 3, count + 3) == (True, [True] * count)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 200])
def test_messages_of_any_length(length: int, seed: int) -> None:
    """Padding is that of the length."""
    rows = signed_rows(np.random.default_rng(seed), 20, length)
    assert judged(rows) == (True, [True] * 20)


def test_arrays_are_used_again(seed: int) -> None:
    """A batch reads nothing that was there before: a larger batch, a smaller one, or noise."""
    rng = np.random.default_rng(seed)
    arrays = ed25519_batch._open_arrays()
    for count in (9 * WIDTH + 5, 4 * WIDTH, 6 * WIDTH + 3, WIDTH, 6 * WIDTH):
        rows = signed_rows(rng, count, 32)
        out = np.zeros(count, np.uint8)
        assert ed25519_batch._holds(arrays, KnownKeys(0), rows, out, 0, count)
        rows[1][count // 2, 40] ^= np.uint8(1)
        assert not ed25519_batch._holds(arrays, KnownKeys(0), rows, out, 0, count)
        every: tuple[Any, ...] = (*arrays[:-2], *arrays.misses, *arrays.lists)
        for array in every:
            if count % WIDTH:
                array.reshape(-1).view(np.uint8)[:] = np.frombuffer(
                    rng.bytes(array.nbytes), np.uint8
                )


def test_nothing_is_written_beside_arrays(seed: int) -> None:
    """The smallest and the largest batch stay in arrays that are no larger than is asked for."""
    opened: Any = ed25519_batch._open_arrays()
    around: list[tuple[Any, int]] = []

    def guarded(array: Any) -> Any:
        length = 4_096 // array.itemsize
        larger = zeros((len(array) + 2 * length, *array.shape[1:]), array.dtype)
        around.append((larger, length))
        return larger[length:-length]

    lists = tuple(guarded(array) for array in opened.lists)
    misses = Misses._make(guarded(array) for array in opened.misses)
    plain = [guarded(array) for array in opened[:-2]]
    arrays = ed25519_batch._Arrays._make([*plain, misses, lists])
    for larger, length in around:
        larger[:length] = larger[-length:] = 0x5A
    rows = signed_rows(np.random.default_rng(seed), BATCH_MAX, 8)
    for count in (1, BATCH_MAX):
        out = np.zeros(BATCH_MAX, np.uint8)
        assert ed25519_batch._holds(arrays, KnownKeys(0), rows, out, 0, count)
        assert out.sum() == count
    for larger, length in around:
        assert (larger[:length] == 0x5A).all()
        assert (larger[-length:] == 0x5A).all()


def test_calls_at_once_have_arrays_of_their_own(seed: int) -> None:
    """Threads share what lies ready and nothing that is in use; of spares no more are kept."""
    made = batches()
    for _ in range(2):
        taken = [made._take() for _ in range(2)]
        assert taken[0] is not taken[1]
        for arrays in taken:
            made._give_back(arrays)
        assert len(made._spares) == 1
    rows = signed_rows(np.random.default_rng(seed), 3 * BATCH_MIN, 16)
    rows[1][BATCH_MIN, 40] ^= np.uint8(1)
    out = np.zeros(3 * BATCH_MIN, np.uint8)
    pool = Pool(3)
    try:
        ranges = [(BATCH_MIN * k, BATCH_MIN * (k + 1)) for k in range(3)]
        pool.run(made.verify_range, ranges, *rows, out)
    finally:
        pool.close()
    assert np.flatnonzero(out == 0).tolist() == [BATCH_MIN]


def test_one_bad_signature_at_each_place_of_groups(seed: int) -> None:
    """A wrong S, message, key or R is never accepted, wherever it stands; others stay valid."""
    rng = np.random.default_rng(seed)
    count = 2 * WIDTH + 3
    for row in range(count):
        for column, byte in ((0, 5), (1, 3), (1, 40), (2, 0)):
            rows = signed_rows(rng, count, 32)
            rows[column][row, byte] ^= np.uint8(1)
            holds, passed = judged(rows)
            # What is no point is refused at once, and counts for nothing: then the rest holds.
            assert holds != passed[row]
            assert passed[:row] + passed[row + 1 :] == [True] * (count - 1)


def test_calls_with_bad_signatures_fall_back(seed: int) -> None:
    """A call that has some of them gives every signature its own verdict, in every batch."""
    rng = np.random.default_rng(seed)
    rows = signed_rows(rng, 2 * BATCH_MAX + 100, 16)
    made, _ = corrupted(rng, rows, 9_000)
    made[1][0, 33] ^= np.uint8(1)
    out, single = np.zeros(len(made[0]), np.uint8), np.zeros(len(made[0]), np.uint8)
    batches().verify_range(*made, out, 0, len(out))
    ed25519.verify_range(*made, single, 0, len(single))
    assert (out == single).all()
    assert not out[0]


def test_valid_calls_do_not_fall_back(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole calls are accepted by equations alone, below and above the size of a batch."""
    rows = signed_rows(np.random.default_rng(seed), BATCH_MAX + 5, 16)
    monkeypatch.setattr(ed25519, "verify_range", None)
    for count in (BATCH_MIN, BATCH_MAX, BATCH_MAX + 5):
        assert verified((rows[0][:count], rows[1][:count], rows[2][:count])) == [True] * count


def test_torsion_is_never_accepted_unseen(seed: int) -> None:
    """With torsion in A or R nothing is said, whatever the rule without cofactor says of it."""
    rng = random.Random(seed)
    cases = list(mixed_torsion(rng, 1))
    verdicts = libsodium(as_rows(cases))
    assert True in verdicts[1:]
    pure = torsion_points().index((0, 1, 1, 0))
    for i, case in enumerate(cases):
        rows = as_rows([case])
        has_none = i == 9 * pure
        for _ in range(DRAWS):
            assert judged(rows) == (has_none, [True])
    honest = signed_rows(np.random.default_rng(seed), BATCH_MIN, 32)
    assert verified(joined(honest, as_rows(cases))) == [True] * BATCH_MIN + verdicts


def test_defects_that_cancel(seed: int) -> None:
    """Two forgeries whose sum is right: off by d and -d, by torsion T and -T, in R or in A."""
    rng = random.Random(seed)
    neutral = (0, 1, 1, 0)
    pairs = [(valid_but_for(rng, 1, neutral, neutral), valid_but_for(rng, -1, neutral, neutral))]
    for point in torsion_points():
        if point == neutral:
            continue
        minus = (oracle.ED_P - point[0], point[1], 1, oracle.ED_P - point[3])
        for a, b in ((point, neutral), (neutral, point), (point, point)):
            other = tuple(minus if item is point else item for item in (a, b))
            pairs.append((valid_but_for(rng, 0, a, b), valid_but_for(rng, 0, *other)))
    for pair in pairs:
        rows = as_rows([*pair])
        for _ in range(DRAWS // 2):
            assert judged(rows) == (False, [True, True])


def test_the_same_forgery_many_times(seed: int) -> None:
    """Torsion of order 2 in all R, whose number is even: their sum alone would hide it."""
    rng = random.Random(seed)
    order_two = (0, oracle.ED_P - 1, 1, 0)
    rows = as_rows([valid_but_for(rng, 0, (0, 1, 1, 0), order_two) for _ in range(4 * WIDTH)])
    for _ in range(DRAWS):
        assert judged(rows) == (False, [True] * (4 * WIDTH))


def row_of(bit: int, is_nonce: bool) -> int:
    """Return which of the rows of sums is that of a bit of k or of z."""
    window, place = divmod(bit, DIGIT_BITS)
    part, lane = divmod(window + KEY_WINDOWS * is_nonce, WIDTH)
    return (part * DIGIT_BITS + place) * WIDTH + lane


def test_every_sum_of_bits_is_looked_at(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torsion in the sum of any one bit is seen in the one random sum that it is part of.

    Numbers are drawn so that A and R, both with torsion of order 2, fit together.
    """
    rng = random.Random(seed)
    order_two = (0, oracle.ED_P - 1, 1, 0)
    case = valid_but_for(rng, 0, order_two, order_two)
    h, rows = challenge(case[1][:32], case[0], case[2]), as_rows([case])
    z, chosen = 0, {0: 0}

    def draw(numbers: U64, sum_digits: U8, count: int) -> None:
        numbers[:] = 0
        numbers.reshape(NONCE_WORDS, WIDTH)[:, 0] = np.array([z % 2**64, z >> 64], np.uint64)
        digits = sum_digits.view(np.uint64).reshape(-1, NONCE_WORDS, WIDTH)
        digits[:] = 0
        for row, bit in chosen.items():
            digits[row // WIDTH, bit // 64, row % WIDTH] = np.uint64(1 << bit % 64)

    monkeypatch.setattr(ed25519_batch, "_draw", draw)
    # No k is likely to have bit 252.
    bits = [(bit, False) for bit in range(252)] + [(bit, True) for bit in range(128)]
    for i, (bit, is_nonce) in enumerate(bits):
        k = z = 0
        while not (z if is_nonce else k) >> bit & 1 or (z + k) % 2:
            z = rng.getrandbits(128)
            k = z * h % oracle.ED_L
        chosen = {}
        assert judged(rows) == (True, [True]), "without (b) the torsion would not show"
        chosen = {row_of(bit, is_nonce): i % 128}
        assert judged(rows) == (False, [True])


def test_odd_encodings(seed: int) -> None:
    """What bytes alone refuse counts for nothing: the others hold, and no verdict differs."""
    honest = signed_rows(np.random.default_rng(seed), 2 * WIDTH, 32)
    cases = list(odd_encodings(random.Random(seed)))
    rows = joined(honest, as_rows(cases))
    out = np.zeros(len(rows[0]), np.uint8)
    for start in range(0, len(cases), 2_000):
        part = joined(honest, as_rows(cases[start : start + 2_000]))
        holds, passed = judged(part)
        assert passed[: 2 * WIDTH] == [True] * (2 * WIDTH)
        assert holds or any(passed[2 * WIDTH :])
        for i, may_be_valid in enumerate(passed[2 * WIDTH :]):
            key, signature, _ = cases[start + i]
            assert not (may_be_valid and (is_odd(key) or is_odd(signature[:32])))
    batches().verify_range(*rows, out, 0, len(out))
    assert out.tolist() == [1] * (2 * WIDTH) + [0] * len(cases)


def test_equal_keys_and_equal_signatures(seed: int) -> None:
    """One key signs all, or the same signature stands there many times: chains of equal points."""
    rng = np.random.default_rng(seed)
    keys, signed, messages = signed_rows(rng, 1, 32)
    same = (np.repeat(keys, 700, 0), np.repeat(signed, 700, 0), np.repeat(messages, 700, 0))
    assert judged(same) == (True, [True] * 700)
    same[2][350, 0] ^= np.uint8(1)
    assert judged(same)[0] is False


def test_the_oracle_agrees(seed: int) -> None:
    """The specification's equation, with numbers of its own, says the same of small batches."""
    rng = random.Random(seed)
    cases = list(mixed_torsion(rng, 1))
    pure = torsion_points().index((0, 1, 1, 0))
    good = [cases[9 * pure], *as_cases(signed_rows(np.random.default_rng(seed), 2, 32))]
    for batch in (good, [*good, cases[1 + 9 * pure]], [good[0], (good[1][0], *good[2][1:])]):
        draws = [rng.getrandbits(128) for _ in batch]
        assert oracle.batch_holds(batch, draws) is judged(as_rows(batch))[0]
    assert oracle.batch_holds(good, [rng.getrandbits(128) for _ in good])


def as_cases(rows: Rows) -> list[Case]:
    """Return rows as bytes."""
    return [(k.tobytes(), s.tobytes(), m.tobytes()) for k, s, m in zip(*rows, strict=True)]


def test_numbers_are_drawn_anew(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Every batch asks for a secret of its own; nothing is drawn twice; idle lanes get 0."""
    drawn: list[int] = []
    known = KnownKeys(0)
    real = secrets.token_bytes

    def token_bytes(length: int) -> bytes:
        drawn.append(length)
        return real(length)

    monkeypatch.setattr(secrets, "token_bytes", token_bytes)
    rows = signed_rows(np.random.default_rng(seed), WIDTH + 3, 8)
    arrays = ed25519_batch._open_arrays()
    out, seen = np.zeros(WIDTH + 3, np.uint8), set[int]()
    for _ in range(4):
        assert ed25519_batch._holds(arrays, known, rows, out, 0, WIDTH + 3)
        numbers = arrays.numbers[: 4 * WIDTH].reshape(2, 2, WIDTH)
        assert (numbers[1, :, 3:] == 0).all()
        assert (numbers[0] != 0).all()
        seen |= {*numbers[numbers != 0].tolist(), *arrays.sum_digits.view(np.uint64).tolist()}
    assert len(seen) == 4 * (NONCE_WORDS * (WIDTH + 3) + len(arrays.sum_digits) // 8)
    assert drawn == [32] * 4


def test_without_randomness_nothing_is_judged(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Where the system has no secret to give, a call ends in its error and accepts nothing."""

    def token_bytes(length: int) -> bytes:
        raise OSError(f"no {length} random bytes")

    rows = signed_rows(np.random.default_rng(seed), BATCH_MIN, 8)
    made, out = batches(), np.zeros(BATCH_MIN, np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(secrets, "token_bytes", token_bytes)
        with pytest.raises(OSError, match="no 32 random bytes"):
            made.verify_range(*rows, out, 0, BATCH_MIN)
    assert not out.any()
    assert len(made._spares) == 1
    made.verify_range(*rows, out, 0, BATCH_MIN)
    assert out.all()


@pytest.mark.slow
def test_batches_and_single_verdicts_agree(seed: int) -> None:
    """100,000 signatures, a few corrupted in each batch or none: libsodium's rule by both ways."""
    rng = np.random.default_rng(seed)
    for part in (500, 3_000, 10**9):
        rows, _ = corrupted(rng, signed_rows(rng, 34_000, 96), part)
        single = np.zeros(34_000, np.uint8)
        ed25519.verify_range(*rows, single, 0, 34_000)
        assert verified(rows) == single.astype(bool).tolist()
