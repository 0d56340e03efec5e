"""Integers modulo L, the order of the base point, and the checks on encoded numbers, in lanes.

Scalars stand as little-endian 64-bit words, one vector per word. For products they are cut into 21
bits, in signed 64-bit lanes: 2^252 = -c modulo L with c of 125 bits, so a limb at place 12 + i
is worth six small multiples at places i to i + 5.

Bounds. The 24 limbs of 512 bits are below 2^21, the last below 2^29; those of a product of two
numbers of 256 bits, whose last limbs have 25 bits, are sums of at most 12 products and below 2^50,
and are carried to the same sizes first. A multiple of the fold is below 2^20 times its limb. So the
limbs at places 23 to 18 add less than 2^49 + 5 * 2^41 to any place, the carry behind them passes
less than 2^29 on, and the limbs at 17 to 12 add less than 2^49 + 5 * 2^41 again: nothing reaches
2^52. The carries behind the last two folds use floors: the first fold leaves a number in
(-2^252, 2^252), the second adds L where it is negative, so the answer is the one in [0, L).
"""

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels import lanes64
from kernels.lanes64 import LANES, MASK, VECTOR, splat, void_function

L: Final = 2**252 + 27742317777372353535851937790883648493
WORDS: Final = 4
SCALAR_BYTES: Final = WORDS * lanes64.VECTOR_BYTES

_BITS: Final = 21
_LIMB_MASK: Final = 2**_BITS - 1
_LIMBS: Final = 12
_P: Final = 2**255 - 19
_SIGN: Final = 2**63


def _signed_limbs(number: int) -> list[int]:
    """Return limbs of 21 bits in [-2^20, 2^20) that count `number`."""
    limbs = []
    while number:
        limb = (number + 2**20) % 2**_BITS - 2**20
        limbs.append(limb)
        number = (number - limb) >> _BITS
    return limbs


_FOLD: Final = _signed_limbs(2**252 - L)
assert len(_FOLD) == 6, "2^252 modulo L has six limbs"

Limbs = list[Any]


def _emit_split(builder: Any, words: list[Any], count: int) -> Limbs:
    """Emit `count` limbs of 21 bits; the last takes all that is left."""
    limbs = []
    for i in range(count):
        word, shift = divmod(_BITS * i, 64)
        part = builder.lshr(words[word], splat(shift))
        if shift > 64 - _BITS and word + 1 < len(words):
            part = lanes64.funnel_right(builder, words[word + 1], words[word], shift)
        limbs.append(part if i == count - 1 else builder.and_(part, splat(_LIMB_MASK)))
    return limbs


def _emit_join(builder: Any, limbs: Limbs) -> list[Any]:
    words = []
    for k in range(WORDS):
        word = None
        for i, limb in enumerate(limbs):
            offset = _BITS * i - 64 * k
            if not -_BITS - 1 <= offset < 64:
                continue
            operation = builder.shl if offset >= 0 else builder.lshr
            part = operation(limb, splat(abs(offset)))
            word = part if word is None else builder.or_(word, part)
        words.append(word)
    return words


def _emit_carry(builder: Any, limbs: Limbs, places: range, rounding: int) -> None:
    """Pass what exceeds 21 bits to the next place: to the nearest (2^20) or the floor (0)."""
    for i in places:
        biased = builder.add(limbs[i], splat(rounding)) if rounding else limbs[i]
        over = builder.ashr(biased, splat(_BITS))
        limbs[i + 1] = builder.add(limbs[i + 1], over)
        limbs[i] = builder.sub(limbs[i], builder.shl(over, splat(_BITS)))


def _emit_fold(builder: Any, limbs: Limbs, place: int) -> None:
    """Replace the limb at `place` >= 12 by its multiples below."""
    for i, factor in enumerate(_FOLD):
        target = place - _LIMBS + i
        limbs[target] = builder.add(limbs[target], builder.mul(limbs[place], splat(factor)))
    limbs[place] = splat(0)


def _emit_reduce(builder: Any, limbs: Limbs) -> list[Any]:
    """Emit the words of the number in [0, L) that 24 limbs count modulo L."""
    half = 2 ** (_BITS - 1)
    for place in range(23, 17, -1):
        _emit_fold(builder, limbs, place)
    _emit_carry(builder, limbs, range(6, 17, 2), half)
    _emit_carry(builder, limbs, range(7, 16, 2), half)
    for place in range(17, 11, -1):
        _emit_fold(builder, limbs, place)
    _emit_carry(builder, limbs, range(0, 11, 2), half)
    _emit_carry(builder, limbs, range(1, 12, 2), half)
    _emit_fold(builder, limbs, _LIMBS)
    _emit_carry(builder, limbs, range(12), 0)
    _emit_fold(builder, limbs, _LIMBS)
    _emit_carry(builder, limbs, range(11), 0)
    return _emit_join(builder, limbs[:_LIMBS])


def _load_words(builder: Any, address: Any, count: int) -> list[Any]:
    return [lanes64.load_vector(builder, address, i) for i in range(count)]


def _store_words(builder: Any, words: list[Any], address: Any) -> None:
    for i, word in enumerate(words):
        lanes64.store_vector(builder, word, address, i)


@intrinsic  # type: ignore[untyped-decorator]
def reduce_wide(typing_context: Any, source: Any, target: Any) -> Any:
    """Write 4 vectors: the number below L that 8 vectors of words at `source` are modulo L."""

    def emit(builder: Any, source_: Any, target_: Any) -> None:
        limbs = _emit_split(builder, _load_words(builder, source_, 2 * WORDS), 2 * _LIMBS)
        _store_words(builder, _emit_reduce(builder, limbs), target_)

    return void_function(types.void(types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any, target: Any) -> Any:
    """Write 4 vectors: a * b + c modulo L, below L. a, b, c: 4 vectors of words, any values."""

    def emit(builder: Any, a_: Any, b_: Any, c_: Any, target_: Any) -> None:
        x, y, z = (
            _emit_split(builder, _load_words(builder, item, WORDS), _LIMBS) for item in (a_, b_, c_)
        )
        limbs = z + [splat(0)] * _LIMBS
        for i, left in enumerate(x):
            for j, right in enumerate(y):
                limbs[i + j] = builder.add(limbs[i + j], builder.mul(left, right))
        half = 2 ** (_BITS - 1)
        _emit_carry(builder, limbs, range(0, 23, 2), half)
        _emit_carry(builder, limbs, range(1, 22, 2), half)
        _store_words(builder, _emit_reduce(builder, limbs), target_)

    return void_function(types.void(types.uint64, types.uint64, types.uint64, types.uint64), emit)


def window_offset(bits: int, count: int) -> int:
    """Return the sum of 2^(bits - 1) over all windows of `bits` bits but the last of `count`.

    With it added to a scalar, window i holds the digit d_i + 2^(bits - 1) of the scalar, d_i in
    [-2^(bits - 1), 2^(bits - 1)), and the last window its digit itself, which is not negative.
    """
    return sum(2 ** (bits - 1 + bits * i) for i in range(count - 1))


def _emit_add_constant(builder: Any, words: list[Any], number: int) -> list[Any]:
    answer = []
    carry = splat(0)
    for i, word in enumerate(words):
        part = splat(number >> 64 * i)
        total = builder.add(word, part)
        first = builder.icmp_unsigned("<", total, part)
        final = builder.add(total, carry)
        second = builder.icmp_unsigned("<", final, carry)
        carry = builder.zext(builder.or_(first, second), VECTOR)
        answer.append(final)
    return answer


def _offset_function(number: int) -> Any:
    def emit(builder: Any, source: Any, target: Any) -> None:
        words = _emit_add_constant(builder, _load_words(builder, source, WORDS), number)
        _store_words(builder, words, target)

    return void_function(types.void(types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def offset_by_4(typing_context: Any, source: Any, target: Any) -> Any:
    """Write a scalar below 2^253 plus the offset of 64 windows of 4 bits, modulo 2^256."""
    return _offset_function(window_offset(4, 64))


@intrinsic  # type: ignore[untyped-decorator]
def offset_by_8(typing_context: Any, source: Any, target: Any) -> Any:
    """Write a scalar below 2^253 plus the offset of 32 windows of 8 bits, modulo 2^256."""
    return _offset_function(window_offset(8, 32))


def _emit_is_below(builder: Any, words: list[Any], number: int) -> Any:
    below = ir.Constant(MASK, [0] * lanes64.WIDTH)
    for i, word in enumerate(words):
        part = splat(number >> 64 * i)
        equal = builder.icmp_unsigned("==", word, part)
        below = builder.or_(builder.icmp_unsigned("<", word, part), builder.and_(equal, below))
    return below


def _without_sign(builder: Any, words: list[Any]) -> list[Any]:
    return [*words[:-1], builder.and_(words[-1], splat(_SIGN - 1))]


def small_order_ys() -> list[int]:
    """Return every y of 255 bits that is congruent to the y of one of the eight torsion points."""
    d = -121665 * pow(121666, -1, _P) % _P
    # Twice a point of order 8 has y = 0: there y^2 + x^2 = 0, so d y^4 + 2 y^2 - 1 = 0.
    root = pow(1 + d, (_P + 3) // 8, _P)
    if root * root % _P != (1 + d) % _P:
        root = root * pow(2, (_P - 1) // 4, _P) % _P
    ys = {0, 1, _P - 1}
    for sign in (root, -root):
        square = (sign - 1) * pow(d, -1, _P) % _P
        y = pow(square, (_P + 3) // 8, _P)
        if y * y % _P != square:
            y = y * pow(2, (_P - 1) // 4, _P) % _P
        if y * y % _P == square:
            ys |= {y, _P - y}
    return sorted(ys | {y + _P for y in ys if y + _P < 2**255})


SMALL_ORDER_YS: Final = tuple(small_order_ys())
assert len(SMALL_ORDER_YS) == 7, "0, 1, p - 1, two of order 8, p and p + 1"


@intrinsic  # type: ignore[untyped-decorator]
def is_scalar(typing_context: Any, address: Any) -> Any:
    """Return all ones in the lanes whose number, 4 vectors of words, is below L."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        words = _load_words(builder, values[0], WORDS)
        return builder.sext(_emit_is_below(builder, words, L), VECTOR)

    return LANES(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def is_field_element(typing_context: Any, address: Any) -> Any:
    """Return all ones in the lanes whose low 255 bits, of 4 vectors of words, are below p."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        words = _without_sign(builder, _load_words(builder, values[0], WORDS))
        return builder.sext(_emit_is_below(builder, words, _P), VECTOR)

    return LANES(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def is_small_order(typing_context: Any, address: Any) -> Any:
    """Return all ones in the lanes whose low 255 bits encode the y of a point of small order.

    Spec: spec/signatures.md#verdict, 2.
    """

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        words = _without_sign(builder, _load_words(builder, values[0], WORDS))
        found = ir.Constant(MASK, [0] * lanes64.WIDTH)
        for y in SMALL_ORDER_YS:
            together = splat(0)
            for i, word in enumerate(words):
                together = builder.or_(together, builder.xor(word, splat(y >> 64 * i)))
            found = builder.or_(found, builder.icmp_unsigned("==", together, splat(0)))
        return builder.sext(found, VECTOR)

    return LANES(types.uint64), generate
