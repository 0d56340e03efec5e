"""Integers modulo p = 2^255 - 19, one per lane, in five limbs of 51 bits.

An element is a tuple of five `Lanes`: limb i counts 2^(51 i). Curve code (`curve25519`) knows only
the functions below. Limbs are multiplied by what the processor has: `products_ifma`, or
`products_fma` on all others. Everything else is the same for both.

Bounds. What a function accepts and answers, per limb, as unsigned 64-bit numbers:

- *reduced*: limb 0 < 2^51 + 2^18, limbs 1 to 4 < 2^51 + 2^13. What `carry` answers.
- *short*: no limb larger than that of 2 p, 2^52 - 38 and four of 2^52 - 2. What `multiply` and
  `square` accept. Reduced elements are short, and so is what `negate_where` answers.
- *loose*: every limb < 2^61. What `multiply` and `square` answer: products, whose limbs are below
  267 * 2^52 (each module of products says why).

`subtract` answers a - b + 2^11 p limb by limb. The limbs of 2^11 p are at least 2^62 - 19 * 2^11,
so b may be the sum of two products (each < 267 * 2^52, the sum < 2^61.1) and nothing falls below
zero. `add` is limb by limb, too. Sums and differences are accepted by `carry` alone.

`carry` takes limbs up to 2^64 - 2^13 and moves what exceeds 51 bits of each limb, below 2^13, to
the next one, and 19 times that of limb 4 to limb 0. So limb 0 ends below 2^51 + 19 * 2^13 and the
others below 2^51 + 2^13. The largest that curve code makes is 3 products + 2^62 < 2^63
(`double_negated`).

`canonical` takes reduced elements: numbers below 2^255 + 2^218, which is below 2p.
"""

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels import lanes64, products_fma, products_ifma
from kernels.lanes64 import LANES, VECTOR, splat, void_function
from kernels.processor import LANES as LANES_NAME

P: Final = 2**255 - 19
LIMBS: Final = 5
LIMB_BITS: Final = 51
LIMB_MASK: Final = 2**LIMB_BITS - 1
FOLD: Final = 19
"""2^255 modulo p."""
ELEMENT_BYTES: Final = LIMBS * lanes64.VECTOR_BYTES

ELEMENT: Final = types.UniTuple(LANES, LIMBS)
_ELEMENT_IR: Final = ir.ArrayType(VECTOR, LIMBS)
_WORDS: Final = 4
"""64-bit words of an encoded number."""

REDUCED_MAX: Final = (2**51 + 2**18 - 1, *[2**51 + 2**13 - 1] * 4)
"""Largest limbs of a reduced element."""

Limbs = list[Any]


def limbs_of(number: int) -> list[int]:
    """Return the five limbs of a number below 2^255."""
    assert 0 <= number < 2**255, "only numbers of 255 bits have five limbs"
    return [number >> LIMB_BITS * i & LIMB_MASK for i in range(LIMBS)]


def _times_p(factor: int) -> list[int]:
    """Return limbs that count factor * p and are each near factor * 2^51."""
    return [factor * (LIMB_MASK - 18), *[factor * LIMB_MASK] * 4]


_BIAS: Final = _times_p(2**11)
_TWICE_P: Final = _times_p(2)
SHORT_MAX: Final = tuple(_TWICE_P)
"""Largest limbs of a short element."""

products: Any = products_ifma if LANES_NAME == "ifma" else products_fma
"""What multiplies limbs in this process."""


def _emit_carry(builder: Any, a: Limbs) -> Limbs:
    over = [builder.lshr(limb, splat(LIMB_BITS)) for limb in a]
    kept = [builder.and_(limb, splat(LIMB_MASK)) for limb in a]
    first = products.emit_add_multiple(builder, kept[0], over[-1], FOLD)
    return [first, *[builder.add(kept[i], over[i - 1]) for i in range(1, LIMBS)]]


def _emit_canonical(builder: Any, a: Limbs) -> Limbs:
    """Emit the number below p: v + 19 reaches 2^255 exactly where v reaches p."""
    shift, mask = splat(LIMB_BITS), splat(LIMB_MASK)
    over = builder.lshr(builder.add(a[0], splat(FOLD)), shift)
    for limb in a[1:]:
        over = builder.lshr(builder.add(limb, over), shift)
    limbs = [builder.add(a[0], builder.mul(over, splat(FOLD))), *a[1:]]
    for i in range(LIMBS - 1):
        limbs[i + 1] = builder.add(limbs[i + 1], builder.lshr(limbs[i], shift))
    return [builder.and_(limb, mask) for limb in limbs]


def _emit_from_words(builder: Any, words: list[Any]) -> Limbs:
    limbs = []
    for i in range(LIMBS):
        word, count = divmod(LIMB_BITS * i, 64)
        low = builder.lshr(words[word], splat(count))
        if count > 64 - LIMB_BITS and word + 1 < _WORDS:
            low = lanes64.funnel_right(builder, words[word + 1], words[word], count)
        limbs.append(builder.and_(low, splat(LIMB_MASK)))
    return limbs


def _emit_to_words(builder: Any, limbs: Limbs) -> list[Any]:
    words = []
    for k in range(_WORDS):
        word = None
        for i, limb in enumerate(limbs):
            offset = LIMB_BITS * i - 64 * k
            if not -LIMB_BITS < offset < 64:
                continue
            operation = builder.shl if offset >= 0 else builder.lshr
            part = operation(limb, splat(abs(offset)))
            word = part if word is None else builder.or_(word, part)
        words.append(word)
    return words


def _unpack(builder: Any, element: Any) -> Limbs:
    return [builder.extract_value(element, i) for i in range(LIMBS)]


def _pack(builder: Any, limbs: Limbs) -> Any:
    element = ir.Constant(_ELEMENT_IR, ir.Undefined)
    for i, limb in enumerate(limbs):
        element = builder.insert_value(element, limb, i)
    return element


def element_function(count: int, emit: Any) -> Any:
    """Return signature and generator of an intrinsic on `count` elements that answers one."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return _pack(builder, emit(builder, *[_unpack(builder, item) for item in values]))

    return ELEMENT(*[ELEMENT] * count), generate


def _called_function(count: int, emit: Any) -> Any:
    """Return what `element_function` does; the code stands once, and is called.

    Every module that calls it defines it, the same, and linking keeps one.
    """
    name = f"{__name__}.{emit.__name__}.{LANES_NAME}"

    def define(module: Any) -> Any:
        kind = ir.FunctionType(_ELEMENT_IR, [_ELEMENT_IR] * count)
        function = ir.Function(module, kind, name)
        function.linkage = "linkonce_odr"
        function.attributes.add("noinline")
        builder = ir.IRBuilder(function.append_basic_block())
        limbs = emit(builder, *[_unpack(builder, item) for item in function.args])
        builder.ret(_pack(builder, limbs))
        return function

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        module = builder.module
        return builder.call(module.globals.get(name) or define(module), values)

    return ELEMENT(*[ELEMENT] * count), generate


_product_function = _called_function if products.IS_CALLED else element_function


@intrinsic  # type: ignore[untyped-decorator]
def multiply(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a * b, loose. a, b: short."""
    return _product_function(2, products.emit_multiply)


@intrinsic  # type: ignore[untyped-decorator]
def square(typing_context: Any, a: Any) -> Any:
    """Return a * a, loose. a: short."""
    return _product_function(1, products.emit_square)


@intrinsic  # type: ignore[untyped-decorator]
def square_inlined(typing_context: Any, a: Any) -> Any:
    """Return what `square` does; for loops that do little else."""
    return element_function(1, products.emit_square)


@intrinsic  # type: ignore[untyped-decorator]
def carry(typing_context: Any, a: Any) -> Any:
    """Return a, reduced. a: limbs up to 2^64 - 2^13."""
    return element_function(1, _emit_carry)


@intrinsic  # type: ignore[untyped-decorator]
def add(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a + b limb by limb."""
    return element_function(
        2, lambda builder, x, y: [builder.add(i, j) for i, j in zip(x, y, strict=True)]
    )


@intrinsic  # type: ignore[untyped-decorator]
def subtract(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a - b + 2^11 p limb by limb. b: loose, or the sum of two products."""

    def emit(builder: Any, x: Limbs, y: Limbs) -> Limbs:
        biased = [builder.add(i, splat(j)) for i, j in zip(x, _BIAS, strict=True)]
        return [builder.sub(i, j) for i, j in zip(biased, y, strict=True)]

    return element_function(2, emit)


def _emit_select(builder: Any, mask: Any, a: Any, b: Any) -> Any:
    return builder.xor(b, builder.and_(builder.xor(a, b), mask))


@intrinsic  # type: ignore[untyped-decorator]
def select(typing_context: Any, mask: Any, a: Any, b: Any) -> Any:
    """Return a in the lanes where mask is all ones, b where it is zero."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        limbs = [
            _emit_select(builder, values[0], i, j)
            for i, j in zip(_unpack(builder, values[1]), _unpack(builder, values[2]), strict=True)
        ]
        return _pack(builder, limbs)

    return ELEMENT(LANES, ELEMENT, ELEMENT), generate


@intrinsic  # type: ignore[untyped-decorator]
def negate_where(typing_context: Any, mask: Any, a: Any) -> Any:
    """Return 2p - a, short, in the lanes where mask is all ones, a where it is zero. a: reduced."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        limbs = _unpack(builder, values[1])
        minus = [builder.sub(splat(i), j) for i, j in zip(_TWICE_P, limbs, strict=True)]
        chosen = [_emit_select(builder, values[0], i, j) for i, j in zip(minus, limbs, strict=True)]
        return _pack(builder, chosen)

    return ELEMENT(LANES, ELEMENT), generate


@intrinsic  # type: ignore[untyped-decorator]
def canonical(typing_context: Any, a: Any) -> Any:
    """Return the number below p that a stands for, limbs below 2^51. a: reduced."""
    return element_function(1, _emit_canonical)


@intrinsic  # type: ignore[untyped-decorator]
def load(typing_context: Any, address: Any) -> Any:
    """Return the element whose limbs stand at `address`, a multiple of 64."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        limbs = [lanes64.load_vector(builder, values[0], i) for i in range(LIMBS)]
        return _pack(builder, limbs)

    return ELEMENT(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing_context: Any, address: Any, a: Any) -> Any:
    """Write the limbs of a to `address`, a multiple of 64."""

    def emit(builder: Any, address_: Any, element: Any) -> None:
        for i, limb in enumerate(_unpack(builder, element)):
            lanes64.store_vector(builder, limb, address_, i)

    return void_function(types.void(types.uint64, ELEMENT), emit)


@intrinsic  # type: ignore[untyped-decorator]
def from_words(typing_context: Any, address: Any) -> Any:
    """Return the low 255 bits of the four vectors of words at `address`, limbs below 2^51."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        words = [lanes64.load_vector(builder, values[0], i) for i in range(_WORDS)]
        return _pack(builder, _emit_from_words(builder, words))

    return ELEMENT(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def to_words(typing_context: Any, address: Any, a: Any) -> Any:
    """Write four vectors of words to `address`: the number a, whose limbs are below 2^51."""

    def emit(builder: Any, address_: Any, element: Any) -> None:
        for i, word in enumerate(_emit_to_words(builder, _unpack(builder, element))):
            lanes64.store_vector(builder, word, address_, i)

    return void_function(types.void(types.uint64, ELEMENT), emit)


@intrinsic  # type: ignore[untyped-decorator]
def is_zero(typing_context: Any, a: Any) -> Any:
    """Return all ones in the lanes where a, canonical, is zero, zero in the others."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        limbs = _unpack(builder, values[0])
        together = limbs[0]
        for limb in limbs[1:]:
            together = builder.or_(together, limb)
        return builder.sext(builder.icmp_unsigned("==", together, splat(0)), VECTOR)

    return LANES(ELEMENT), generate


@intrinsic  # type: ignore[untyped-decorator]
def parity(typing_context: Any, a: Any) -> Any:
    """Return the lowest bit of a, canonical: 0 or 1 in each lane."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.and_(builder.extract_value(values[0], 0), splat(1))

    return LANES(ELEMENT), generate


def _constant_function(number: int) -> Any:
    """Return signature and generator of an intrinsic that answers a constant element."""

    def generate(_context: Any, builder: Any, _signature: Any, _values: Any) -> Any:
        return _pack(builder, [splat(limb) for limb in limbs_of(number)])

    return ELEMENT(), generate


@intrinsic  # type: ignore[untyped-decorator]
def zero(typing_context: Any) -> Any:
    """Return 0."""
    return _constant_function(0)


@intrinsic  # type: ignore[untyped-decorator]
def one(typing_context: Any) -> Any:
    """Return 1."""
    return _constant_function(1)


D: Final = -121665 * pow(121666, -1, P) % P
"""The constant of the curve -x^2 + y^2 = 1 + d x^2 y^2."""
SQRT_MINUS_ONE: Final = pow(2, (P - 1) // 4, P)


@intrinsic  # type: ignore[untyped-decorator]
def curve_d(typing_context: Any) -> Any:
    """Return d."""
    return _constant_function(D)


@intrinsic  # type: ignore[untyped-decorator]
def curve_2d(typing_context: Any) -> Any:
    """Return 2 d."""
    return _constant_function(2 * D % P)


@intrinsic  # type: ignore[untyped-decorator]
def sqrt_minus_one(typing_context: Any) -> Any:
    """Return the square root of -1 that is 2^((p - 1) / 4)."""
    return _constant_function(SQRT_MINUS_ONE)
