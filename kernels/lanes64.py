"""A register of 64-bit integers side by side as one value that compiled kernels compute with.

`Lanes` is a Numba type over one register of WIDTH unsigned 64-bit integers, one per signature:
eight in 512 bits, four in the 256 bits of AVX2. Arithmetic wraps modulo 2^64. Values never leave
compiled code. The functions here are single instructions, or a few: what a body of `sha512`,
`scalar25519` or `field51` is made of.

Only code that runs where `kernels.processor.LANES` names a kind of lanes may compile them, and the
multiply-adds of 52 bits only where it says `ifma`: the compiler ends the whole process when it
meets an instruction that the chosen CPU does not have.

Addresses are uint64 and never checked; who computes one states why it lies inside its array.
"""

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from kernels.processor import LANES as LANES_NAME

WIDTH: Final = 4 if LANES_NAME == "avx2" else 8
"""Lanes of a vector: signatures that are computed side by side."""
VECTOR_BYTES: Final = 8 * WIDTH
LINE_WORDS: Final = 8
"""Words that are moved together between rows and vectors, at any width: a cache line."""
LINE_BYTES: Final = 8 * LINE_WORDS

I64: Final = ir.IntType(64)
INDEX: Final = ir.IntType(32)
VECTOR: Final = ir.VectorType(I64, WIDTH)
MASK: Final = ir.VectorType(ir.IntType(1), WIDTH)


class LanesType(types.Type):  # type: ignore[misc]
    """The type of WIDTH uint64 in one register."""


LANES: Final = LanesType("Lanes")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        models.PrimitiveModel.__init__(self, manager, kind, VECTOR)


def splat(value: int) -> Any:
    """Return an LLVM constant with `value` modulo 2^64 in every lane."""
    return ir.Constant(VECTOR, [value % 2**64] * WIDTH)


def call(builder: Any, name: str, *arguments: Any) -> Any:
    """Emit a call of an LLVM intrinsic on vectors that returns a vector."""
    kind = ir.FunctionType(VECTOR, [item.type for item in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def funnel_right(builder: Any, high: Any, low: Any, count: int) -> Any:
    """Emit the low 64 bits of (high * 2^64 + low) >> count, 0 <= count < 64."""
    return call(builder, f"llvm.fshr.v{WIDTH}i64", high, low, splat(count))


def swap_bytes(builder: Any, value: Any) -> Any:
    """Emit each lane with its eight bytes reversed."""
    return call(builder, f"llvm.bswap.v{WIDTH}i64", value)


def pointer(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    """Emit the address plus a constant number of bytes, as a pointer."""
    place = builder.add(address, I64(offset)) if offset else address
    return builder.inttoptr(place, kind.as_pointer())


def load_vector(builder: Any, address: Any, index: int) -> Any:
    """Emit a load of vector `index` from an address that is a multiple of VECTOR_BYTES."""
    return builder.load(pointer(builder, address, index * VECTOR_BYTES, VECTOR), align=VECTOR_BYTES)


def store_vector(builder: Any, value: Any, address: Any, index: int) -> None:
    """Emit a store to vector `index` of an address that is a multiple of VECTOR_BYTES."""
    builder.store(
        value, pointer(builder, address, index * VECTOR_BYTES, VECTOR), align=VECTOR_BYTES
    )


def shuffle(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    """Emit the vector whose lane i is lane `lanes[i]` of left and right, one after the other."""
    mask = ir.Constant(ir.VectorType(INDEX, len(lanes)), lanes)
    return builder.shuffle_vector(left, right, mask)


def transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Emit the transposition of WIDTH vectors: lane i of answer j is lane j of row i."""
    for distance in (4, 2, 1)[-WIDTH.bit_length() + 1 :]:
        answer = list(rows)
        for i in range(WIDTH):
            if i & distance:
                continue
            low = [k if not k & distance else k - distance + WIDTH for k in range(WIDTH)]
            high = [lane + distance for lane in low]
            answer[i] = shuffle(builder, rows[i], rows[i + distance], low)
            answer[i + distance] = shuffle(builder, rows[i], rows[i + distance], high)
        rows = answer
    return rows


def broadcast(builder: Any, value: Any) -> Any:
    """Emit the vector with one 64-bit integer in every lane."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    return shuffle(builder, builder.insert_element(nothing, value, INDEX(0)), nothing, [0] * WIDTH)


def load_transposed(builder: Any, rows: Any, offset: Any) -> list[Any]:
    """Emit 8 vectors: lane i of vector k is word k at `offset` of the row address i at `rows`.

    64 bytes are read from each row, at any alignment.
    """
    starts = []
    for i in range(WIDTH):
        start = builder.load(pointer(builder, rows, 8 * i, I64), align=8)
        starts.append(builder.add(start, offset))
    vectors = []
    for part in range(0, LINE_BYTES, VECTOR_BYTES):
        places = [pointer(builder, start, part, VECTOR) for start in starts]
        vectors += transpose(builder, [builder.load(place, align=1) for place in places])
    return vectors


def store_transposed(builder: Any, vectors: list[Any], starts: list[Any], align: int) -> None:
    """Emit stores of 64 bytes to WIDTH addresses: lane i of 8 vectors goes to starts[i]."""
    for part in range(0, LINE_WORDS, WIDTH):
        for start, row in zip(
            starts, transpose(builder, vectors[part : part + WIDTH]), strict=True
        ):
            builder.store(row, pointer(builder, start, 8 * part, VECTOR), align=align)


def lanes_function(count: int, emit: Callable[..., Any]) -> Any:
    """Return signature and generator of an intrinsic on `count` vectors that answers one."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return emit(builder, *values)

    return LANES(*[LANES] * count), generate


def void_function(signature: Any, emit: Callable[..., Any]) -> Any:
    """Return signature and generator of an intrinsic without an answer."""

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        emit(builder, *values)
        return context.get_dummy_value()

    return signature, generate


@intrinsic  # type: ignore[untyped-decorator]
def lanes_load(typing_context: Any, address: Any) -> Any:
    """Return the vector at `address`, a multiple of VECTOR_BYTES."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return load_vector(builder, values[0], 0)

    return LANES(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def lanes_store(typing_context: Any, address: Any, value: Any) -> Any:
    """Write a vector to `address`, a multiple of VECTOR_BYTES."""
    return void_function(
        types.void(types.uint64, LANES),
        lambda builder, place, v: store_vector(builder, v, place, 0),
    )


@intrinsic  # type: ignore[untyped-decorator]
def lanes_of(typing_context: Any, value: Any) -> Any:
    """Return the vector with a uint64 in every lane."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return broadcast(builder, values[0])

    return LANES(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def lanes_add(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a + b."""
    return lanes_function(2, lambda builder, x, y: builder.add(x, y))


@intrinsic  # type: ignore[untyped-decorator]
def lanes_sub(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a - b."""
    return lanes_function(2, lambda builder, x, y: builder.sub(x, y))


@intrinsic  # type: ignore[untyped-decorator]
def lanes_and(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a & b."""
    return lanes_function(2, lambda builder, x, y: builder.and_(x, y))


@intrinsic  # type: ignore[untyped-decorator]
def lanes_or(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a | b."""
    return lanes_function(2, lambda builder, x, y: builder.or_(x, y))


@intrinsic  # type: ignore[untyped-decorator]
def lanes_xor(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a ^ b."""
    return lanes_function(2, lambda builder, x, y: builder.xor(x, y))


@intrinsic  # type: ignore[untyped-decorator]
def lanes_multiply(typing_context: Any, a: Any, b: Any) -> Any:
    """Return a * b."""
    return lanes_function(2, lambda builder, x, y: builder.mul(x, y))


def _shift_function(name: str) -> Any:
    """Return signature and generator of a shift of all lanes by one uint64."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return getattr(builder, name)(values[0], broadcast(builder, values[1]))

    return LANES(LANES, types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def lanes_shift_left(typing_context: Any, a: Any, count: Any) -> Any:
    """Return a << count, count < 64 a uint64."""
    return _shift_function("shl")


@intrinsic  # type: ignore[untyped-decorator]
def lanes_shift_right(typing_context: Any, a: Any, count: Any) -> Any:
    """Return a >> count, count < 64 a uint64."""
    return _shift_function("lshr")


@intrinsic  # type: ignore[untyped-decorator]
def lanes_is_zero(typing_context: Any, a: Any) -> Any:
    """Return all ones in the lanes that are zero, zero in the others."""

    def emit(builder: Any, x: Any) -> Any:
        return builder.sext(builder.icmp_unsigned("==", x, splat(0)), VECTOR)

    return lanes_function(1, emit)


@intrinsic  # type: ignore[untyped-decorator]
def lanes_is_below(typing_context: Any, a: Any, b: Any) -> Any:
    """Return all ones in the lanes where a < b unsigned, zero in the others."""

    def emit(builder: Any, x: Any, y: Any) -> Any:
        return builder.sext(builder.icmp_unsigned("<", x, y), VECTOR)

    return lanes_function(2, emit)


@intrinsic  # type: ignore[untyped-decorator]
def load_rows(typing_context: Any, rows: Any, offset: Any, target: Any) -> Any:
    """Write 8 vectors to `target`: lane i of vector k is word k at `offset` of row address i.

    rows: where WIDTH addresses stand; 64 bytes are read from each, at any alignment.
    """

    def emit(builder: Any, rows_: Any, offset_: Any, target_: Any) -> None:
        for k, vector in enumerate(load_transposed(builder, rows_, offset_)):
            store_vector(builder, vector, target_, k)

    return void_function(types.void(types.uint64, types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def store_rows(typing_context: Any, source: Any, rows: Any, offset: Any) -> Any:
    """Write 64 bytes at `offset` of WIDTH row addresses: the lanes of 8 vectors at `source`."""

    def emit(builder: Any, source_: Any, rows_: Any, offset_: Any) -> None:
        vectors = [load_vector(builder, source_, k) for k in range(LINE_WORDS)]
        places = [pointer(builder, rows_, 8 * i, I64) for i in range(WIDTH)]
        starts = [builder.add(builder.load(place, align=8), offset_) for place in places]
        store_transposed(builder, vectors, starts, 1)

    return void_function(types.void(types.uint64, types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def copy_bytes(typing_context: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy `count` bytes between addresses that do not overlap."""

    def emit(builder: Any, target_: Any, source_: Any, count_: Any) -> None:
        places = [builder.inttoptr(item, cgutils.voidptr_t) for item in (target_, source_)]
        cgutils.raw_memcpy(builder, *places, count_, 1)

    return void_function(types.void(types.uint64, types.uint64, types.uint64), emit)


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typing_context: Any, address: Any) -> Any:
    """Return the uint64 at `address`, a multiple of 8."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.load(pointer(builder, values[0], 0, I64), align=8)

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_word(typing_context: Any, address: Any, value: Any) -> Any:
    """Write a uint64 to `address`, a multiple of 8."""
    return void_function(
        types.void(types.uint64, types.uint64),
        lambda builder, place, word: builder.store(word, pointer(builder, place, 0, I64), align=8),
    )
