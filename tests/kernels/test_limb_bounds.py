"""Claims about limbs: what batches compute never gives a function larger ones than it accepts.

Random numbers hardly ever have a limb at its bound. So kernels run here, uncompiled, on bounds in
the place of numbers: each function of `field51` looks at the largest limbs that it may be given,
and answers the largest that it may answer. Loops run with as many steps as change a bound.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from kernels import (
    bit_sums25519,
    curve25519,
    encoding25519,
    known_keys_lanes,
    lanes64,
    scalar25519,
)
from kernels import ed25519_batch_lanes as batch
from kernels.curve25519 import ROW_BYTES
from kernels.ed25519_batch_lanes import LADDER
from kernels.field51 import FOLD, LIMB_BITS, LIMB_MASK, LIMBS, REDUCED_MAX, SHORT_MAX, P, limbs_of
from kernels.products_fma import PRODUCT_MAX as BY_FMA
from kernels.products_ifma import PRODUCT_MAX as BY_IFMA
from tests.kernels.elements import needs_lanes

pytestmark = needs_lanes
Limbs = tuple[int, ...]
PRODUCT = tuple(max(pair) for pair in zip(BY_FMA, BY_IFMA, strict=True))
"""Of whatever multiplies."""
BIAS = (2**11 * (LIMB_MASK - 18), *[2**11 * LIMB_MASK] * 4)
"""What `subtract` adds, the limbs of 2^11 p: nothing larger may be subtracted."""
CARRIED = (2**64 - 2**13,) * LIMBS
WORD = (2**64 - 1,) * LIMBS
CUT = (LIMB_MASK,) * LIMBS
PLACE = np.uint64(1 << 40)
"""An address, where nothing is read or written."""


def within(limbs: Limbs, top: Limbs) -> Limbs:
    """Return limbs, none of which is above that of `top`."""
    assert all(a <= b for a, b in zip(limbs, top, strict=True)), f"{limbs} are above {top}"
    return limbs


class Bounds:
    """What `field51` does, to bounds."""

    def __init__(self) -> None:
        """Have looked at none yet."""
        self.products = 0

    def multiply(self, a: Limbs, b: Limbs) -> Limbs:
        """Take short ones."""
        within(a, SHORT_MAX)
        within(b, SHORT_MAX)
        self.products += 1
        return PRODUCT

    def square(self, a: Limbs) -> Limbs:
        """Take a short one."""
        return self.multiply(a, a)

    square_inlined = square

    def carry(self, a: Limbs) -> Limbs:
        """Move what is above 51 bits."""
        over = [limb >> LIMB_BITS for limb in within(a, CARRIED)]
        limbs = (LIMB_MASK + FOLD * over[-1], *[LIMB_MASK + part for part in over[:-1]])
        return within(limbs, REDUCED_MAX)

    def add(self, a: Limbs, b: Limbs) -> Limbs:
        """Add without a loss."""
        return within(tuple(x + y for x, y in zip(a, b, strict=True)), WORD)

    def subtract(self, a: Limbs, b: Limbs) -> Limbs:
        """Stay above zero."""
        within(b, BIAS)
        return self.add(a, BIAS)

    def select(self, _: Any, a: Limbs, b: Limbs) -> Limbs:
        """Take either."""
        return tuple(max(pair) for pair in zip(a, b, strict=True))

    def negate_where(self, mask: Any, a: Limbs) -> Limbs:
        """Take a reduced one from 2 p."""
        return self.select(mask, SHORT_MAX, within(a, REDUCED_MAX))

    def canonical(self, a: Limbs) -> Limbs:
        """Take a reduced one."""
        within(a, REDUCED_MAX)
        return CUT

    def is_zero(self, a: Limbs) -> None:
        """Take a canonical one."""
        within(a, CUT)

    parity = is_zero

    def load(self, _: Any) -> Limbs:
        """Read what was stored."""
        return REDUCED_MAX

    def store(self, _: Any, a: Limbs) -> None:
        """Take a reduced one."""
        within(a, REDUCED_MAX)

    def from_words(self, _: Any) -> Limbs:
        """Cut 255 bits."""
        return CUT

    def to_words(self, _: Any, a: Limbs) -> None:
        """Take a canonical one."""
        within(a, CUT)

    def zero(self) -> Limbs:
        """Return 0."""
        return tuple(limbs_of(0))

    def one(self) -> Limbs:
        """Return 1."""
        return tuple(limbs_of(1))

    def curve_d(self) -> Limbs:
        """Return a constant."""
        return CUT

    curve_2d = sqrt_minus_one = curve_d


def nothing(*_: Any) -> Any:
    """Stand for what only moves words."""
    return np.uint64(0)


def store_row(entry: tuple[Limbs, ...], *_: Any) -> None:
    """Take reduced ones."""
    for limbs in entry:
        within(limbs, REDUCED_MAX)


def load_row(_: Any) -> tuple[Limbs, ...]:
    """Read what was stored."""
    return (REDUCED_MAX,) * 4


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bounds]:
    """Let the bodies of kernels compute with bounds."""
    made = Bounds()
    for module in (curve25519, encoding25519, bit_sums25519, known_keys_lanes, batch):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
            elif name in vars(lanes64) and callable(value):
                monkeypatch.setattr(module, name, nothing)
        monkeypatch.setattr(module, "field", made)
    for name in ("store_entry", "store_affine"):
        monkeypatch.setattr(curve25519, name, store_row)
    for name in ("load_entry", "load_affine"):
        monkeypatch.setattr(curve25519, name, load_row)
    for name in ("multiply_add", "is_field_element"):
        monkeypatch.setattr(scalar25519, name, nothing)
    # Masks are words that wrap.
    with np.errstate(over="ignore"):
        yield made


def chains() -> None:
    """Add points to a chain: the third meets what the second left."""
    lists = [np.zeros(lanes64.WIDTH, np.int32) for _ in range(2)]
    bit_sums25519._add_chains(PLACE, *lists, 4, PLACE)


def point() -> None:
    """Join windows and compare with the neutral point."""
    batch._is_neutral(*batch._join_windows(PLACE, PLACE, 7))


KERNELS: dict[str, Callable[[], Any]] = {
    "chains": chains,
    "fold": lambda: bit_sums25519._fold(PLACE, PLACE),
    "bits": lambda: batch._join_bits(PLACE, PLACE),
    "windows": point,
    "rows": lambda: batch.write_sums(PLACE, PLACE, PLACE),
    "order": lambda: batch.have_order(PLACE, 1, LADDER),
    "start": lambda: encoding25519.start_decode(PLACE, PLACE),
    "root": lambda: encoding25519.root_power(PLACE, np.uint64(ROW_BYTES), 1),
    "prove": lambda: known_keys_lanes.prove(PLACE),
    "moved": lambda: known_keys_lanes._finish_moved(PLACE),
    "finish": lambda: batch._finish(PLACE, PLACE, PLACE, PLACE, PLACE, (PLACE, PLACE)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_limbs_stay_within_what_is_accepted(name: str, bounds: Bounds) -> None:
    """Each addition, product and row of a batch, whatever the points are."""
    KERNELS[name]()
    assert bounds.products > 3


def test_bounds_are_those_of_the_field(bounds: Bounds) -> None:
    """What is looked at above is what `field51` says: sums of reduced ones are not short."""
    assert sum(limb << LIMB_BITS * i for i, limb in enumerate(BIAS)) == 2**11 * P
    doubled = bounds.add(REDUCED_MAX, REDUCED_MAX)
    with pytest.raises(AssertionError, match="are above"):
        bounds.multiply(doubled, REDUCED_MAX)
    with pytest.raises(AssertionError, match="are above"):
        bounds.store(PLACE, PRODUCT)
    bounds.multiply(bounds.carry(doubled), bounds.carry(bounds.subtract(PRODUCT, PRODUCT)))
