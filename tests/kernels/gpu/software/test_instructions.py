"""Claims about instructions: each form answers what Python's integers do, up to the edges."""

import ctypes
import itertools
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from kernels import jit
from kernels.layout import U64
from tests.kernels.gpu.compiler import find_compiler
from tests.kernels.gpu.ptx import UnknownInstruction, statement
from tests.kernels.gpu.software.forms import Form, all_forms
from tests.kernels.gpu.software.modules import Launch, build_module

FORMS: Final = all_forms()
EDGES: Final = (
    0, 1, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1,
    0x8967_4523_CDAB_EF12,
)  # fmt: skip
COUNTS: Final = (0, 1, 5, 31, 32, 33, 63, 64, 255, 2**31, 2**32 - 1, 0x7610, 0x5A1F)
"""For c: lengths, places and distances of shifts come first."""
THREADS: Final = 256
FINISH: Final = {
    "%rd9": "", "%r9": "cvt.u64.u32 %rd9, %r9;", "%rs9": "cvt.u64.u16 %rd9, %rs9;",
    "%p9": "selp.b64 %rd9, 1, 0, %p9;",
}  # fmt: skip


def kernel(number: int, form: Form) -> str:
    """Return the kernel of a form: a thread takes its row (a, b, c, cell), writes out[row]."""
    (answer,) = set(re.findall(r"%(?:rd|rs|r|p)9\b", form.text))
    lines = "\n".join(f"{line.strip()};" for line in form.text.split(";"))
    return f"""
.visible .entry form_{number}(
	.param .u64 form_{number}_param_0,
	.param .u64 form_{number}_param_1,
	.param .u32 form_{number}_param_2
)
{{
	.reg .pred 	%p<10>;
	.reg .b16 	%rs<10>;
	.reg .b32 	%r<14>;
	.reg .b64 	%rd<14>;
	ld.param.u64 	%rd10, [form_{number}_param_0];
	ld.param.u64 	%rd11, [form_{number}_param_1];
	ld.param.u32 	%r10, [form_{number}_param_2];
	mov.u32 	%r11, %tid.x;
	mov.u32 	%r12, %ctaid.x;
	mov.u32 	%r13, %ntid.x;
	mad.lo.s32 	%r11, %r12, %r13, %r11;
	setp.ge.u32 	%p3, %r11, %r10;
	@%p3 bra 	$L__BB0_1;
	mul.wide.u32 	%rd12, %r11, 32;
	add.s64 	%rd12, %rd10, %rd12;
	ld.global.v2.u64 	{{%rd1, %rd2}}, [%rd12];
	ld.global.u64 	%rd3, [%rd12+16];
	add.s64 	%rd4, %rd12, 24;
	mul.wide.u32 	%rd13, %r11, 8;
	add.s64 	%rd11, %rd11, %rd13;
	cvt.u32.u64 	%r1, %rd1;
	cvt.u32.u64 	%r2, %rd2;
	cvt.u32.u64 	%r3, %rd3;
	cvt.u16.u32 	%rs1, %r1;
	cvt.u16.u32 	%rs2, %r2;
	cvt.u16.u32 	%rs3, %r3;
	and.b32 	%r4, %r3, 1;
	setp.ne.s32 	%p1, %r4, 0;
	and.b32 	%r5, %r2, 1;
	setp.ne.s32 	%p2, %r5, 0;
{lines}
{FINISH[answer]}
	st.global.u64 	[%rd11], %rd9;
$L__BB0_1:
	ret;
}}
"""


@pytest.fixture(scope="module")
def library() -> Any:
    """Return the module of all forms; skip where there is no compiler."""
    if find_compiler() is None:
        pytest.skip("no g++: it builds modules for the host")
    text = ".version 9.0\n.target sm_90\n.address_size 64\n"
    text += "".join(kernel(number, form) for number, form in enumerate(FORMS))
    return ctypes.CDLL(str(build_module(text, Path(jit.CONFIG.CACHE_DIR))))


def run(library: Any, number: int, rows: U64) -> tuple[U64, U64]:
    """Return what the form writes for each row (a, b, c), and what is in its cell then."""
    given = np.zeros((len(rows) + 1, 4), np.uint64)
    given = given.reshape(-1)[given.ctypes.data % 16 // 8 :][: 4 * len(rows)].reshape(-1, 4)
    given[:, :3], given[:, 3] = rows, rows[:, 0]
    out = np.zeros(len(rows), np.uint64)
    numbers = [
        ctypes.c_uint64(given.ctypes.data), ctypes.c_uint64(out.ctypes.data),
        ctypes.c_uint32(len(rows)),
    ]  # fmt: skip
    params = (ctypes.c_void_p * 3)(*map(ctypes.addressof, numbers))
    how = Launch((-(-len(rows) // THREADS), 1, 1), (THREADS, 1, 1), 0, 0)
    assert getattr(library, f"form_{number}")(params, ctypes.byref(how)) == 0
    return out, given[:, 3]


@pytest.fixture(scope="module")
def edges() -> U64:
    """Return rows (a, b, c) of all edges, and random ones."""
    at_edges = np.array(list(itertools.product(EDGES, EDGES, COUNTS)), np.uint64)
    random = np.random.default_rng(1).integers(0, 2**64, (500, 3), np.uint64)
    return np.concatenate([at_edges, random])


@pytest.mark.parametrize("number", range(len(FORMS)), ids=[form.text for form in FORMS])
def test_a_form(library: Any, edges: U64, number: int) -> None:
    """A form's answer and what it leaves in memory are those of Python's integers."""
    form = FORMS[number]
    out, cells = run(library, number, edges)
    triples = edges.tolist()
    wanted = [int(form.answer(*row)) for row in triples]
    wrong = [i for i, value in enumerate(out.tolist()) if value != wanted[i]]
    assert not wrong, (triples[wrong[0]], hex(out[wrong[0]]), hex(wanted[wrong[0]]))
    left = [row[0] if form.cell is None else form.cell(*row) for row in triples]
    assert cells.tolist() == left


@pytest.mark.parametrize(
    "instruction",
    [
        "add.sat.s32 %r1, %r2, %r3", "add.f32 %f1, %f2, %f3", "prmt.b32.f4e %r1, %r2, %r3, %r4",
        "cvt.sat.u8.s32 %r1, %r2", "cvt.rn.f32.s32 %f1, %r2", "mul.s32 %r1, %r2, %r3",
        "shfl.sync.idx.b32 %r1, %r2, %r3, 31, -1", "vote.sync.ballot.b32 %r1, %p1, -1",
        "activemask.b32 %r1", "bar.sync 1", "bar.sync 0, 128", "bar.warp.sync -1",
        "bar.red.and.pred %p1, 0, %p2",
        "atom.global.add.f32 %f1, [%rd1], %f2", "atom.global.cas.b16 %rs1, [%rd1], %rs2, %rs3",
        "red.global.exch.b32 [%rd1], %r1", "ld.global.f64 %fd1, [%rd1]",
        "ld.global.v2.u32 {%r1, %r2, %r3}, [%rd1]", "ld.global.v8.u32 {%r1}, [%rd1]",
        "mad.hi.cc.s32 %r1, %r2, %r3, %r4", "add.cc.u64 %rd1, %rd2, %rd3",
        "addc.u64 %rd1, %rd2, 0",
        "setp.lt.b32 %p1, %r1, %r2", "setp.num.s32 %p1, %r1, %r2", "and.pred %p1, %p2",
        "mov.u32 %r1, %laneid", "mov.f32 %f1, 0f3F800000", "call.uni (retval0), f, (param0)",
        "brx.idx %r1, table", "ld.global.u32 %r1, [%rd1-4]", "st.async.u32 [%rd1], %r1",
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(instruction: str) -> None:
    """Neither an instruction nor a modifier without C++ is left out or taken for another."""
    with pytest.raises(UnknownInstruction):
        statement(instruction)
