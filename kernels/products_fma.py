"""Products of five limbs of 51 bits without IFMA, for `field51`: by fused multiply-adds.

Processors without IFMA multiply integers of 32 bits side by side, but numbers of 53 bits in their
floating-point units, and `fma` rounds x y + z only once. So two of them cut the product of two
limbs at bit 51, exactly, into halves that are integers again:

    high = fma(x, y, C)                C = 1.5 * 2^103
    low = fma(x, y, (C + B) - high)    B = 1.5 * 2^52

Nothing here is approximate, whatever rounding mode the process is in. Let |x y| < 2^102. C + x y
lies between 2^103 and 2^104, where neighbouring numbers are 2^51 apart, so high is C + 2^51 h for
an integer h with |2^51 h - x y| < 2^51, |h| <= 2^51. (C + B) - high = (3 - h) 2^51 has no more than
53 bits: exact. low = B + x y - 2^51 h lies between 2^52 and 2^53, where neighbours are 1 apart:
exact. No number but zero is below 1, so it does not matter either what becomes of tiny ones.
Between two powers of two the bits of a number, read as an integer, grow by one per
neighbour, the upper power included: high has the bits of C plus h, low has the bits of B plus
l = x y - 2^51 h. They are summed as integers modulo 2^64, and what the bits of C and B come to
is subtracted from the sum. So t_k = (h's at k) + (l's at k), and 2^255 = 19 makes it
r_k = t_k + 19 t_(k+5).

Bounds. Limb i of a factor is u_i <= 2 p_i, p_i being the limbs of p, 2^51 - 19 and four of
2^51 - 1. Its bits under the exponent of 2^52 are the number 2^52 + u_i; 2^52 + p_i is taken away,
exactly. That leaves x_i = u_i - p_i, |x_i| < 2^51, so |x y| < 2^102, and a factor less by p, which
is the same factor. Of l's and h's there are together 1, 3, 5, 7, 9, 9, 7, 5, 3, 1 at the places 0
to 9, each of a size of at most 2^51: |r| <= 2^51 * (172, 136, 100, 64, 28). 2^8 p is added, whose
limbs are at least 2^59 - 2^8 * 19 > 2^51 * 172: so products are not below zero, and below
2^51 * (428, 392, 356, 320, 284). A square sums the products of different limbs once, and doubles
the sum: the same bounds.

Multiplying ten limbs of 25.5 bits as integers of 32 bits (`vpmuludq`) takes a quarter (squares) to
a half longer, with AVX2 and with AVX-512.
"""

import itertools
from typing import Any, Final

from llvmlite import ir
from numba.core import cgutils

from kernels.lanes64 import VECTOR, WIDTH, splat

LIMBS: Final = 5
PRODUCT_MAX: Final = tuple(count * 2**51 for count in (428, 392, 356, 320, 284))
"""Bounds of the limbs of a product."""
IS_CALLED: Final = True
"""Some 250 instructions: inlined they leave the instruction cache and the registers, and a
verification takes a third longer."""

_P: Final = (2**51 - 19, *[2**51 - 1] * 4)
"""The limbs of p."""
_BIAS: Final = tuple(2**8 * limb for limb in _P)


def _bits(exponent: int) -> int:
    """Return the bits of the number 2^exponent."""
    return (1023 + exponent) << 52


_HALF: Final = 1 << 51
"""What 1.5 * 2^e has more than 2^e, in bits."""
_HIGH: Final = _bits(103) + _HALF
"""C."""
_LOW: Final = _bits(52) + _HALF
"""B."""
_BOTH: Final = _HIGH + 3
"""C + B: B is 3 * 2^51."""

_NUMBERS: Final = ir.VectorType(ir.DoubleType(), WIDTH)

Limbs = list[Any]


def _number(builder: Any, bits: int) -> Any:
    """Emit the number of these bits in every lane."""
    return builder.bitcast(splat(bits), _NUMBERS)


def _emit_numbers(builder: Any, limbs: Limbs) -> Limbs:
    """Emit limbs less those of p as floating-point numbers."""
    held = [builder.bitcast(builder.or_(limb, splat(_bits(52))), _NUMBERS) for limb in limbs]
    return [builder.fsub(i, _number(builder, _bits(52) + j)) for i, j in zip(held, _P, strict=True)]


def _fma(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Emit x y + z, rounded once."""
    kind = ir.FunctionType(_NUMBERS, [_NUMBERS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{WIDTH}f64")
    return builder.call(function, [x, y, z])


class _Sums:
    """The sums t_0 to t_9, and what of each are the bits of C and B."""

    def __init__(self) -> None:
        self._totals: list[Any] = [None] * (2 * LIMBS)
        self._excess = [0] * (2 * LIMBS)

    def _add(self, builder: Any, place: int, number: Any, excess: int) -> None:
        bits, total = builder.bitcast(number, VECTOR), self._totals[place]
        self._totals[place] = bits if total is None else builder.add(total, bits)
        self._excess[place] += excess

    def add_product(self, builder: Any, place: int, x: Any, y: Any) -> None:
        """Emit the addition of x * y at a place and the next."""
        high = _fma(builder, x, y, _number(builder, _HIGH))
        low = _fma(builder, x, y, builder.fsub(_number(builder, _BOTH), high))
        self._add(builder, place + 1, high, _HIGH)
        self._add(builder, place, low, _LOW)

    def twice(self, builder: Any) -> None:
        """Emit the doubling of the sums that there are."""
        for place, total in enumerate(self._totals):
            if total is not None:
                self._totals[place] = builder.add(total, total)
                self._excess[place] *= 2

    def emit_fold(self, builder: Any) -> Limbs:
        """Emit r_k = t_k + 19 t_(k + 5), plus 2^8 p."""
        limbs = []
        for k, bias in enumerate(_BIAS):
            upper = builder.sub(self._totals[k + LIMBS], splat(self._excess[k + LIMBS]))
            lower = builder.add(self._totals[k], splat(bias - self._excess[k]))
            limbs.append(builder.add(lower, builder.mul(upper, splat(19))))
        return limbs


def emit_add_multiple(builder: Any, total: Any, a: Any, factor: int) -> Any:
    """Emit total + a * factor."""
    return builder.add(total, builder.mul(a, splat(factor)))


def emit_multiply(builder: Any, a: Limbs, b: Limbs) -> Limbs:
    """Emit a * b, place by place: so few sums are in the making at a time."""
    x, y = _emit_numbers(builder, a), _emit_numbers(builder, b)
    sums = _Sums()
    for place in range(2 * LIMBS - 1):
        for i in range(max(0, place - LIMBS + 1), min(LIMBS, place + 1)):
            sums.add_product(builder, place, x[i], y[place - i])
    return sums.emit_fold(builder)


def emit_square(builder: Any, a: Limbs) -> Limbs:
    """Emit a * a, each product of two different limbs once."""
    x = _emit_numbers(builder, a)
    sums = _Sums()
    for i, j in itertools.combinations(range(LIMBS), 2):
        sums.add_product(builder, i + j, x[i], x[j])
    sums.twice(builder)
    for i in range(LIMBS):
        sums.add_product(builder, 2 * i, x[i], x[i])
    return sums.emit_fold(builder)
