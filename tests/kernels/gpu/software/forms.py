"""Every form of instruction that modules may have, with what it answers in Python's integers.

A form computes from a, b and c, which stand in registers of each width (`%rd1` to `%rd3` all 64
bits, `%r1` to `%r3` the lower 32, `%rs1` to `%rs3` the lower 16; `%p1` is c's lowest bit, `%p2`
b's), and leaves its answer in the register that it names. `[%rd4]` is a cell of memory of its own,
with a in it.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

Answer = Callable[[int, int, int], int]

WIDTHS: Final = (16, 32, 64)
REGISTER: Final = {16: "%rs", 32: "%r", 64: "%rd"}
COMPARE: Final[dict[str, Callable[[int, int], bool]]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
LOGIC: Final[dict[str, Callable[[int, int], int]]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


class Form(NamedTuple):
    """An instruction, or several."""

    text: str
    """answers in %rd9, %r9, %rs9 or %p9"""
    answer: Answer
    """as the bits of that register"""
    cell: Answer | None = None
    """what stands in the cell of memory then; None: still a"""


def low(value: int, bits: int) -> int:
    """Return the lower bits as an unsigned number."""
    return value & ((1 << bits) - 1)


def read(value: int, kind: str) -> int:
    """Return the lower bits of a register as a type like s32 has them."""
    bits = int(kind[1:])
    value = low(value, bits)
    return value - (1 << bits) if kind[0] == "s" and value >> (bits - 1) else value


def _towards_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (-1 if (a < 0) != (b < 0) else 1)


def arithmetic(kind: str) -> Iterator[Form]:
    """Yield what a type of 16, 32 or 64 bits can do."""
    bits = int(kind[1:])
    r = REGISTER[bits]

    def form(name: str, operands: int, work: Answer, width: int = bits) -> Form:
        def answer(a: int, b: int, c: int) -> int:
            return low(work(read(a, kind), read(b, kind), read(c, kind)), width)

        given = "".join(f", {r}{i + 1}" for i in range(operands))
        return Form(f"{name}.{kind} {REGISTER[width]}9{given}", answer)

    yield form("add", 2, lambda a, b, _: a + b)
    yield form("sub", 2, lambda a, b, _: a - b)
    yield form("min", 2, lambda a, b, _: min(a, b))
    yield form("max", 2, lambda a, b, _: max(a, b))
    yield form("mul.lo", 2, lambda a, b, _: a * b)
    yield form("mul.hi", 2, lambda a, b, _: a * b >> bits)
    yield form("mad.lo", 3, lambda a, b, c: a * b + c)
    yield form("mad.hi", 3, lambda a, b, c: (a * b >> bits) + c)
    if bits < 64:
        yield form("mul.wide", 2, lambda a, b, _: a * b, 2 * bits)
        wide = REGISTER[2 * bits]
        yield Form(
            f"mad.wide.{kind} {wide}9, {r}1, {r}2, {wide}3",
            lambda a, b, c: low(read(a, kind) * read(b, kind) + c, 2 * bits),
        )
    yield _divided("div", kind, _towards_zero)
    yield _divided("rem", kind, lambda a, b: a - b * _towards_zero(a, b))
    if kind[0] == "s":
        yield form("neg", 1, lambda a, _b, _c: -a)
        yield form("abs", 1, lambda a, _b, _c: abs(a))


def _divided(name: str, kind: str, work: Callable[[int, int], int]) -> Form:
    """By zero there is no answer that could be wrong, so b's lowest bit is set."""
    bits = int(kind[1:])
    r = REGISTER[bits]
    return Form(
        f"or.b{bits} {r}4, {r}2, 1; {name}.{kind} {r}9, {r}1, {r}4",
        lambda a, b, _: low(work(read(a, kind), read(b | 1, kind)), bits),
    )


def comparisons(kind: str) -> Iterator[Form]:
    """Yield the comparisons of a type, and its choice."""
    bits = int(kind[1:])
    r = REGISTER[bits]

    def compared(name: str, is_so: Callable[[int, int], bool]) -> Form:
        return Form(
            f"setp.{name}.{kind} %p9, {r}1, {r}2",
            lambda a, b, _: is_so(read(a, kind), read(b, kind)),
        )

    def joined(name: str, join: Callable[[int, int], int]) -> Iterator[Form]:
        yield Form(
            f"setp.eq.{name}.{kind} %p9|%p8, {r}1, {r}2, %p1",
            lambda a, b, c: join(read(a, kind) == read(b, kind), c & 1),
        )
        yield Form(
            f"setp.ne.{name}.{kind} %p8|%p9, {r}1, {r}2, !%p1",
            lambda a, b, c: join(read(a, kind) == read(b, kind), ~c & 1),
        )

    names = {name: name for name in (("eq", "ne") if kind[0] == "b" else COMPARE)}
    if kind[0] == "u":
        names |= {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
    for name, meaning in names.items():
        yield compared(name, COMPARE[meaning])
    for name, join in LOGIC.items():
        yield from joined(name, join)
    yield Form(f"selp.{kind} {r}9, {r}1, {r}2, %p1", lambda a, b, c: low((b, a)[c & 1], bits))


def bitwise(bits: int) -> Iterator[Form]:
    """Yield what words of a width can do, without a sign except in shifts to the right."""
    r = REGISTER[bits]

    def joined(name: str, join: Callable[[int, int], int]) -> Form:
        return Form(f"{name}.b{bits} {r}9, {r}1, {r}2", lambda a, b, _: low(join(a, b), bits))

    def shifted(kind: str) -> Form:
        return Form(
            f"shr.{kind} {r}9, {r}1, %r2",
            lambda a, b, _: low(read(a, kind) >> min(low(b, 32), 64), bits),
        )

    for name, join in LOGIC.items():
        yield joined(name, join)
    yield Form(f"not.b{bits} {r}9, {r}1", lambda a, _b, _c: low(~a, bits))
    yield Form(f"mov.b{bits} {r}9, {r}1", lambda a, _b, _c: low(a, bits))
    yield Form(
        f"shl.b{bits} {r}9, {r}1, %r2",
        lambda a, b, _: low(low(a, bits) << min(low(b, 32), 64), bits),
    )
    for sign in "bus":
        yield shifted(f"{sign}{bits}")


def _extracted(a: int, place: int, length: int, kind: str) -> int:
    bits = int(kind[1:])
    place, length = place & 255, length & 255
    if length == 0:
        return 0
    whole = read(a, kind) >> min(place, bits) if place < bits else (-1 if read(a, kind) < 0 else 0)
    if length >= bits:
        return low(whole, bits)
    field = low(whole, length)
    return low(read(field, f"{kind[0]}{length}"), bits)


def _inserted(a: int, b: int, place: int, length: int, bits: int) -> int:
    place, length = place & 255, length & 255
    mask = low(((1 << length) - 1) << place, bits)
    return (low(a << place, bits) & mask) | (low(b, bits) & ~mask)


def _permuted(a: int, b: int, order: int) -> int:
    both = (low(a, 32) | low(b, 32) << 32).to_bytes(8, "little")
    out = bytearray()
    for i in range(4):
        pick = order >> 4 * i & 15
        byte = both[pick & 7]
        out.append((255 if byte & 128 else 0) if pick & 8 else byte)
    return int.from_bytes(out, "little")


def fields() -> Iterator[Form]:
    """Yield what moves bits within and between words."""

    def funnel(b: int, a: int) -> int:
        return low(b, 32) << 32 | low(a, 32)

    yield Form(
        "shf.l.wrap.b32 %r9, %r1, %r2, %r3",
        lambda a, b, c: low(funnel(b, a) << (c & 31) >> 32, 32),
    )
    yield Form(
        "shf.r.wrap.b32 %r9, %r1, %r2, %r3", lambda a, b, c: low(funnel(b, a) >> (c & 31), 32)
    )
    yield Form(
        "shf.l.clamp.b32 %r9, %r1, %r2, %r3",
        lambda a, b, c: low(funnel(b, a) << min(low(c, 32), 32) >> 32, 32),
    )
    yield Form(
        "shf.r.clamp.b32 %r9, %r1, %r2, %r3",
        lambda a, b, c: low(funnel(b, a) >> min(low(c, 32), 32), 32),
    )
    yield Form("prmt.b32 %r9, %r1, %r2, %r3", _permuted)
    for bits in (32, 64):
        yield from _fields_of(bits)


def _fields_of(bits: int) -> Iterator[Form]:
    r = REGISTER[bits]
    yield Form(f"bfe.u{bits} {r}9, {r}1, %r2, %r3", lambda a, b, c: _extracted(a, b, c, f"u{bits}"))
    yield Form(f"bfe.s{bits} {r}9, {r}1, %r2, %r3", lambda a, b, c: _extracted(a, b, c, f"s{bits}"))
    yield Form(f"bfi.b{bits} {r}9, {r}1, {r}2, %r3, 7", lambda a, b, c: _inserted(a, b, c, 7, bits))
    yield Form(f"bfi.b{bits} {r}9, {r}1, {r}2, 5, %r3", lambda a, b, c: _inserted(a, b, 5, c, bits))
    yield Form(f"popc.b{bits} %r9, {r}1", lambda a, _b, _c: low(a, bits).bit_count())
    yield Form(f"clz.b{bits} %r9, {r}1", lambda a, _b, _c: bits - low(a, bits).bit_length())
    yield Form(
        f"brev.b{bits} {r}9, {r}1", lambda a, _b, _c: int(f"{low(a, bits):0{bits}b}"[::-1], 2)
    )


def conversions() -> Iterator[Form]:
    """Yield the conversions between integers of every width and sign."""
    kinds = [f"{sign}{bits}" for bits in (8, *WIDTHS) for sign in "us"]
    yield from (_converted(to, kind) for to in kinds for kind in kinds)


def _converted(to: str, kind: str) -> Form:
    """A register may be wider than its type: then the answer fills it by its sign."""
    bits = max(32, int(to[1:]))
    return Form(
        f"cvt.{to}.{kind} {REGISTER[bits]}9, {REGISTER[max(16, int(kind[1:]))]}1",
        lambda a, _b, _c: low(read(read(a, kind), to), bits),
    )


def moves() -> Iterator[Form]:
    """Yield packing, predicates, numbers in the text, guards and jumps, and carries."""
    yield Form("mov.b64 %rd9, {%r1, %r2}", lambda a, b, _: low(a, 32) | low(b, 32) << 32)
    yield Form("mov.b64 {%r9, %r8}, %rd1", lambda a, _b, _c: low(a, 32))
    yield Form("mov.b64 {_, %r9}, %rd1", lambda a, _b, _c: a >> 32)
    yield Form("mov.b32 %r9, {%rs1, %rs2}", lambda a, b, _: low(a, 16) | low(b, 16) << 16)
    yield Form("mov.b32 {%rs8, %rs9}, %r1", lambda a, _b, _c: low(a, 32) >> 16)
    yield Form("mov.b64 {%rs6, %rs7, %rs9, %rs8}, %rd1", lambda a, _b, _c: low(a >> 32, 16))
    yield Form(
        "mov.b64 %rd9, {%rs1, %rs2, %rs3, %rs1}",
        lambda a, b, c: low(a, 16) | low(b, 16) << 16 | low(c, 16) << 32 | low(a, 16) << 48,
    )
    yield Form("and.pred %p9, %p1, %p2", lambda _a, b, c: b & c & 1)
    yield Form("or.pred %p9, %p1, %p2", lambda _a, b, c: (b | c) & 1)
    yield Form("xor.pred %p9, %p1, %p2", lambda _a, b, c: (b ^ c) & 1)
    yield Form("not.pred %p9, %p1", lambda _a, _b, c: ~c & 1)
    yield Form("mov.pred %p9, -1", lambda _a, _b, _c: 1)
    yield Form("mov.pred %p9, %p1", lambda _a, _b, c: c & 1)
    yield Form("mov.u64 %rd9, -9223372036854775808", lambda _a, _b, _c: 1 << 63)
    yield Form("add.s64 %rd9, %rd1, -1", lambda a, _b, _c: low(a - 1, 64))
    yield Form("mov.u64 %rd9, 0xFFFFFFFFFFFFFFFF", lambda _a, _b, _c: 2**64 - 1)
    yield Form("setp.lt.s32 %p9, %r1, -2147483647", lambda a, _b, _c: read(a, "s32") == -(2**31))
    yield Form("setp.gt.u32 %p9, %r1, -2", lambda a, _b, _c: low(a, 32) == 2**32 - 1)
    yield Form("setp.ne.s16 %p9, %rs1, -1", lambda a, _b, _c: low(a, 16) != 65535)
    yield Form("mov.u32 %r9, 1; @%p1 mov.u32 %r9, 2", lambda _a, _b, c: 1 + (c & 1))
    yield Form("mov.u32 %r9, 1; @!%p1 mov.u32 %r9, 2", lambda _a, _b, c: 2 - (c & 1))
    yield Form("mov.u32 %r9, 1; @%p1 ret; mov.u32 %r9, 1", lambda _a, _b, c: 0 if c & 1 else 1)
    yield Form("cvta.global.u64 %rd8, %rd4; ld.u64 %rd9, [%rd8]", lambda a, _b, _c: a)
    yield Form(
        "add.cc.u32 %r8, %r1, %r2; addc.u32 %r9, %r3, 0",
        lambda a, b, c: low(c + (low(a, 32) + low(b, 32) >> 32), 32),
    )
    yield Form(
        "sub.cc.u32 %r8, %r1, %r2; subc.u32 %r9, %r3, 0",
        lambda a, b, c: low(c - (low(a, 32) < low(b, 32)), 32),
    )
    yield Form(
        "mad.lo.cc.u32 %r8, %r1, %r2, %r3; madc.hi.u32 %r9, %r1, %r2, 0",
        lambda a, b, c: low(low(a, 32) * low(b, 32) + low(c, 32) >> 32, 32),
    )


def memory() -> Iterator[Form]:
    """Yield loads and stores of every width, and of vectors."""
    for bits in (8, *WIDTHS):
        yield from _memory_of(bits)
    yield Form("ld.global.v2.u32 {%r9, %r8}, [%rd4]", lambda a, _b, _c: low(a, 32))
    yield Form("ld.global.nc.v2.u32 {%r8, %r9}, [%rd4]", lambda a, _b, _c: a >> 32)
    yield Form("ld.volatile.global.v4.u16 {%rs5, %rs6, %rs9, %rs8}, [%rd4]",
               lambda a, _b, _c: low(a >> 32, 16))  # fmt: skip
    yield Form(
        "st.global.v2.u32 [%rd4], {%r2, %r3}; mov.u32 %r9, 0",
        lambda _a, _b, _c: 0,
        lambda _a, b, c: low(b, 32) | low(c, 32) << 32,
    )


def _memory_of(bits: int) -> Iterator[Form]:
    width = max(32, bits)
    register, last = REGISTER[width], 8 - bits // 8

    def loaded(kind: str) -> Form:
        return Form(
            f"ld.global.{kind} {register}9, [%rd4]", lambda a, _b, _c: low(read(a, kind), width)
        )

    yield loaded(f"u{bits}")
    yield loaded(f"s{bits}")
    yield Form(f"ld.global.b{bits} {register}9, [%rd4+{last}]", lambda a, _b, _c: a >> (64 - bits))
    yield Form(
        f"st.global.b{bits} [%rd4+{last}], {REGISTER[max(16, bits)]}2; mov.u32 %r9, 0",
        lambda _a, _b, _c: 0,
        lambda a, b, _: low(a, 64 - bits) | low(b, bits) << (64 - bits),
    )


def atomics(kind: str) -> Iterator[Form]:
    """Yield the atomic operations and reductions on a type of 32 or 64 bits."""
    bits = int(kind[1:])
    r = REGISTER[bits]

    def leaving(work: Answer) -> Answer:
        """Return what the cell has after an operation on its lower bits."""
        return lambda a, b, c: (
            (a >> bits << bits) | low(work(read(a, kind), read(b, kind), read(c, kind)), bits)
        )

    def forms(name: str, work: Answer) -> Iterator[Form]:
        third = f", {r}3" if name == "cas" else ""
        yield Form(
            f"atom.global.{name}.{kind} {r}9, [%rd4], {r}2{third}",
            lambda a, _b, _c: low(a, bits),
            leaving(work),
        )
        if name not in ("exch", "cas"):
            yield Form(
                f"red.relaxed.gpu.global.{name}.{kind} [%rd4], {r}2; mov.u32 %r9, 7",
                lambda _a, _b, _c: 7,
                leaving(work),
            )

    if kind in ("u32", "s32", "u64"):
        yield from forms("add", lambda a, b, _: a + b)
    if kind[0] == "b":
        yield from forms("and", lambda a, b, _: a & b)
        yield from forms("or", lambda a, b, _: a | b)
        yield from forms("xor", lambda a, b, _: a ^ b)
        yield from forms("exch", lambda _a, b, _c: b)
        yield from forms("cas", lambda a, b, c: c if a == b else a)
    else:
        yield from forms("min", lambda a, b, _: min(a, b))
        yield from forms("max", lambda a, b, _: max(a, b))
    if kind == "u32":
        yield from forms("inc", lambda a, b, _: 0 if a >= b else a + 1)
        yield from forms("dec", lambda a, b, _: b if a == 0 or a > b else a - 1)


def all_forms() -> list[Form]:
    """Return all of them."""
    kinds = [f"{sign}{bits}" for bits in WIDTHS for sign in "us"]
    return [
        *(form for kind in kinds for form in arithmetic(kind)),
        *(form for kind in kinds for form in comparisons(kind)),
        *(form for bits in WIDTHS for form in comparisons(f"b{bits}")),
        *(form for bits in WIDTHS for form in bitwise(bits)),
        *fields(),
        *conversions(),
        *moves(),
        *memory(),
        *(form for bits in (32, 64) for sign in "usb" for form in atomics(f"{sign}{bits}")),
    ]
