"""Products of five limbs of 51 bits by AVX-512 IFMA, for `field51`.

`vpmadd52` multiplies the low 52 bits of two limbs and adds the low or the high 52 bits of the
product. So a product is low + 2^52 high with low, high < 2^52; in limbs of 51 bits high counts
twice at the next place: t_k = 2 * (highs at k) + (lows at k), k = 0 to 9, and 2^255 = 19 makes it
r_k = t_k + 19 t_(k+5).

Bounds. There are 1, 2, 3, 4, 5, 4, 3, 2, 1, 0 lows and 0, 1, 2, 3, 4, 5, 4, 3, 2, 1 highs at the
places 0 to 9, each below 2^52, hence t < 2^52 * (1, 4, 7, 10, 13, 14, 11, 8, 5, 2) and
r < 2^52 * (267, 213, 159, 105, 51). A square sums the same products, those of different limbs once
and doubled: the same bounds. Its partial sums are parts of these sums, so none is larger.
"""

import itertools
from typing import Any, Final

from kernels import lanes64
from kernels.lanes64 import splat

LIMBS: Final = 5
FOLD: Final = 19
"""2^255 modulo p."""
PRODUCT_MAX: Final = tuple(count * 2**52 for count in (267, 213, 159, 105, 51))
"""Bounds of the limbs of a product."""

IS_CALLED: Final = False
"""Inlined: some sixty instructions each time."""

Limbs = list[Any]


def _add_low(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """Emit total + the low 52 bits of (a mod 2^52) * (b mod 2^52)."""
    return lanes64.call(builder, "llvm.x86.avx512.vpmadd52l.uq.512", total, a, b)


def _add_high(builder: Any, total: Any, a: Any, b: Any) -> Any:
    """Emit total + the bits 52 to 103 of (a mod 2^52) * (b mod 2^52)."""
    return lanes64.call(builder, "llvm.x86.avx512.vpmadd52h.uq.512", total, a, b)


def emit_add_multiple(builder: Any, total: Any, a: Any, factor: int) -> Any:
    """Emit total + a * factor, the product below 2^52."""
    return _add_low(builder, total, a, splat(factor))


def _emit_fold(builder: Any, total: Limbs) -> Limbs:
    """Emit r_k = t_k + 19 t_(k + 5)."""
    high = [builder.mul(total[k + LIMBS], splat(FOLD)) for k in range(LIMBS)]
    return [builder.add(total[k], high[k]) for k in range(LIMBS)]


def emit_multiply(builder: Any, a: Limbs, b: Limbs) -> Limbs:
    """Emit a * b. The highs come first and are doubled together; the lows are added on top."""
    pairs = [(i + j, a[i], b[j]) for i in range(LIMBS) for j in range(LIMBS)]
    total: Limbs = [splat(0)] * (2 * LIMBS)
    for place, x, y in pairs:
        total[place + 1] = _add_high(builder, total[place + 1], x, y)
    total[1:] = [builder.add(item, item) for item in total[1:]]
    for place, x, y in pairs:
        total[place] = _add_low(builder, total[place], x, y)
    return _emit_fold(builder, total)


def emit_square(builder: Any, a: Limbs) -> Limbs:
    """Emit a * a, each product of two different limbs once."""
    total: Limbs = [splat(0)] * (2 * LIMBS)
    cross = list(itertools.combinations(range(LIMBS), 2))
    for i, j in cross:
        total[i + j + 1] = _add_high(builder, total[i + j + 1], a[i], a[j])
    total[2:9] = [builder.add(item, item) for item in total[2:9]]
    for i in range(LIMBS):
        total[2 * i + 1] = _add_high(builder, total[2 * i + 1], a[i], a[i])
    for i, j in cross:
        total[i + j] = _add_low(builder, total[i + j], a[i], a[j])
    total[1:] = [builder.add(item, item) for item in total[1:]]
    for i in range(LIMBS):
        total[2 * i] = _add_low(builder, total[2 * i], a[i], a[i])
    return _emit_fold(builder, total)
