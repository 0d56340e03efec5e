"""From 32 bytes to points and back, for several groups of lanes at once.

A square root and an inversion are 250 squarings, each waiting for the one before. So powers are
taken of several elements in turn, which stand in memory one `stride` apart: while one waits, the
others compute. Inversions are one for many groups: all Z are multiplied together, the product is
inverted, and each Z gets its inverse by two products (Montgomery).

Elements are counted from an address: element i stands ELEMENT_BYTES * i behind it.
"""

from typing import Any

import numpy as np

from kernels import field51 as field
from kernels.field51 import ELEMENT_BYTES
from kernels.integers import leaf
from kernels.jit import njit
from kernels.lanes64 import (
    VECTOR_BYTES,
    lanes_is_zero,
    lanes_load,
    lanes_or,
    lanes_shift_left,
    lanes_shift_right,
    lanes_store,
    lanes_xor,
)

BASE, ELEVENTH, POWER, _SPARE, _SPARE_2 = range(5)
"""Elements of `power_250`: z, z^11, z^(2^250 - 1), and two that it overwrites."""

_ELEMENT = np.uint64(ELEMENT_BYTES)
_VECTOR = np.uint64(VECTOR_BYTES)
_SIGN_SHIFT = np.uint64(63)


@leaf
def element(base: Any, index: Any) -> Any:
    """Return the address of element `index` behind `base`."""
    return base + _ELEMENT * np.uint64(index)


@njit
def _squares(base: Any, stride: Any, count: Any, source: Any, target: Any, times: Any) -> None:
    """Write element `source` squared `times` > 0 times to element `target`, of each of `count`."""
    for turn in range(times):
        index = source if turn == 0 else target
        for i in range(count):
            place = base + stride * np.uint64(i)
            value = field.load(element(place, index))
            field.store(element(place, target), field.carry(field.square_inlined(value)))


@njit
def _products(base: Any, stride: Any, count: Any, left: Any, right: Any, target: Any) -> None:
    """Write the product of elements `left` and `right` to element `target`, of each of `count`."""
    for i in range(count):
        place = base + stride * np.uint64(i)
        a, b = field.load(element(place, left)), field.load(element(place, right))
        field.store(element(place, target), field.carry(field.multiply(a, b)))


@njit
def _power_250(base: Any, stride: Any, count: Any) -> None:
    """From element BASE, z, write z^11 to ELEVENTH and z^(2^250 - 1) to POWER, of each of `count`.

    Comments say the exponent of what was written.
    """
    _squares(base, stride, count, BASE, _SPARE, 1)  # 2
    _squares(base, stride, count, _SPARE, POWER, 2)  # 8
    _products(base, stride, count, BASE, POWER, POWER)  # 9
    _products(base, stride, count, _SPARE, POWER, ELEVENTH)  # 11
    _squares(base, stride, count, ELEVENTH, _SPARE, 1)  # 22
    _products(base, stride, count, POWER, _SPARE, POWER)  # 2^5 - 1
    _squares(base, stride, count, POWER, _SPARE, 5)
    _products(base, stride, count, POWER, _SPARE, POWER)  # 2^10 - 1
    _squares(base, stride, count, POWER, _SPARE, 10)
    _products(base, stride, count, POWER, _SPARE, _SPARE)  # 2^20 - 1
    _squares(base, stride, count, _SPARE, _SPARE_2, 20)
    _products(base, stride, count, _SPARE, _SPARE_2, _SPARE)  # 2^40 - 1
    _squares(base, stride, count, _SPARE, _SPARE, 10)
    _products(base, stride, count, POWER, _SPARE, POWER)  # 2^50 - 1
    _squares(base, stride, count, POWER, _SPARE, 50)
    _products(base, stride, count, POWER, _SPARE, _SPARE)  # 2^100 - 1
    _squares(base, stride, count, _SPARE, _SPARE_2, 100)
    _products(base, stride, count, _SPARE, _SPARE_2, _SPARE)  # 2^200 - 1
    _squares(base, stride, count, _SPARE, _SPARE, 50)
    _products(base, stride, count, POWER, _SPARE, POWER)  # 2^250 - 1


@njit
def invert(base: Any, stride: Any, count: Any) -> None:
    """Write z^(p - 2), that is 1 / z, to element POWER, of each of `count`; z: element BASE."""
    _power_250(base, stride, count)
    _squares(base, stride, count, POWER, POWER, 5)
    _products(base, stride, count, ELEVENTH, POWER, POWER)


@njit
def root_power(base: Any, stride: Any, count: Any) -> None:
    """Write z^((p - 5) / 8) to element POWER, of each of `count`; z: element BASE."""
    _power_250(base, stride, count)
    _squares(base, stride, count, POWER, POWER, 2)
    _products(base, stride, count, BASE, POWER, POWER)


@leaf
def ratio(y: Any) -> Any:
    """Return u = y^2 - 1, v = d y^2 + 1, reduced: x^2 is u / v. y: reduced."""
    yy = field.carry(field.square(y))
    u = field.carry(field.subtract(yy, field.one()))
    product = field.multiply(yy, field.curve_d())
    return u, field.carry(field.add(product, field.one()))


@leaf
def start_decode(words: Any, place: Any) -> None:
    """Write u v^7 to element BASE of `place`; `root_power` comes next, then `finish_decode`.

    words: four vectors, the encodings; the top bit is not looked at.
    """
    u, v = ratio(field.from_words(words))
    cube = field.carry(field.multiply(field.carry(field.square(v)), v))
    power = field.carry(field.multiply(field.carry(field.square(cube)), v))
    field.store(element(place, BASE), field.carry(field.multiply(u, power)))


@leaf
def finish_decode(words: Any, place: Any) -> Any:
    """Return (x, y, mask) of the *negative* of the points at `words`; mask: lanes that are points.

    x, y: short. Other lanes hold the neutral point, so that what is computed of them stays on the
    curve and no Z becomes zero. Spec: spec/signatures.md#verdict, 3, but for y >= p and for x = 0
    with the sign set, which are refused elsewhere (the latter is of small order).
    """
    y = field.from_words(words)
    u, v = ratio(y)
    cube = field.carry(field.multiply(field.carry(field.square(v)), v))
    root = field.carry(field.multiply(u, cube))
    x = field.carry(field.multiply(root, field.load(element(place, POWER))))
    square = field.carry(field.multiply(v, field.carry(field.square(x))))
    is_root = field.is_zero(field.canonical(field.carry(field.subtract(square, u))))
    is_other = field.is_zero(field.canonical(field.carry(field.add(square, u))))
    other = field.carry(field.multiply(x, field.sqrt_minus_one()))
    x = field.canonical(field.select(is_root, x, other))
    sign = lanes_shift_right(lanes_load(words + _VECTOR + _VECTOR + _VECTOR), _SIGN_SHIFT)
    x = field.negate_where(lanes_is_zero(lanes_xor(field.parity(x), sign)), x)
    mask = lanes_or(is_root, is_other)
    return field.select(mask, x, field.zero()), field.select(mask, y, field.one()), mask


@leaf
def is_encoding(x: Any, y: Any, inverse: Any, words: Any, scratch: Any) -> Any:
    """Return all ones in the lanes where the four vectors at `words` encode (x, y) / z.

    x, y: short; inverse: 1 / z, short; scratch: four vectors, overwritten with the encoding.
    """
    encode(x, y, inverse, scratch)
    difference = lanes_xor(lanes_load(scratch), lanes_load(words))
    for i in range(1, 4):
        offset = _VECTOR * np.uint64(i)
        other = lanes_xor(lanes_load(scratch + offset), lanes_load(words + offset))
        difference = lanes_or(difference, other)
    return lanes_is_zero(difference)


@leaf
def encode(x: Any, y: Any, inverse: Any, target: Any) -> None:
    """Write the encodings of (x, y) / z to four vectors; x, y, inverse: short."""
    affine_x = field.canonical(field.carry(field.multiply(x, inverse)))
    affine_y = field.canonical(field.carry(field.multiply(y, inverse)))
    field.to_words(target, affine_y)
    last = target + _VECTOR + _VECTOR + _VECTOR
    sign = lanes_shift_left(field.parity(affine_x), _SIGN_SHIFT)
    lanes_store(last, lanes_or(lanes_load(last), sign))


@leaf
def invert_together(base: Any, stride: Any, count: Any, z: Any, target: Any, scratch: Any) -> None:
    """Write the inverse of element `z` to element `target`, of each of `count` > 0.

    z: not zero, short; target: another element; scratch: five elements.
    """
    product = field.one()
    for i in range(count):
        place = base + stride * np.uint64(i)
        field.store(element(place, target), product)
        product = field.carry(field.multiply(product, field.load(element(place, z))))
    field.store(element(scratch, BASE), product)
    invert(scratch, stride, 1)
    product = field.load(element(scratch, POWER))
    for k in range(count):
        place = base + stride * np.uint64(count - 1 - k)
        before = field.load(element(place, target))
        field.store(element(place, target), field.carry(field.multiply(before, product)))
        product = field.carry(field.multiply(product, field.load(element(place, z))))
