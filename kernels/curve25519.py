"""Points of the curve -x^2 + y^2 = 1 + d x^2 y^2 modulo p, one per lane.

A point is projective (X, Y, Z) with x = X / Z, y = Y / Z, or extended by T = X Y / Z. Every
operation first gives the *completed* form (E, F, G, H) with X = E F, Y = G H, Z = F G, T = E H:
what follows multiplies only the coordinates that it needs. Formulas are those of Hisil, Wong,
Carter and Dawson for a = -1; d is no square, so they hold for every pair of points of the curve.
`field51` says what *reduced*, *short* and *loose* mean.

A table *entry* is what an addition wants of its second point: (Y + X, Y - X, 2 d T, 2 Z), 20 limbs
per lane; an affine one lacks 2 Z. Entries stand lane by lane, ROW_BYTES (AFFINE_ROW_BYTES) apart,
limbs as consecutive words, so that each lane reads the row of its own digit and one transposition
puts the limbs side by side.
"""

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels import field51 as field
from kernels import lanes64
from kernels.integers import leaf
from kernels.lanes64 import LANES, LINE_WORDS, VECTOR, WIDTH

ROW_BYTES: Final = 192
"""Of an entry in memory: 20 words and 4 that are never read, three cache lines."""
AFFINE_ROW_BYTES: Final = 128

_LINE = np.uint64(64)


@intrinsic  # type: ignore[untyped-decorator]
def _load_line(typing_context: Any, rows: Any, offset: Any) -> Any:
    """Return 8 vectors: lane i of vector k is word k at `offset` of the row address i at `rows`."""
    kind = types.UniTuple(LANES, LINE_WORDS)

    def generate(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        answer = ir.Constant(ir.ArrayType(VECTOR, LINE_WORDS), ir.Undefined)
        for k, vector in enumerate(lanes64.load_transposed(builder, *values)):
            answer = builder.insert_value(answer, vector, k)
        return answer

    return kind(types.uint64, types.uint64), generate


@intrinsic  # type: ignore[untyped-decorator]
def _store_line(typing_context: Any, line: Any, place: Any, stride: Any) -> Any:
    """Write 8 vectors as lines of 8 words: that of lane i to place + i * stride."""
    kind = types.UniTuple(LANES, LINE_WORDS)

    def emit(builder: Any, line_: Any, place_: Any, stride_: Any) -> None:
        vectors = [builder.extract_value(line_, k) for k in range(LINE_WORDS)]
        starts = [builder.add(place_, builder.mul(stride_, lanes64.I64(i))) for i in range(WIDTH)]
        lanes64.store_transposed(builder, vectors, starts, lanes64.VECTOR_BYTES)

    return lanes64.void_function(types.void(kind, types.uint64, types.uint64), emit)


@leaf
def complete_x(point: Any) -> Any:
    """Return X of a completed point, loose."""
    return field.multiply(point[0], point[1])


@leaf
def complete_y(point: Any) -> Any:
    """Return Y of a completed point, loose."""
    return field.multiply(point[2], point[3])


@leaf
def complete_z(point: Any) -> Any:
    """Return Z of a completed point, loose."""
    return field.multiply(point[1], point[2])


@leaf
def complete_t(point: Any) -> Any:
    """Return T of a completed point, loose."""
    return field.multiply(point[0], point[3])


@leaf
def double_negated(x: Any, y: Any, z: Any) -> Any:
    """Return -2 P, completed and reduced. x, y, z: loose.

    The sign saves a subtraction; four doublings in a row, or any even number, restore it.
    """
    xy = field.carry(field.add(x, y))
    x, y, z = field.carry(x), field.carry(y), field.carry(z)
    xx, yy, zz = field.square(x), field.square(y), field.square(z)
    xy = field.square(xy)
    g = field.subtract(xx, yy)
    f = field.add(g, field.add(zz, zz))
    return (
        field.carry(field.subtract(xy, field.add(xx, yy))),
        field.carry(f),
        field.carry(g),
        field.carry(field.add(xx, yy)),
    )


@leaf
def _add(x: Any, y: Any, t: Any, z_twice: Any, entry: Any) -> Any:
    """Return P + Q, completed and reduced. x, y: loose; t: short; z_twice: 2 Z Z', loose."""
    a = field.multiply(field.carry(field.subtract(y, x)), entry[1])
    b = field.multiply(field.carry(field.add(y, x)), entry[0])
    c = field.multiply(t, entry[2])
    return (
        field.carry(field.subtract(b, a)),
        field.carry(field.subtract(z_twice, c)),
        field.carry(field.add(z_twice, c)),
        field.carry(field.add(b, a)),
    )


@leaf
def add_entry(x: Any, y: Any, z: Any, t: Any, entry: Any) -> Any:
    """Return P + Q, completed. x, y: loose; z, t: reduced; entry: short."""
    return _add(x, y, t, field.multiply(z, entry[3]), entry)


@leaf
def add_affine(x: Any, y: Any, z: Any, t: Any, entry: Any) -> Any:
    """Return P + Q, completed. x, y, z: loose; t: reduced; entry: short, affine."""
    return _add(x, y, t, field.add(z, z), entry)


@leaf
def make_entry(x: Any, y: Any, z: Any, t: Any) -> Any:
    """Return the entry of a point, reduced. x, y, z: loose; t: reduced."""
    return (
        field.carry(field.add(y, x)),
        field.carry(field.subtract(y, x)),
        field.carry(field.multiply(t, field.curve_2d())),
        field.carry(field.add(z, z)),
    )


@leaf
def make_affine(x: Any, y: Any) -> Any:
    """Return the affine entry of the point (x, y), reduced; its 2 Z is of no use. x, y: short."""
    t = field.carry(field.multiply(x, y))
    return (
        field.carry(field.add(y, x)),
        field.carry(field.subtract(y, x)),
        field.carry(field.multiply(t, field.curve_2d())),
        field.zero(),
    )


@leaf
def signed_entry(negative: Any, entry: Any) -> Any:
    """Return the entry of -Q in the lanes where `negative` is all ones, of Q in the others."""
    return (
        field.select(negative, entry[1], entry[0]),
        field.select(negative, entry[0], entry[1]),
        field.negate_where(negative, entry[2]),
        entry[3],
    )


@leaf
def store_entry(entry: Any, place: Any, stride: Any) -> None:
    """Write an entry as rows: that of lane i to place + i * stride, both multiples of 64."""
    a, b, c, d = entry
    _store_line((a[0], a[1], a[2], a[3], a[4], b[0], b[1], b[2]), place, stride)
    _store_line((b[3], b[4], c[0], c[1], c[2], c[3], c[4], d[0]), place + _LINE, stride)
    _store_line((d[1], d[2], d[3], d[4], d[1], d[2], d[3], d[4]), place + _LINE + _LINE, stride)


@leaf
def store_affine(entry: Any, place: Any, stride: Any) -> None:
    """Write an affine entry as rows: that of lane i to place + i * stride, multiples of 64."""
    a, b, c, _ = entry
    _store_line((a[0], a[1], a[2], a[3], a[4], b[0], b[1], b[2]), place, stride)
    _store_line((b[3], b[4], c[0], c[1], c[2], c[3], c[4], c[4]), place + _LINE, stride)


@leaf
def load_entry(rows: Any) -> Any:
    """Return the four elements whose row addresses, one per lane, stand at `rows`."""
    u = _load_line(rows, np.uint64(0))
    v = _load_line(rows, _LINE)
    w = _load_line(rows, _LINE + _LINE)
    return (
        (u[0], u[1], u[2], u[3], u[4]),
        (u[5], u[6], u[7], v[0], v[1]),
        (v[2], v[3], v[4], v[5], v[6]),
        (v[7], w[0], w[1], w[2], w[3]),
    )


@leaf
def load_affine(rows: Any) -> Any:
    """Return the affine entry whose row addresses stand at `rows`; its 2 Z is 0 and of no use."""
    u = _load_line(rows, np.uint64(0))
    v = _load_line(rows, _LINE)
    return (
        (u[0], u[1], u[2], u[3], u[4]),
        (u[5], u[6], u[7], v[0], v[1]),
        (v[2], v[3], v[4], v[5], v[6]),
        field.zero(),
    )
