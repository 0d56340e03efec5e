"""Claims about PTX on the host: each instruction means what its manual says, or is refused."""

import ctypes

import pytest

from tests.kernels.gpu.ed25519_builds import compiled
from tests.kernels.gpu.ptx import UnknownInstruction, translate

LOW, HIGH = 2**32 - 1, 2**64 - 1


def kernel(*instructions: str) -> str:
    """Return a kernel that has a and b in %rd1 and %rd2, halves in %r1 to %r4, writes %rd9."""
    body = "\n".join(f"\t{line};" for line in instructions)
    return f"""
.const .align 4 .b8 TABLE[8] = {{1, 0, 0, 0, 2, 0, 0, 128}};
.visible .entry one(
	.param .u64 one_param_0,
	.param .u64 one_param_1,
	.param .u64 one_param_2
)
{{
	.reg .pred 	%p<4>;
	.reg .b16 	%rs<4>;
	.reg .b32 	%r<16>;
	.reg .b64 	%rd<16>;
	ld.param.u64 	%rd1, [one_param_0];
	ld.param.u64 	%rd2, [one_param_1];
	ld.param.u64 	%rd3, [one_param_2];
	mov.b64 	{{%r1, %r2}}, %rd1;
	mov.b64 	{{%r3, %r4}}, %rd2;
{body}
	st.global.u64 	[%rd3], %rd9;
	ret;
}}
"""


def run(a: int, b: int, *instructions: str) -> int:
    """Return what the kernel of these instructions writes."""
    text, _ = translate(kernel(*instructions), "one")
    library = compiled(text, "-O0", "-w")
    out = ctypes.c_uint64()
    library.one(
        *(ctypes.c_uint32(number) for number in (0, 0, 1)), ctypes.c_uint64(a), ctypes.c_uint64(b),
        ctypes.c_uint64(ctypes.addressof(out)),
    )  # fmt: skip
    return out.value


ADD = ("add.cc.u32 %r5, %r1, %r3", "addc.u32 %r6, %r2, %r4", "mov.b64 %rd9, {%r5, %r6}")
SUBTRACT = ("sub.cc.u32 %r5, %r1, %r3", "subc.u32 %r6, %r2, %r4", "mov.b64 %rd9, {%r5, %r6}")
BORROW = (
    "sub.cc.u32 %r5, %r1, %r3", "subc.cc.u32 %r6, %r2, %r4", "subc.u32 %r7, 0, 0",
    "cvt.u64.u32 %rd9, %r7",
)  # fmt: skip
MULTIPLY_ADD = (
    "mad.lo.cc.u32 %r5, %r1, %r3, %r2", "madc.hi.u32 %r6, %r1, %r3, 0",
    "mov.b64 %rd9, {%r5, %r6}",
)  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b"),
    [(0, 0), (LOW, 1), (HIGH, 1), (1, HIGH), (LOW << 32, LOW), (HIGH, HIGH), (5, 1 << 63)],
)
def test_carries(a: int, b: int) -> None:
    """Carries and borrows pass from one half to the next, and multiply-adds keep 64 bits."""
    assert run(a, b, *ADD) == (a + b) & HIGH
    assert run(a, b, *SUBTRACT) == (a - b) & HIGH
    assert run(a, b, *BORROW) == (LOW if a < b else 0)
    assert run(a, b, *MULTIPLY_ADD) == ((a & LOW) * (b & LOW) + (a >> 32)) & HIGH


@pytest.mark.parametrize(
    ("instruction", "a", "b", "wanted"),
    [
        ("shl.b64 %rd9, %rd1, %r3", 3, 64, 0),
        ("shl.b64 %rd9, %rd1, %r3", 3, 63, 1 << 63),
        ("shr.u64 %rd9, %rd1, %r3", HIGH, 65, 0),
        ("shr.s64 %rd9, %rd1, %r3", 1 << 63, 99, HIGH),
        ("mul.wide.u32 %rd9, %r1, %r3", LOW, LOW, LOW * LOW),
        ("mul.wide.s32 %rd9, %r1, %r3", LOW, 7, HIGH - 6),
        ("mul.lo.s64 %rd9, %rd1, %rd2", HIGH, 3, HIGH - 2),
        ("and.b64 %rd9, %rd1, %rd2", 12, 10, 8),
        ("or.b64 %rd9, %rd1, %rd2", 12, 10, 14),
        ("xor.b64 %rd9, %rd1, %rd2", 12, 10, 6),
        ("not.b64 %rd9, %rd1", 1, 0, HIGH - 1),
        ("bfi.b64 %rd9, %rd1, %rd2, 8, 8", 0xAB, 0x111111, 0x11AB11),
        ("bfi.b64 %rd9, %rd1, %rd2, 32, 32", 5, 7, 5 << 32 | 7),
    ],
)
def test_one_instruction(instruction: str, a: int, b: int, wanted: int) -> None:
    """Shifts stop at the width, products extend by their sign, fields go to their place."""
    assert run(a, b, instruction) == wanted


def test_words_of_32_bits() -> None:
    """Bytes are picked by number or sign, comparisons know signs, guards hold, tables are read."""
    widen = "cvt.u64.u32 %rd9, %r5"
    assert run(0x44332211, 0x88776655, f"prmt.b32 %r5, %r1, %r3, {0x7410}",
               widen) == 0x88552211  # fmt: skip
    assert run(0x80, 0, "prmt.b32 %r5, %r1, %r3, 8", widen) == 0x808080FF
    choose = "selp.b32 %r5, 1, 2, %p1"
    assert run(LOW, 0, "setp.lt.s32 %p1, %r1, %r3", choose, widen) == 1
    assert run(LOW, 0, "setp.lt.u32 %p1, %r1, %r3", choose, widen) == 2
    guarded = ("setp.eq.s32 %p1, %r1, 7", "mov.u32 %r5, 1", "@%p1 mov.u32 %r5, 2", widen)
    assert run(7, 0, *guarded) == 2
    assert run(8, 0, *guarded) == 1
    assert run(0, 0, "mov.u64 %rd4, TABLE", "ld.const.u32 %r5, [%rd4+4]", widen) == 0x80000002


@pytest.mark.parametrize(
    "instruction",
    ["sqrt.rn.f32 %r5, %r1", "add.sat.s32 %r5, %r1, %r2", "addc.u64 %rd9, %rd1, %rd2"],
)
def test_what_is_not_known_is_refused(instruction: str) -> None:
    """An instruction without a statement ends the translation."""
    with pytest.raises(UnknownInstruction):
        translate(kernel(instruction), "one")
