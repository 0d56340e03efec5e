"""Claims about products of limbs: exact at the extremes of what they accept, on every processor."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numba.extending import intrinsic

import kernels.field51
from kernels import products_fma, products_ifma
from kernels.field51 import ELEMENT, LIMBS, P, element_function
from kernels.jit import njit
from kernels.lanes64 import WIDTH
from kernels.layout import U64
from kernels.processor import missing_features
from tests.kernels.elements import (
    ROUNDING_MODES,
    address,
    count,
    elements,
    is_within,
    needs_lanes,
    numbers,
    pairs,
    rounding,
)

pytestmark = needs_lanes

field: Any = kernels.field51
PRODUCTS: list[ModuleType] = [products_fma]
if not missing_features("ifma") and WIDTH == 8:
    PRODUCTS.append(products_ifma)


def kernel_of(module: ModuleType) -> Any:
    """Return a kernel that writes a * b and a * a with a module's products."""

    def type_product(typing_context: Any, a: Any, b: Any) -> Any:
        return element_function(2, module.emit_multiply)

    def type_square(typing_context: Any, a: Any) -> Any:
        return element_function(1, module.emit_square)

    multiply: Any = intrinsic(type_product)
    square: Any = intrinsic(type_square)

    @njit(cache=False)
    def run(a: Any, b: Any, product: Any, squared: Any) -> None:
        field.store(product, multiply(field.load(a), field.load(b)))
        field.store(squared, square(field.load(a)))

    return run


KERNELS = {module.__name__.rpartition(".")[2]: (module, kernel_of(module)) for module in PRODUCTS}


def run(kernel: Any, a: list[list[int]], b: list[list[int]], mode: str) -> tuple[U64, U64]:
    """Return a * b and a * a, computed in a rounding mode."""
    arrays = [elements(a), elements(b), *[elements([[0] * LIMBS] * WIDTH) for _ in range(2)]]
    places = [address(array) for array in arrays]
    with rounding(mode):
        kernel(*places)
    return arrays[2], arrays[3]


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("mode", ROUNDING_MODES)
def test_products_of_short_elements(name: str, mode: str, rng: np.random.Generator) -> None:
    """Products and squares of short elements are exact modulo p, and within their bounds.

    Whatever rounding mode the process is in: that of floating-point numbers must not matter.
    """
    module, kernel = KERNELS[name]
    for a, b in pairs(list(field.SHORT_MAX), rng):
        product, squared = run(kernel, a, b, mode)
        assert is_within(product, list(module.PRODUCT_MAX))
        assert is_within(squared, list(module.PRODUCT_MAX))
        expected = [(count(x) * count(y) % P, count(x) ** 2 % P) for x, y in zip(a, b, strict=True)]
        got = zip(numbers(product), numbers(squared), strict=True)
        assert [(x % P, y % P) for x, y in got] == expected


def test_rounding_modes_are_real() -> None:
    """The modes above change what a division gives, so the test above tests something."""
    with rounding("down"):
        down = 1.0 / np.float64(3.0)
    with rounding("up"):
        up = 1.0 / np.float64(3.0)
    assert down < up


@pytest.mark.parametrize("name", KERNELS)
def test_halves_at_their_bounds(name: str) -> None:
    """Limbs around those of p, whose differences from it have both signs and every size."""
    _, kernel = KERNELS[name]
    limbs = []
    for step in (0, 1, 2, 3, 2**25, 2**26, 2**49, 2**50 - 1, 2**50, 2**50 + 1, 2**51 - 20):
        for sign in (-1, 1):
            for k in range(LIMBS):
                row = list(field.limbs_of(P - 1))
                row[k] += sign * step
                limbs.append(row)
                limbs.append([limb + sign * step for limb in field.limbs_of(P - 1)])
    limbs = [
        row for row in limbs if all(0 <= x <= y for x, y in zip(row, field.SHORT_MAX, strict=True))
    ]
    limbs += limbs[: -len(limbs) % WIDTH]
    for start in range(0, len(limbs), WIDTH):
        a = limbs[start : start + WIDTH]
        for shift in range(0, len(limbs), 7):
            b = [limbs[(start + shift + i) % len(limbs)] for i in range(WIDTH)]
            product, squared = run(kernel, a, b, "nearest")
            expected = [count(x) * count(y) % P for x, y in zip(a, b, strict=True)]
            assert [value % P for value in numbers(product)] == expected
            assert [value % P for value in numbers(squared)] == [count(x) ** 2 % P for x in a]


def test_the_field_takes_no_larger_products() -> None:
    """What `subtract` and `carry` of the field rely on holds for the products of every module."""
    for module in (products_fma, products_ifma):
        assert max(module.PRODUCT_MAX) <= 267 * 2**52
    assert ELEMENT.count == LIMBS
