"""BLAKE3's vector instructions: one lane per message, written as LLVM code.

Left to itself the compiler finds only part of the vectors that this hash consists of, so the
compression of WIDTH messages, and the transposition of their words into lanes and back, are given
to it as explicit vectors. Everything else stays ordinary compiled Python (`blake3_wide`).

Functions here take addresses, as uint64: of scratch that lies on the caller's stack (`scratch`) or
of rows that the caller's arguments keep alive. An address is never checked; who computes one states
why it is inside its array.
"""

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels import blake3
from kernels.processor import has_avx512

WIDTH: Final = 16 if has_avx512() else 8
"""Messages side by side: one 512-bit or one 256-bit register of 32-bit words."""

VECTOR_BYTES: Final = 4 * WIDTH
SCRATCH_VECTORS: Final = 44
"""Vectors of a scratch area; `blake3_wide` says what stands where."""
_SCRATCH_ALIGNMENT: Final = 64

_U8, _U32, _U64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_QUAD = ir.VectorType(_U32, 4)
_VECTOR = ir.VectorType(_U32, WIDTH)
_COLUMNS: Final = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS: Final = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))

Emit = Callable[[Any, Any], Any]


def _void(count: int, emit: Emit) -> Any:
    """Return signature and generator of a function of `count` uint64 without a result."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        emit(builder, values)
        return _context.get_dummy_value()

    return types.void(*[types.uint64] * count), generate


def _splat(builder: Any, value: Any, kind: Any = _VECTOR) -> Any:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _U32(0))
    mask = ir.Constant(ir.VectorType(_U32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), mask)


def _shuffle(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_U32, len(lanes)), lanes)
    return builder.shuffle_vector(left, right, mask)


def _load(builder: Any, address: Any, offset: int, kind: Any, align: int) -> Any:
    place = builder.add(address, _U64(offset)) if offset else address
    return builder.load(builder.inttoptr(place, kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, address: Any, offset: int, align: int) -> None:
    place = builder.add(address, _U64(offset)) if offset else address
    builder.store(value, builder.inttoptr(place, value.type.as_pointer()), align=align)


def _load_vector(builder: Any, address: Any, index: int) -> Any:
    return _load(builder, address, index * VECTOR_BYTES, _VECTOR, VECTOR_BYTES)


def _store_vector(builder: Any, value: Any, address: Any, index: int) -> None:
    _store(builder, value, address, index * VECTOR_BYTES, VECTOR_BYTES)


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose 4 x 4 words within each 128 bits of four vectors."""
    quads = range(0, WIDTH, 4)
    low = [lane for q in quads for lane in (q, WIDTH + q, q + 1, WIDTH + q + 1)]
    low_pairs = [lane for q in quads for lane in (q, q + 1, WIDTH + q, WIDTH + q + 1)]
    high, high_pairs = [lane + 2 for lane in low], [lane + 2 for lane in low_pairs]
    a, b, c, d = rows
    ab_low, ab_high = _shuffle(builder, a, b, low), _shuffle(builder, a, b, high)
    cd_low, cd_high = _shuffle(builder, c, d, low), _shuffle(builder, c, d, high)
    return [
        _shuffle(builder, ab_low, cd_low, low_pairs),
        _shuffle(builder, ab_low, cd_low, high_pairs),
        _shuffle(builder, ab_high, cd_high, low_pairs),
        _shuffle(builder, ab_high, cd_high, high_pairs),
    ]


def _join(builder: Any, parts: list[Any]) -> Any:
    """Concatenate vectors of one size, a power of two of them."""
    while len(parts) > 1:
        lanes = list(range(2 * parts[0].type.count))
        parts = [_shuffle(builder, parts[i], parts[i + 1], lanes) for i in range(0, len(parts), 2)]
    return parts[0]


def _emit_scratch(builder: Any, _values: Any) -> Any:
    area = cgutils.alloca_once(builder, ir.ArrayType(_U8, SCRATCH_VECTORS * VECTOR_BYTES))
    area.align = _SCRATCH_ALIGNMENT
    return builder.ptrtoint(area, _U64)


def _emit_broadcast(builder: Any, values: Any) -> None:
    source, target = values
    for i in range(8):
        word = _load(builder, source, 4 * i, _U32, 1)
        _store_vector(builder, _splat(builder, word), target, i)


def _emit_load_quads(builder: Any, values: Any) -> None:
    rows, offset, target = values
    places = [builder.add(_load(builder, rows, 8 * i, _U64, 8), offset) for i in range(WIDTH)]
    vectors = [
        _join(builder, [_load(builder, places[q + k], 0, _QUAD, 1) for q in range(0, WIDTH, 4)])
        for k in range(4)
    ]
    for k, vector in enumerate(_transpose(builder, vectors)):
        _store_vector(builder, vector, target, k)


def _emit_store_digests(builder: Any, values: Any) -> None:
    source, rows = values
    places = [_load(builder, rows, 8 * i, _U64, 8) for i in range(WIDTH)]
    for half in range(2):
        words = [_load_vector(builder, source, 4 * half + k) for k in range(4)]
        for k, vector in enumerate(_transpose(builder, words)):
            for q in range(0, WIDTH, 4):
                quad = _shuffle(builder, vector, vector, list(range(q, q + 4)))
                _store(builder, quad, places[q + k], 16 * half, 1)


def _emit_split_words(builder: Any, values: Any) -> None:
    source, target = values
    halves = [_load(builder, source, VECTOR_BYTES * i, _VECTOR, 1) for i in range(2)]
    for i in range(2):
        lanes = list(range(i, 2 * WIDTH, 2))
        _store_vector(builder, _shuffle(builder, *halves, lanes), target, i)


def _emit_copy_words(builder: Any, values: Any) -> None:
    source, target = values
    _store_vector(builder, _load(builder, source, 0, _VECTOR, 1), target, 0)


def _emit_join_bytes(builder: Any, values: Any) -> None:
    low, high, target = values
    octets = ir.VectorType(_U8, WIDTH)
    first, second = (
        builder.zext(_load(builder, item, 0, octets, 1), _VECTOR) for item in (low, high)
    )
    shifted = builder.shl(second, ir.Constant(_VECTOR, [8] * WIDTH))
    _store_vector(builder, builder.or_(first, shifted), target, 0)


def _emit_zero_words(builder: Any, values: Any) -> None:
    _store_vector(builder, ir.Constant(_VECTOR, [0] * WIDTH), values[0], 0)


def _emit_copy_padded(builder: Any, values: Any) -> None:
    source, length, target = values
    block = ir.VectorType(_U32, 16)
    _store(builder, ir.Constant(block, [0] * 16), target, 0, 8)
    pointers = [builder.inttoptr(item, cgutils.voidptr_t) for item in (target, source)]
    cgutils.raw_memcpy(builder, *pointers, length, 1)


def _emit_prefetch(builder: Any, values: Any, write: int) -> None:
    pointer = builder.inttoptr(values[0], cgutils.voidptr_t)
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, _U32, _U32, _U32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [pointer, _U32(write), _U32(3), _U32(1)])


def _rotate(builder: Any, value: Any, count: int) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    name = f"llvm.fshr.v{WIDTH}i32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [value, value, ir.Constant(_VECTOR, [count] * WIDTH)])


def _emit_mixes(builder: Any, v: list[Any], places: Any, words: list[Any]) -> None:
    """Mix 8 message words into four columns or diagonals, step by step side by side."""
    for turn, (first, second) in enumerate(((16, 12), (8, 7))):
        for i, (a, b, _, _) in enumerate(places):
            v[a] = builder.add(builder.add(v[a], words[2 * i + turn]), v[b])
        for a, _, _, d in places:
            v[d] = _rotate(builder, builder.xor(v[d], v[a]), first)
        for _, _, c, d in places:
            v[c] = builder.add(v[c], v[d])
        for _, b, c, _ in places:
            v[b] = _rotate(builder, builder.xor(v[b], v[c]), second)


def _emit_compress(builder: Any, values: Any) -> None:
    chaining, block, counter, step, length, flags, out = values
    wide = ir.VectorType(_U64, WIDTH)
    lanes = ir.Constant(wide, list(range(WIDTH)))
    numbers = builder.add(
        _splat(builder, counter, wide), builder.mul(_splat(builder, step, wide), lanes)
    )
    v = [_load_vector(builder, chaining, i) for i in range(8)]
    v += [ir.Constant(_VECTOR, [word] * WIDTH) for word in blake3.INITIAL_WORDS[:4]]
    v.append(builder.trunc(numbers, _VECTOR))
    v.append(builder.trunc(builder.lshr(numbers, ir.Constant(wide, [32] * WIDTH)), _VECTOR))
    v += [_splat(builder, builder.trunc(item, _U32)) for item in (length, flags)]
    order = list(range(16))
    for _ in range(blake3.ROUNDS):
        words = [_load_vector(builder, block, i) for i in order]
        _emit_mixes(builder, v, _COLUMNS, words[:8])
        _emit_mixes(builder, v, _DIAGONALS, words[8:])
        order = [order[i] for i in blake3.PERMUTATION]
    for i in range(8):
        _store_vector(builder, builder.xor(v[i], v[i + 8]), out, i)


@intrinsic  # type: ignore[untyped-decorator]
def scratch(typing_context: Any) -> Any:
    """Return the address of SCRATCH_VECTORS vectors on the stack of the calling function."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return _emit_scratch(builder, values)

    return types.uint64(), generate


@intrinsic  # type: ignore[untyped-decorator]
def broadcast(typing_context: Any, source: Any, target: Any) -> Any:
    """Write 8 words at `source` to 8 vectors at `target`, each word into all lanes."""
    return _void(2, _emit_broadcast)


@intrinsic  # type: ignore[untyped-decorator]
def load_quads(typing_context: Any, rows: Any, offset: Any, target: Any) -> Any:
    """Write 4 vectors: words 0-3 of the 16 bytes at `offset` of each of WIDTH row addresses."""
    return _void(3, _emit_load_quads)


@intrinsic  # type: ignore[untyped-decorator]
def store_digests(typing_context: Any, source: Any, rows: Any) -> Any:
    """Write 32 bytes to each of WIDTH addresses at `rows`: the lanes of 8 vectors at `source`."""
    return _void(2, _emit_store_digests)


@intrinsic  # type: ignore[untyped-decorator]
def copy_words(typing_context: Any, source: Any, target: Any) -> Any:
    """Write one vector: WIDTH 32-bit words that stand together at `source`."""
    return _void(2, _emit_copy_words)


@intrinsic  # type: ignore[untyped-decorator]
def zero_words(typing_context: Any, target: Any) -> Any:
    """Write one vector of zeros."""
    return _void(1, _emit_zero_words)


@intrinsic  # type: ignore[untyped-decorator]
def split_words(typing_context: Any, source: Any, target: Any) -> Any:
    """Write two vectors: low and high halves of WIDTH 64-bit words that stand at `source`."""
    return _void(2, _emit_split_words)


@intrinsic  # type: ignore[untyped-decorator]
def join_bytes(typing_context: Any, low: Any, high: Any, target: Any) -> Any:
    """Write one vector: WIDTH bytes at `low`, plus 256 times those at `high`."""
    return _void(3, _emit_join_bytes)


@intrinsic  # type: ignore[untyped-decorator]
def copy_padded(typing_context: Any, source: Any, length: Any, target: Any) -> Any:
    """Write 64 bytes: `length` <= 64 bytes from `source`, then zeros."""
    return _void(3, _emit_copy_padded)


@intrinsic  # type: ignore[untyped-decorator]
def load_address(typing_context: Any, place: Any) -> Any:
    """Return the 64-bit word at `place`."""

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return _load(builder, values[0], 0, _U64, 8)

    return types.uint64(types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def store_address(typing_context: Any, place: Any, value: Any) -> Any:
    """Write the 64-bit word `value` to `place`."""
    return _void(2, lambda builder, values: _store(builder, values[1], values[0], 0, 8))


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing_context: Any, place: Any) -> Any:
    """Ask for the cache line at `place`, to read; any address is allowed."""
    return _void(1, lambda builder, values: _emit_prefetch(builder, values, 0))


@intrinsic  # type: ignore[untyped-decorator]
def prefetch_write(typing_context: Any, place: Any) -> Any:
    """Ask for the cache line at `place`, to write; any address is allowed."""
    return _void(1, lambda builder, values: _emit_prefetch(builder, values, 1))


@intrinsic  # type: ignore[untyped-decorator]
def compress_vectors(
    typing_context: Any,
    chaining: Any,
    block: Any,
    counter: Any,
    step: Any,
    length: Any,
    flags: Any,
    out: Any,
) -> Any:
    """Compress WIDTH blocks: out, 8 vectors = f(chaining, 8 vectors; block, 16 vectors).

    Lane i has the chunk number `counter` + i * `step`; `out` may be `chaining`.
    """
    return _void(7, _emit_compress)
