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
from collections.abc import Iterable
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

_FOLD: Final = 19
"""2^255 modulo p."""

_NUMBERS: Final = ir.VectorType(ir.DoubleType(), WIDTH)

Limbs = list[Any]
Product = tuple[int, Any, Any]
"""Its place and its factors."""


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


class _Sum:
    """A sum of halves at one place, and what of it the bits of C and B come to."""

    def __init__(self) -> None:
        self.total: Any = None
        self.excess = 0

    def add(self, builder: Any, number: Any, excess: int) -> None:
        """Emit the addition of a half's bits."""
        self.add_bits(builder, builder.bitcast(number, VECTOR), excess)

    def add_bits(self, builder: Any, bits: Any, excess: int) -> None:
        """Emit the addition of bits; a sum of nothing is none."""
        if bits is not None:
            self.total = bits if self.total is None else builder.add(self.total, bits)
            self.excess += excess


def _emit_fold(builder: Any, k: int, lower: _Sum, upper: _Sum) -> Any:
    """Emit r_k = t_k + 19 t_(k + 5), plus a limb of 2^8 p."""
    total = builder.add(lower.total, builder.mul(upper.total, splat(_FOLD)))
    return builder.add(total, splat(_BIAS[k] - lower.excess - _FOLD * upper.excess))


def _emit_products(
    builder: Any, places: Iterable[int], products: list[Product], doubled: list[Product]
) -> Limbs:
    """Emit the limbs of the sum of products, some of which count twice, place by place.

    So few sums are in the making at a time: there are not many registers. Limb k is folded behind
    place k + 5, and the last with the one before; by then `places` must have brought all that
    counts at k and at k + 5.
    """
    once, twice = ([_Sum() for _ in range(2 * LIMBS)] for _ in range(2))
    limbs: Limbs = [None] * LIMBS
    for place in places:
        for sums, chosen in ((twice, doubled), (once, products)):
            for _, x, y in (product for product in chosen if product[0] == place):
                high = _fma(builder, x, y, _number(builder, _HIGH))
                low = _fma(builder, x, y, builder.fsub(_number(builder, _BOTH), high))
                sums[place].add(builder, low, _LOW)
                sums[place + 1].add(builder, high, _HIGH)
        for k in {5: (0,), 6: (1,), 7: (2,), 8: (3, 4)}.get(place, ()):
            for i in (k, k + LIMBS):
                once[i].add_bits(builder, twice[i].total, twice[i].excess)
                once[i].add_bits(builder, twice[i].total, twice[i].excess)
            limbs[k] = _emit_fold(builder, k, once[k], once[k + LIMBS])
    return limbs


def emit_add_multiple(builder: Any, total: Any, a: Any, factor: int) -> Any:
    """Emit total + a * factor."""
    return builder.add(total, builder.mul(a, splat(factor)))


def emit_multiply(builder: Any, a: Limbs, b: Limbs) -> Limbs:
    """Emit a * b. The order of places lets one limb after the other become complete."""
    x, y = _emit_numbers(builder, a), _emit_numbers(builder, b)
    pairs = [(i + j, x[i], y[j]) for i in range(LIMBS) for j in range(LIMBS)]
    return _emit_products(builder, (4, 0, 5, 1, 6, 2, 7, 3, 8), pairs, [])


def emit_square(builder: Any, a: Limbs) -> Limbs:
    """Emit a * a, each product of two different limbs once."""
    x = _emit_numbers(builder, a)
    cross = [(i + j, x[i], x[j]) for i, j in itertools.combinations(range(LIMBS), 2)]
    squares = [(2 * i, x[i], x[i]) for i in range(LIMBS)]
    return _emit_products(builder, range(2 * LIMBS - 1), squares, cross)
