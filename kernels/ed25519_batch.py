"""Ed25519 verification of many signatures by one equation: batches, their arrays, their secrets.

If the equation of a batch holds, each signature is valid by the very rule that is applied to a
single one, but for a chance below 2^-126; if it does not, they are judged one by one (`ed25519`).
So verdicts are the same on every path; only the work differs: a third to a half of it, as doublings
and additions are shared. Spec: spec/signatures.md#batches
"""

import secrets
import threading
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from blake3 import blake3

from kernels import bit_sums25519, ed25519, scalar25519, sha512
from kernels.bit_sums25519 import DIGIT_BITS, DIGITS, SUMS_BYTES, sum_bits
from kernels.curve25519 import AFFINE_ROW_BYTES
from kernels.ed25519_batch_lanes import (
    BITS,
    CANCELS_BYTES,
    KEY_WINDOWS,
    LADDER,
    MESSAGES,
    NONCE_WINDOWS,
    NONCE_WORDS,
    PARTS,
    cancels,
    have_order,
    prepare_rows,
    write_sums,
)
from kernels.known_keys import KnownKeys, Misses, open_misses
from kernels.lanes64 import WIDTH
from kernels.layout import I32, U8, U64
from kernels.memory import zeros

BATCH_MIN: Final = 512
"""Signatures below which a batch costs by itself what it saves: on a Zen 4 it takes as long as one
by one at 448 of them (by `ifma`, `avx512` and `avx2` alike), and half as long at 2,048."""
BATCH_MAX: Final = 8_192
"""Signatures of a batch: of more, the points do not stay in the caches of a core."""
SECRET_BYTES: Final = 32
_ROW_WORDS: Final = AFFINE_ROW_BYTES // 8
_GROUPS_MAX: Final = BATCH_MAX // WIDTH

Sources = tuple[U8, U8, U8]
"""(n, 32) public keys, (n, 64) signatures, (n, m) messages, all C-contiguous uint8."""


class _Arrays(NamedTuple):
    """What a batch is computed in; nothing of one batch is read by the next."""

    numbers: U64
    key_scalars: U64
    total: U64
    keys: U64
    nonces: U64
    sums: U64
    sum_rows: U64
    sum_digits: U8
    scratch: U8
    misses: Misses
    lists: tuple[I32, ...]


def _open_arrays() -> _Arrays:
    rows = WIDTH * (_GROUPS_MAX + 1) + 1
    assert rows > BITS, "the links of a batch are enough for those of its sums"
    lengths = (rows, DIGITS, DIGITS, DIGITS, bit_sums25519.LENGTHS + 1, WIDTH)
    return _Arrays(
        numbers=zeros(_GROUPS_MAX * NONCE_WORDS * WIDTH, np.uint64),
        key_scalars=zeros((_GROUPS_MAX + 1) * scalar25519.WORDS * WIDTH, np.uint64),
        total=zeros(scalar25519.WORDS * WIDTH, np.uint64),
        keys=zeros(rows * _ROW_WORDS, np.uint64),
        nonces=zeros(rows * _ROW_WORDS, np.uint64),
        sums=zeros(PARTS * SUMS_BYTES // 8, np.uint64),
        sum_rows=zeros((BITS + 1) * _ROW_WORDS, np.uint64),
        scratch=zeros(max(bit_sums25519.SCRATCH_BYTES, CANCELS_BYTES), np.uint8),
        sum_digits=zeros(BITS * 8 * NONCE_WORDS, np.uint8),
        misses=open_misses(BATCH_MAX),
        lists=tuple(np.zeros(length, np.int32) for length in lengths),
    )


class Batches:
    """Verifies in batches, on any thread, and keeps the arrays of some for the next call."""

    def __init__(self, spares_max: int, known: KnownKeys) -> None:
        """Keep at most so many sets of arrays, of about 4 MiB each, that nobody uses.

        known: is read and written by all batches.
        """
        self.known = known
        self._spares_max = spares_max
        self._spares: list[_Arrays] = []
        self._mutex = threading.Lock()

    def verify_range(
        self, public_keys: U8, signatures: U8, messages: U8, out: U8, start: int, stop: int
    ) -> None:
        """Write 1 to `out` for each valid signature of rows [start, stop), 0 for the others.

        public_keys: (n, 32), signatures: (n, 64), messages: (n, m >= 0), all C-contiguous uint8.
        """
        sources = public_keys, signatures, messages
        if stop - start < BATCH_MIN:
            ed25519.verify_range(*sources, out, start, stop)
            return
        batches = -(-(stop - start) // BATCH_MAX)
        size = WIDTH * -(-(stop - start) // (WIDTH * batches))
        arrays = self._take()
        try:
            for first in range(start, stop, size):
                end = min(stop, first + size)
                missed = _prepare(arrays, self.known, sources, out, first, end)
                if not _is_equal(arrays, end - first):
                    ed25519.verify_range(*sources, out, first, end)
                self.known.keep(arrays.misses, missed, end - first, out)
        finally:
            self._give_back(arrays)

    def accepts_each(self, sources: Sources, known: KnownKeys) -> U8:
        """Judge each of n signatures by a batch of its own, (n,) uint8: 1 if that says valid.

        Keeps every key that decodes afterwards, also of signatures that are not valid, so that a
        second call finds them: for checks only.
        """
        count = len(sources[0])
        out, every, arrays = np.zeros(count, np.uint8), np.ones(count, np.uint8), self._take()
        try:
            _prepare(arrays, known, sources, out, 0, count)
            for row in np.flatnonzero(out).tolist():
                out[row] = _holds(arrays, known, sources, out, row, row + 1)
            missed = _prepare(arrays, known, sources, every.copy(), 0, count)
            known.keep(arrays.misses, missed, count, every)
        finally:
            self._give_back(arrays)
        return out

    def _take(self) -> _Arrays:
        with self._mutex:
            if self._spares:
                return self._spares.pop()
        return _open_arrays()

    def _give_back(self, arrays: _Arrays) -> None:
        with self._mutex:
            if len(self._spares) < self._spares_max:
                self._spares.append(arrays)


def _draw(numbers: U64, sum_digits: U8, count: int) -> None:
    """Fill both with random numbers; those of lanes without a signature are 0."""
    length = numbers.nbytes + sum_digits.nbytes
    stream = blake3(secrets.token_bytes(SECRET_BYTES)).digest(length=length)
    sum_digits[:] = np.frombuffer(stream, np.uint8, sum_digits.nbytes)
    numbers[:] = np.frombuffer(stream, np.uint64, offset=sum_digits.nbytes)
    used = count % WIDTH or WIDTH
    numbers.reshape(-1, NONCE_WORDS, WIDTH)[-1, :, used:] = 0


@cache
def _fixed_rows() -> tuple[list[int], list[int]]:
    """Return the rows of B and of the neutral point."""
    return ed25519.affine_row(ed25519.base_point()), ed25519.affine_row((0, 1))


def _add_base(arrays: _Arrays, groups: int) -> None:
    """Append B, whose scalar is the sum of z S, to the keys, and neutral rows to all tables."""
    lanes = np.ascontiguousarray(arrays.total.reshape(scalar25519.WORDS, WIDTH).T)
    scalar = sum(int.from_bytes(lane.tobytes(), "little") for lane in lanes) % scalar25519.L
    scalars = arrays.key_scalars.reshape(-1, scalar25519.WORDS, WIDTH)
    scalars[groups] = 0
    scalars[groups, :, 0] = np.frombuffer(scalar.to_bytes(32, "little"), np.uint64)
    keys, nonces = arrays.keys.reshape(-1, _ROW_WORDS), arrays.nonces.reshape(-1, _ROW_WORDS)
    keys[groups * WIDTH], neutral = _fixed_rows()
    keys[(groups + 1) * WIDTH] = nonces[groups * WIDTH] = neutral
    arrays.sum_rows[-_ROW_WORDS:] = neutral


def _prepare(
    arrays: _Arrays, known: KnownKeys, sources: Sources, out: U8, start: int, stop: int
) -> int:
    """Write rows and scalars of a batch, and to `out` which signatures their bytes do not refuse.

    Those that are refused count for nothing in the equation. Returns how many keys had to be
    decoded: `misses` says which.
    """
    assert stop - start <= BATCH_MAX, "the arrays have room for no more"
    groups = -(-(stop - start) // WIDTH)
    numbers = arrays.numbers[: groups * NONCE_WORDS * WIDTH]
    _draw(numbers, arrays.sum_digits, stop - start)
    arrays.total[:] = 0
    length = ed25519.HEAD_BYTES + sources[2].shape[1]
    begin = MESSAGES
    scratch = zeros(begin + WIDTH * sha512.padded_bytes(length), np.uint8)
    stride = ed25519.padded_rows(scratch, begin, length)
    tables = (ed25519.tables(), scratch)
    arrays_ = (numbers, arrays.key_scalars, arrays.total, arrays.keys, arrays.nonces)
    missed: int = prepare_rows(
        *(np.uint64(array.ctypes.data) for array in tables),
        tuple(np.uint64(array.ctypes.data) for array in sources),
        np.uint64(sources[2].shape[1]),
        np.uint64(stride),
        *(np.uint64(array.ctypes.data) for array in arrays_),
        (known.table, known.secret),
        *arrays.misses,
        out,
        start,
        stop,
    )
    _add_base(arrays, groups)
    return missed


def _holds(
    arrays: _Arrays, known: KnownKeys, sources: Sources, out: U8, start: int, stop: int
) -> bool:
    """Judge the batch of rows [start, stop); at most BATCH_MAX.

    True: `out` holds its verdicts. False: whose `out` is 0 is not valid, of others nothing is said.
    """
    _prepare(arrays, known, sources, out, start, stop)
    return _is_equal(arrays, stop - start)


def _is_equal(arrays: _Arrays, count: int) -> bool:
    """Say whether the equation of a batch of so many, which is prepared, holds."""
    groups = -(-count // WIDTH)
    keys, nonces, sums, sum_rows, scratch = (
        np.uint64(array.ctypes.data)
        for array in (arrays.keys, arrays.nonces, arrays.sums, arrays.sum_rows, arrays.scratch)
    )
    nonce_sums = sums + np.uint64(KEY_WINDOWS // WIDTH * SUMS_BYTES)
    shared = arrays.lists, scratch
    digits = arrays.key_scalars.view(np.uint8)
    sum_bits(keys, WIDTH * (groups + 1), digits, scalar25519.WORDS, *shared, sums)
    digits = arrays.numbers.view(np.uint8)
    sum_bits(nonces, WIDTH * groups, digits, NONCE_WORDS, *shared, nonce_sums)
    if not cancels(sums, scratch, DIGIT_BITS - 1):
        return False
    write_sums(sums, sum_rows, scratch)
    sum_bits(sum_rows, BITS, arrays.sum_digits, NONCE_WORDS, *shared, sums)
    return bool(have_order(sums, NONCE_WINDOWS // WIDTH * DIGIT_BITS, LADDER))
