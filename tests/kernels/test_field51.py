"""Claims about the field: what each function answers at the extremes of what it accepts."""

from typing import Any

import numpy as np
import pytest

import kernels.field51
import kernels.lanes64
from kernels.field51 import LIMBS, P, limbs_of
from kernels.jit import njit
from kernels.lanes64 import VECTOR_BYTES, WIDTH
from kernels.layout import U64
from tests.kernels.elements import (
    address,
    count,
    elements,
    groups,
    is_within,
    needs_lanes,
    numbers,
    pairs,
    values_of,
    words_of,
)

pytestmark = needs_lanes

field: Any = kernels.field51
lanes: Any = kernels.lanes64

PRODUCT_MAX = [267 * 2**52] * LIMBS
CARRY_MAX = 2**64 - 2**13


@njit
def run_carry(a: Any, b: Any, out: Any) -> None:
    """Write a, reduced."""
    field.store(out, field.carry(field.load(a)))


@njit
def run_add(a: Any, b: Any, out: Any) -> None:
    """Write the sum."""
    field.store(out, field.add(field.load(a), field.load(b)))


@njit
def run_subtract(a: Any, b: Any, out: Any) -> None:
    """Write the difference."""
    field.store(out, field.subtract(field.load(a), field.load(b)))


@njit
def run_canonical(a: Any, b: Any, out: Any) -> None:
    """Write the number below p."""
    field.store(out, field.canonical(field.load(a)))


@njit
def run_select(a: Any, b: Any, out: Any, mask: Any) -> None:
    """Write a where the mask is set, else b."""
    field.store(out, field.select(lanes.lanes_load(mask), field.load(a), field.load(b)))


@njit
def run_negate(a: Any, b: Any, out: Any, mask: Any) -> None:
    """Write -a where the mask is set, else a."""
    field.store(out, field.negate_where(lanes.lanes_load(mask), field.load(a)))


@njit
def run_words(words: Any, element: Any, back: Any) -> None:
    """Write words as an element and the element as words."""
    value = field.from_words(words)
    field.store(element, value)
    field.to_words(back, value)


@njit
def run_facts(a: Any, out: Any) -> None:
    """Write is_zero and parity."""
    lanes.lanes_store(out, field.is_zero(field.load(a)))
    lanes.lanes_store(out + np.uint64(VECTOR_BYTES), field.parity(field.load(a)))


def apply(kernel: Any, a: list[list[int]], b: list[list[int]], *mask: U64) -> U64:
    """Run a kernel on two elements given as lists of limbs, one per lane."""
    left, right, out = elements(a), elements(b), elements([[0] * LIMBS] * WIDTH)
    kernel(address(left), address(right), address(out), *[address(item) for item in mask])
    return out


def test_carry_reduces_whatever_sums_come_to(rng: np.random.Generator) -> None:
    """Limbs up to 2^64 - 2^13 come out reduced and count the same modulo p."""
    for a, _ in pairs([CARRY_MAX] * LIMBS, rng):
        out = apply(run_carry, a, a)
        assert is_within(out, list(field.REDUCED_MAX))
        for x, value in zip(a, numbers(out), strict=True):
            assert value % P == count(x) % P


def test_subtract_never_falls_below_zero(rng: np.random.Generator) -> None:
    """b may be two products at their largest; a at zero, or a product, stays in carry's range."""
    twice = [2 * limb for limb in PRODUCT_MAX]
    for a, b in pairs(twice, rng):
        out = apply(run_subtract, a, b)
        assert is_within(out, [CARRY_MAX] * LIMBS)
        for x, y, value in zip(a, b, numbers(out), strict=True):
            assert value % P == (count(x) - count(y)) % P
            assert value < 2**64 * 2**205


def test_the_largest_sum_of_curve_code_can_be_carried() -> None:
    """A doubling's F, 2 zz + (xx - yy), at its largest stays below what carry accepts."""
    bias = 2**11 * (2**51 - 1)
    assert all(3 * limb + bias < CARRY_MAX for limb in PRODUCT_MAX)


def test_add_is_limb_by_limb(rng: np.random.Generator) -> None:
    """Sums of products are exact."""
    for a, b in pairs(PRODUCT_MAX, rng)[:16]:
        out = apply(run_add, a, b)
        for x, y, value in zip(a, b, numbers(out), strict=True):
            assert value == count(x) + count(y)


def test_canonical_is_the_number_below_p(rng: np.random.Generator) -> None:
    """All reduced elements, also those from p up to 2p, give their one canonical form."""
    near = groups([P - 2, P - 1, P, P + 1, P + 17, 2**255 - 1, 0, 1])
    made = [[limbs_of(value) for value in lanes_] for lanes_ in near]
    for a in [*made, *[a for a, _ in pairs(list(field.REDUCED_MAX), rng)]]:
        out = apply(run_canonical, a, a)
        assert is_within(out, [2**51 - 1] * LIMBS)
        assert numbers(out) == [count(x) % P for x in a]


def test_select_and_negate_follow_the_mask(rng: np.random.Generator) -> None:
    """Lanes with a set mask take the first, or the negative; the negative stays short."""
    mask = np.zeros(WIDTH, np.uint64)
    mask[::2] = 2**64 - 1
    masks = words_of([int(word) for word in mask], 1)
    for a, b in pairs(list(field.REDUCED_MAX), rng)[:32]:
        chosen = numbers(apply(run_select, a, b, masks))
        assert chosen == [
            count(x if i % 2 == 0 else y) for i, (x, y) in enumerate(zip(a, b, strict=True))
        ]
        out = apply(run_negate, a, a, masks)
        assert is_within(out, list(field.SHORT_MAX))
        for i, (x, value) in enumerate(zip(a, numbers(out), strict=True)):
            assert value % P == (-count(x) if i % 2 == 0 else count(x)) % P


def test_words_go_in_and_out(rng: np.random.Generator) -> None:
    """255 bits of four words become five limbs and come back; the top bit is left out."""
    values = [2**256 - 1, 2**255, 2**255 - 1, P, 0, 1 << 51, 1 << 204]
    values.append(int.from_bytes(rng.bytes(32), "little"))
    for lanes_ in groups(values):
        words, back = words_of(lanes_, 4), words_of([0] * WIDTH, 4)
        element = elements([[0] * LIMBS] * WIDTH)
        run_words(address(words), address(element), address(back))
        expected = [value % 2**255 for value in lanes_]
        assert is_within(element, [2**51 - 1] * LIMBS)
        assert numbers(element) == values_of(back) == expected


def test_zero_and_parity() -> None:
    """Zero is all limbs zero; parity is the lowest bit."""
    values = [0, 1, 2, 1 << 51, 1 << 102, 1 << 153, 1 << 204, P - 1]
    for lanes_ in groups(values):
        element, out = elements([limbs_of(v) for v in lanes_]), words_of([0] * WIDTH, 2)
        run_facts(address(element), address(out))
        assert out[0].tolist() == [(2**64 - 1) * (value == 0) for value in lanes_]
        assert out[1].tolist() == [value % 2 for value in lanes_]


def test_limbs_of_refuses_too_large_numbers() -> None:
    """A number of 256 bits has no limbs."""
    with pytest.raises(AssertionError, match="255 bits"):
        limbs_of(2**255)
