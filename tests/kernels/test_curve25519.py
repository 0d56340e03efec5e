"""Claims about points: sums, doublings, entries and encodings are the oracle's."""

from typing import Any

import numpy as np

import kernels.curve25519
import kernels.encoding25519
import kernels.field51
import kernels.lanes64
import spec.oracle
from kernels.ed25519 import add_points, base_point
from kernels.field51 import ELEMENT_BYTES, LIMBS, P, limbs_of
from kernels.jit import njit
from kernels.lanes64 import VECTOR_BYTES, WIDTH
from kernels.layout import U64
from kernels.memory import zeros
from kernels.scalar25519 import SMALL_ORDER_YS
from tests.kernels.elements import address, groups, needs_lanes, numbers, values_of, words_of

pytestmark = needs_lanes

oracle: Any = spec.oracle
curve: Any = kernels.curve25519
encoding: Any = kernels.encoding25519
field: Any = kernels.field51
lanes64: Any = kernels.lanes64
element: Any = encoding.element
Point = tuple[int, int, int, int]


@njit
def run_sums(points: Any, table: Any, mask: Any, out: Any) -> None:
    """Write P + Q, P - Q by affine entry, and 4 P as (X, Y, Z, T) each; P, Q: (X, Y, Z, T)."""
    x, y = field.load(points), field.load(element(points, 1))
    z, t = field.load(element(points, 2)), field.load(element(points, 3))
    entry = curve.make_entry(
        field.load(element(points, 4)),
        field.load(element(points, 5)),
        field.load(element(points, 6)),
        field.load(element(points, 7)),
    )
    curve.store_entry(entry, table, np.uint64(curve.ROW_BYTES))
    rows = table + np.uint64(WIDTH * curve.ROW_BYTES)
    _write(out, curve.add_entry(x, y, z, t, curve.load_entry(rows)))
    affine = curve.signed_entry(lanes64.lanes_load(mask), curve.load_affine(rows))
    _write(element(out, 4), curve.add_affine(x, y, z, t, affine))
    point = curve.double_negated(x, y, z)
    point = curve.double_negated(
        curve.complete_x(point), curve.complete_y(point), curve.complete_z(point)
    )
    _write(element(out, 8), point)


@njit
def _write(out: Any, point: Any) -> None:
    field.store(out, field.carry(curve.complete_x(point)))
    field.store(element(out, 1), field.carry(curve.complete_y(point)))
    field.store(element(out, 2), field.carry(curve.complete_z(point)))
    field.store(element(out, 3), field.carry(curve.complete_t(point)))


@njit
def run_decode(words: Any, place: Any, mask: Any) -> None:
    """Decode the negatives of encodings, one per lane, and encode them again."""
    encoding.start_decode(words, place)
    encoding.root_power(place, np.uint64(0), 1)
    x, y, is_point = encoding.finish_decode(words, place)
    lanes64.lanes_store(mask, is_point)
    field.store(element(place, 5), x)
    field.store(element(place, 6), y)
    encoding.encode(x, y, field.one(), mask + np.uint64(VECTOR_BYTES))


@njit
def run_inversions(base: Any, count: Any, scratch: Any) -> None:
    """Invert element 0 of `count` places into element 1."""
    encoding.invert_together(base, np.uint64(2 * ELEMENT_BYTES), count, 0, 1, scratch)


def torsion() -> list[Point]:
    """Return the eight points whose order divides 8."""
    points = []
    for y in SMALL_ORDER_YS:
        for x in {oracle.ed_x(y, 0), oracle.ed_x(y, 1)} if y < P else ():
            points.append((x, y, 1, x * y % P))
    assert len(set(points)) == 8
    return points


def scaled(point: Point, factor: int) -> Point:
    """Return the same point with another Z."""
    x, y, z, t = point
    return x * factor % P, y * factor % P, z * factor % P, t * factor % P


def is_same(a: Point, b: Point) -> bool:
    """Say whether two projective points are equal, T included."""
    assert a[3] * a[2] % P == a[0] * a[1] % P
    return all((a[i] * b[2] - b[i] * a[2]) % P == 0 for i in (0, 1)) and a[2] % P != 0


def memory(values: list[list[int]]) -> U64:
    """Return consecutive elements, each given by its numbers, one per lane."""
    array: U64 = zeros((len(values) * LIMBS, WIDTH), np.uint64)
    for i, lanes in enumerate(values):
        for lane, value in enumerate(lanes):
            array[i * LIMBS : (i + 1) * LIMBS, lane] = limbs_of(value)
    return array


def read(array: U64, index: int) -> list[int]:
    """Return the numbers of an element."""
    return numbers(array[index * LIMBS : (index + 1) * LIMBS])


def test_sums_are_the_oracles(rng: np.random.Generator) -> None:
    """P + Q, P - Q and 4 P for points of every order, equal and opposite ones and the neutral."""
    points = torsion()
    points += [oracle.ed_multiply(k, oracle.ED_BASE) for k in (1, 2, oracle.ED_L - 1, 12345)]
    points += [oracle.ed_add(points[-1], point) for point in torsion()[:4]]
    factor = int.from_bytes(rng.bytes(31), "little") | 1
    mask = words_of([2**64 - 1] * WIDTH, 1)
    for q in points:
        affine = (q[0] * pow(q[2], -1, P) % P, q[1] * pow(q[2], -1, P) % P)
        second = (*affine, 1, affine[0] * affine[1] % P)
        for start in range(0, len(points), WIDTH):
            first = [scaled(point, factor) for point in points[start : start + WIDTH]]
            made = memory(
                [[p[i] % P for p in first] for i in range(4)] + [[v] * WIDTH for v in second]
            )
            table = zeros(WIDTH * curve.ROW_BYTES + VECTOR_BYTES, np.uint8)
            rows = [table.ctypes.data + curve.ROW_BYTES * lane for lane in range(WIDTH)]
            table[WIDTH * curve.ROW_BYTES :].view(np.uint64)[:] = rows
            out = memory([[0] * WIDTH] * 12)
            run_sums(address(made), address(table), address(mask), address(out))
            got = [read(out, i) for i in range(12)]
            opposite = (P - second[0], second[1], 1, P - second[3])
            for lane, p in enumerate(first):
                answers = [tuple(got[4 * k + i][lane] for i in range(4)) for k in range(3)]
                expected = [oracle.ed_add(p, second), oracle.ed_add(p, opposite)]
                expected.append(oracle.ed_multiply(4, p))
                for answer, right in zip(answers, expected, strict=True):
                    assert is_same(answer, right)  # type: ignore[arg-type]


def test_decoding_gives_the_negative_point(rng: np.random.Generator) -> None:
    """Every y, also of no point, and both signs: x, y and the mask are the oracle's."""
    ys = [*range(0, 20), *(y for y in SMALL_ORDER_YS if y < P), P - 2, P - 3]
    ys += [int.from_bytes(rng.bytes(32), "little") % P for _ in range(37)]
    encodings = [y | sign << 255 for y in ys for sign in (0, 1)]
    for lanes in groups(encodings):
        words, place = words_of(lanes, 4), memory([[0] * WIDTH] * 7)
        mask = words_of([0] * WIDTH, 5)
        run_decode(address(words), address(place), address(mask))
        xs, got = read(place, 5), read(place, 6)
        for lane, number in enumerate(lanes):
            y, sign = number % 2**255, number >> 255
            x = oracle.ed_x(y, sign)
            assert bool(mask[0, lane]) == (x is not None)
            expected = (0, 1) if x is None else (-x % P, y)
            if x != 0:
                assert (xs[lane] % P, got[lane] % P) == expected
        again = values_of(mask[1:])
        for lane, number in enumerate(lanes):
            if mask[0, lane] and xs[lane] % P:
                assert again[lane] == number ^ 1 << 255


def test_inversion_of_many_is_that_of_each(rng: np.random.Generator) -> None:
    """One inversion serves 1 to 16 elements in every lane."""
    scratch = memory([[0] * WIDTH] * 5)
    for count in (1, 2, 7, 16):
        values = [
            [int.from_bytes(rng.bytes(32), "little") % (P - 1) + 1 for _ in range(WIDTH)]
            for _ in range(2 * count)
        ]
        values[0] = [1, 2, P - 1, P - 2, (P + 1) // 2, 19, 2**254, 3][:WIDTH]
        array = memory(values)
        run_inversions(address(array), count, address(scratch))
        for i in range(count):
            assert [v % P for v in read(array, 2 * i + 1)] == [pow(v, -1, P) for v in values[2 * i]]


def test_points_of_tables_are_the_oracles() -> None:
    """The base point and sums in integers, of which tables are made."""
    point = base_point()
    assert point == oracle.ED_BASE[:2]
    total = (0, 1)
    for k in range(1, 20):
        total = add_points(total, point)
        x, y, z, _ = oracle.ed_multiply(k, oracle.ED_BASE)
        assert total == (x * pow(z, -1, P) % P, y * pow(z, -1, P) % P)
