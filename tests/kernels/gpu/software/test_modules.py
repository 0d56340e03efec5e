"""Whole launches of PTX on the host: order, barriers, shared memory, errors; needs only g++."""

import ctypes
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import jit
from tests.kernels.gpu.compiler import find_compiler
from tests.kernels.gpu.ptx import UnknownInstruction
from tests.kernels.gpu.software import launches
from tests.kernels.gpu.software.launches import Number
from tests.kernels.gpu.software.modules import (
    FRAME_BYTES_MAX,
    THREADS_MAX,
    Launch,
    Stop,
    build_module,
    entry_names,
    module_text,
)

THREADS = 256
HEADER = ".version 9.0\n.target sm_90\n.address_size 64\n"


@pytest.fixture(autouse=True)
def compiler() -> None:
    """Skip where no module can be built."""
    if find_compiler() is None:
        pytest.skip("no g++: it builds modules for the host")


def kernel(*instructions: str, variables: str = "") -> str:
    """Return a module of one kernel: %rd1 and %rd2 are addresses, %r1 thread, %r2 block."""
    lines = "\n".join(line if line.endswith(":") else f"\t{line};" for line in instructions)
    return f"""{HEADER}{variables}
.visible .entry one(
	.param .u64 one_param_0,
	.param .u64 one_param_1
)
{{
	.reg .pred 	%p<8>;
	.reg .b32 	%r<16>;
	.reg .b64 	%rd<16>;
	ld.param.u64 	%rd1, [one_param_0];
	ld.param.u64 	%rd2, [one_param_1];
	mov.u32 	%r1, %tid.x;
	mov.u32 	%r2, %ctaid.x;
{lines}
	ret;
}}
"""


def launch(
    ptx: str, blocks: int, threads: int, *arrays: NDArray[Any],
    seed: int = 0, shared: int = 0, interleaved: bool = False,
) -> int:  # fmt: skip
    """Run the one kernel of a module on the addresses of arrays; return what it answers."""
    module = build_module(ptx, Path(jit.CONFIG.CACHE_DIR), interleaved=interleaved)
    numbers: list[Number] = [ctypes.c_uint64(array.ctypes.data) for array in arrays]
    (name,) = entry_names(ptx)
    return launches.launch(module, name, blocks, threads, numbers, seed=seed, shared=shared)


SHARED = ".visible .shared .align 8 .b8 cells[2048];"
PLACE = (
    "mul.wide.u32 %rd3, %r1, 8",
    "mov.u64 %rd4, cells",
    "add.s64 %rd5, %rd4, %rd3",
)
"""%rd5: the thread's own cell of 8 bytes."""
REDUCTION = kernel(
    "mov.u32 %r3, %ntid.x",
    "mad.lo.s32 %r4, %r2, %r3, %r1",
    "mul.wide.u32 %rd6, %r4, 8",
    "add.s64 %rd7, %rd1, %rd6",
    "ld.global.u64 %rd8, [%rd7]",
    *PLACE,
    "st.shared.u64 [%rd5], %rd8",
    "bar.sync 0",
    "mov.u32 %r5, 128",
    "$L__BB0_1:",
    "setp.ge.u32 %p1, %r1, %r5",
    "@%p1 bra $L__BB0_2",
    "mul.wide.u32 %rd9, %r5, 8",
    "add.s64 %rd10, %rd5, %rd9",
    "ld.shared.u64 %rd11, [%rd10]",
    "ld.shared.u64 %rd12, [%rd5]",
    "add.s64 %rd12, %rd12, %rd11",
    "st.shared.u64 [%rd5], %rd12",
    "$L__BB0_2:",
    "bar.sync 0",
    "shr.u32 %r5, %r5, 1",
    "setp.ne.s32 %p2, %r5, 0",
    "@%p2 bra $L__BB0_1",
    "setp.ne.s32 %p3, %r1, 0",
    "@%p3 bra $L__BB0_3",
    "ld.shared.u64 %rd13, [cells]",
    "mul.wide.u32 %rd14, %r2, 8",
    "add.s64 %rd15, %rd2, %rd14",
    "st.global.u64 [%rd15], %rd13",
    "$L__BB0_3:",
    variables=SHARED,
)
"""Sums 256 values of each block."""


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("order", [0, 1, 2, 2**64 - 1])
def test_a_block_adds_up_behind_barriers(
    rng: np.random.Generator, order: int, interleaved: bool
) -> None:
    """A reduction through shared memory gives each block's sum, in whatever order threads run."""
    values = rng.integers(0, 2**64, 37 * THREADS, np.uint64)
    sums = np.zeros(37, np.uint64)
    answer = launch(REDUCTION, 37, THREADS, values, sums, seed=order, interleaved=interleaved)
    assert answer == 0
    assert (sums == values.reshape(37, THREADS).sum(axis=1)).all()


def test_a_reduction_without_its_barriers_goes_wrong(rng: np.random.Generator) -> None:
    """Where threads do not wait, what they read depends on their order: barriers are no-ops."""
    values = rng.integers(0, 2**64, THREADS, np.uint64)
    sums = np.zeros(1, np.uint64)
    without = REDUCTION.replace("\tbar.sync 0;\n", "")
    assert launch(without, 1, THREADS, values, sums, seed=1) == 0
    assert sums[0] != values.sum()


ADD_PLAIN = ("ld.global.u64 %rd3, [%rd1]", "add.s64 %rd3, %rd3, 1", "st.global.u64 [%rd1], %rd3")
ADD_ATOMIC = ("atom.global.add.u64 %rd3, [%rd1], 1",)


@pytest.mark.parametrize("blocks", [1, 2, 9])
@pytest.mark.parametrize("barrier", [(), ("bar.sync 0",)])
def test_interleaved_threads_lose_updates(barrier: tuple[str, ...], blocks: int) -> None:
    """Threads that add without an atomic operation overwrite each other, also across blocks."""

    def total(*lines: str, threads: int, interleaved: bool, seed: int) -> int:
        cell = np.zeros(1, np.uint64)
        ptx = kernel(*barrier, *lines)
        answer = launch(ptx, blocks, threads, cell, cell, seed=seed, interleaved=interleaved)
        assert answer == 0
        return int(cell[0])

    for seed in range(3):
        all_of_them = blocks * 64
        assert total(*ADD_PLAIN, threads=64, interleaved=False, seed=seed) == all_of_them
        assert total(*ADD_ATOMIC, threads=64, interleaved=True, seed=seed) == all_of_them
        assert total(*ADD_PLAIN, threads=64, interleaved=True, seed=seed) < all_of_them
    least = min(total(*ADD_PLAIN, threads=1, interleaved=True, seed=seed) for seed in range(9))
    assert (least < blocks) == (blocks > 1)


def test_interleaved_launches_stop_as_others() -> None:
    """A missed barrier and a trap are told there too; the same seed does the same again."""
    one = np.zeros(1, np.uint64)
    ptx = kernel("shr.u32 %r3, %r1, 5", *(line.format("%r1, 77") for line in SKIP))
    assert launch(ptx, 7, THREADS, one, one, seed=3, interleaved=True) == Stop.BARRIER_MISSED
    assert launch(kernel("trap"), 7, 32, one, one, seed=3, interleaved=True) == Stop.TRAPPED
    runs = []
    for seed in (5, 5, 6):
        out = np.zeros((9, 64), np.uint64)
        launch(kernel(*NOTE), 9, 64, np.zeros(1, np.uint64), out, seed=seed, interleaved=True)
        runs.append(out)
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()


SKIP = (
    "setp.eq.s32 %p1, {}",
    "@%p1 bra $L__BB0_9",
    "bar.sync 0",
    "$L__BB0_9:",
)
TWO_PLACES = (
    "and.b32 %r3, %r1, {mask}",
    "setp.eq.s32 %p1, %r3, 0",
    "@%p1 bra $L__BB0_8",
    "bar.sync 0",
    "bra $L__BB0_9",
    "$L__BB0_8:",
    "bar.sync 0",
    "$L__BB0_9:",
)


@pytest.mark.parametrize("order", [0, 5])
@pytest.mark.parametrize("who", ["%r1, 77", "%r3, 2"])
def test_a_missed_barrier_is_an_error(who: str, order: int) -> None:
    """A thread or a whole warp that ends while others wait stops the launch; nothing hangs."""
    one = np.zeros(1, np.uint64)
    ptx = kernel("shr.u32 %r3, %r1, 5", *(line.format(who) for line in SKIP))
    assert launch(ptx, 3, THREADS, one, one, seed=order) == Stop.BARRIER_MISSED
    assert launch(ptx, 3, 64, one, one, seed=order) == 0


def test_a_warp_waits_at_one_barrier() -> None:
    """Warps may wait at different barriers of the text; the threads of one warp may not."""
    one = np.zeros(1, np.uint64)
    by_warp, by_thread = (
        kernel(*(line.format(mask=mask) for line in TWO_PLACES)) for mask in (32, 1)
    )
    assert launch(by_warp, 1, THREADS, one, one) == 0
    assert launch(by_thread, 1, THREADS, one, one) == Stop.BARRIER_MISSED


NOTE = (
    "atom.global.add.u64 %rd3, [%rd1], 1",
    "mov.u32 %r3, %ntid.x",
    "mad.lo.s32 %r4, %r2, %r3, %r1",
    "mul.wide.u32 %rd4, %r4, 8",
    "add.s64 %rd5, %rd2, %rd4",
    "st.global.u64 [%rd5], %rd3",
)
"""Each thread writes when its turn was."""


@pytest.mark.parametrize("barrier", [(), ("bar.sync 0",)])
def test_order_is_drawn_from_the_seed(barrier: tuple[str, ...]) -> None:
    """Seed 0 is ascending; others permute blocks and the threads of each, the same each time."""
    ptx = kernel(*barrier, *NOTE)

    def turns(seed: int) -> NDArray[np.uint64]:
        out = np.zeros((20, 64), np.uint64)
        assert launch(ptx, 20, 64, np.zeros(1, np.uint64), out, seed=seed) == 0
        assert sorted(out.reshape(-1).tolist()) == list(range(20 * 64))
        return out

    assert (turns(0).reshape(-1) == np.arange(20 * 64)).all()
    first, again, other = turns(3), turns(3), turns(4)
    assert (first == again).all()
    assert (first != other).any()
    blocks = first // 64
    assert (blocks == blocks[:, :1]).all(), "one block after the other"
    assert (np.diff(blocks[:, 0].astype(np.int64)) < 0).any()
    within = first % 64
    assert (within[0] != within[1]).any(), "each block has an order of its own"


def test_between_barriers_each_stretch_has_an_order_of_its_own() -> None:
    """Who is first before a barrier need not be first behind it."""
    out = np.zeros(128, np.uint64)
    second = [line.replace("[%rd5]", "[%rd5+512]") for line in NOTE]
    ptx = kernel(*NOTE, "bar.sync 0", *second)
    assert launch(ptx, 1, 64, np.zeros(1, np.uint64), out, seed=9) == 0
    assert sorted(out.tolist()) == list(range(128))
    assert out[:64].max() == 63, "all come before the barrier"
    assert (out[:64] != out[64:] - 64).any()


@pytest.mark.parametrize("barrier", [(), ("bar.sync 0",)])
def test_what_stops_a_kernel_stops_the_launch(barrier: tuple[str, ...]) -> None:
    """A trap and an address that is no multiple of the access are told; others did not happen."""
    memory = np.zeros(4, np.uint64)
    trap = kernel(*barrier, "setp.eq.s32 %p1, %r1, 40", "@%p1 trap")
    assert launch(trap, 2, 64, memory, memory) == Stop.TRAPPED
    assert launch(trap, 2, 32, memory, memory) == 0
    crooked = kernel(*barrier, "ld.global.u32 %r3, [%rd1+2]")
    assert launch(crooked, 1, 32, memory, memory) == Stop.MISALIGNED
    start = memory[memory.ctypes.data % 16 // 8 :]
    vector = "ld.global.v2.u64 {{%rd3, %rd4}}, [%rd1+{}]"
    assert launch(kernel(*barrier, vector.format(0)), 1, 1, start, memory) == 0
    assert launch(kernel(*barrier, vector.format(8)), 1, 1, start, memory) == Stop.MISALIGNED


@pytest.mark.parametrize(
    ("blocks", "threads"),
    [((0, 1, 1), (1, 1, 1)), ((1, 1, 1), (0, 1, 1)), ((1, 1, 1), (1025, 1, 1)),
     ((1, 2, 1), (1, 1, 1)), ((1, 1, 1), (1, 1, 2)), ((2**31, 1, 1), (1, 1, 1)),
     ((1, 0, 1), (1, 1, 1))],
)  # fmt: skip
def test_launches_that_no_device_takes(
    blocks: tuple[int, int, int], threads: tuple[int, int, int]
) -> None:
    """Empty, too large and more than one-dimensional launches are refused before they begin."""
    library = ctypes.CDLL(str(build_module(kernel("trap"), Path(jit.CONFIG.CACHE_DIR))))
    how = Launch(blocks, threads, 0, 0)
    assert library.one(None, ctypes.byref(how)) == Stop.BAD_LAUNCH


def test_a_kernel_says_how_many_threads_it_takes() -> None:
    """Its `.maxntid` bounds a launch."""
    one = np.zeros(1, np.uint64)
    ptx = kernel().replace(")\n{", ")\n.maxntid 128, 1, 1\n.minnctapersm 2\n{")
    assert launch(ptx, 1, 128, one, one) == 0
    assert launch(ptx, 1, 129, one, one) == Stop.BAD_LAUNCH


def test_1024_threads_meet() -> None:
    """The largest block has a fiber for each thread, each with its own local memory."""
    depot = (
        "bar.sync 0",
        "cvta.local.u64 %rd3, %rd15",
        "mul.wide.u32 %rd4, %r1, 8",
        "st.local.u64 [%rd3+4088], %rd4",
        "bar.sync 0",
        "ld.local.u64 %rd5, [%rd3+4088]",
        "add.s64 %rd6, %rd2, %rd4",
        "st.global.u64 [%rd6], %rd5",
    )
    ptx = kernel("mov.u64 %rd15, __local_depot0", *depot)
    ptx = ptx.replace("{\n", "{\n\t.local .align 8 .b8 \t__local_depot0[4096];\n", 1)
    out = np.zeros(1024, np.uint64)
    assert launch(ptx, 2, 1024, out, out, seed=1) == 0
    assert (out == 8 * np.arange(1024)).all()


def test_no_memory_for_fibers_is_an_error() -> None:
    """Where the system has no memory for the stacks of a block's threads, the launch says so."""
    one = np.zeros(1, np.uint64)
    ptx = kernel("bar.sync 0")
    assert launch(ptx, 1, 1024, one, one) == 0
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20), before[1]))
    try:
        assert launch(ptx, 1, 1024, one, one) == Stop.OUT_OF_FIBERS
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_kernel_too_large_for_a_fiber_is_not_built(tmp_path: Path) -> None:
    """Local memory that a fiber's stack could not hold ends the build."""
    ptx = kernel(
        "mov.u64 %rd3, depot",
        "st.global.u64 [%rd2], %rd3",
        "bar.sync 0",
        "ld.local.u64 %rd4, [%rd3]",
        "st.global.u64 [%rd2+8], %rd4",
    )
    depot = "{{\n\t.local .align 16 .b8 \tdepot[{}];\n"
    build_module(ptx.replace("{\n", depot.format(FRAME_BYTES_MAX // 2), 1), tmp_path)
    with pytest.raises(AssertionError, match="frame size"):
        build_module(ptx.replace("{\n", depot.format(FRAME_BYTES_MAX + 64), 1), tmp_path)


def test_codes_have_the_same_meaning_on_both_sides() -> None:
    """Python's names of errors are those of the C++, and a fiber has room for the largest frame."""
    folder = Path(__file__).parent
    named = re.findall(r"^ +([A-Z_]+) = (\d+),", (folder / "instructions.hpp").read_text(), re.M)
    assert {stop.name: stop.value for stop in Stop} == {name: int(code) for name, code in named}
    launches = (folder / "launch.hpp").read_text()
    assert f"STACK_BYTES = {2 * FRAME_BYTES_MAX >> 10} << 10;" in launches
    assert f"THREADS_MAX = {THREADS_MAX};" in launches


def test_what_nobody_wrote_is_no_zero() -> None:
    """Registers, shared and local memory begin with 0xA5, in each block anew."""
    ptx = kernel(
        *PLACE,
        "mul.wide.u32 %rd6, %r2, 32",
        "add.s64 %rd7, %rd2, %rd6",
        "ld.shared.u64 %rd8, [%rd5]",
        "st.global.u64 [%rd7], %rd8",
        "st.shared.u64 [%rd5], %rd4",
        "st.global.u64 [%rd7+8], %rd14",
        "mov.u64 %rd9, depot",
        "ld.local.u64 %rd10, [%rd9+16]",
        "st.global.u64 [%rd7+16], %rd10",
        variables=SHARED,
    ).replace("{\n", "{\n\t.local .align 16 .b8 \tdepot[24];\n", 1)
    out = np.zeros((3, 4), np.uint64)
    assert launch(ptx, 3, 1, out, out) == 0
    assert (out[:, :3] == 0xA5A5_A5A5_A5A5_A5A5).all()


def test_shared_memory_that_the_launch_brings() -> None:
    """Dynamic shared memory begins behind what the kernel declares, at a multiple of 16."""
    ptx = kernel(
        "mov.u64 %rd3, more",
        "mov.u64 %rd4, few",
        "sub.s64 %rd5, %rd3, %rd4",
        "st.global.u64 [%rd2], %rd5",
        "st.shared.u64 [%rd3+4088], %rd5",
        "ld.shared.u64 %rd6, [%rd3+4088]",
        "st.global.u64 [%rd2+8], %rd6",
        variables=".visible .shared .align 4 .b8 few[20];\n.extern .shared .align 16 .b8 more[];",
    )
    out = np.zeros(2, np.uint64)
    assert launch(ptx, 1, 1, out, out, shared=4096) == 0
    assert out.tolist() == [32, 32]


def test_tables_of_a_module(rng: np.random.Generator) -> None:
    """Constants and tables of every width are read, and one that is common begins with zeros."""
    ptx = kernel(
        "ld.const.u32 %r3, [SMALL+4]",
        "cvt.u64.u32 %rd3, %r3",
        "st.global.u64 [%rd2], %rd3",
        "mov.u64 %rd4, WIDE",
        "ld.global.u64 %rd5, [%rd4+8]",
        "st.global.u64 [%rd2+8], %rd5",
        "ld.global.u64 %rd6, [NUMBER]",
        "st.global.u64 [%rd2+16], %rd6",
        "ld.global.s16 %rd7, [HALF]",
        "st.global.u64 [%rd2+24], %rd7",
        variables="""
.const .align 4 .b8 SMALL[8] = {1, 0, 0, 0, 2, 0, 0, 128};
.visible .global .align 8 .u64 WIDE[2] = {5, 18446744073709551615};
.common .global .align 8 .u64 NUMBER;
.global .s16 HALF = -3;
""",
    )
    out = np.ones(4, np.uint64)
    assert launch(ptx, 1, 1, out, out) == 0
    assert out.tolist() == [0x8000_0002, 2**64 - 1, 0, 2**64 - 3]


@pytest.mark.parametrize(
    "text",
    [
        ".func f()\n{\n\tret;\n}", ".extern .func f;", ".global .align 4 .f32 X = 1;",
        ".global .align 8 .u64 X[1] = {generic(Y)};", ".tex .u64 X;",
        ".extern .global .align 4 .b8 X[];",
    ],
)  # fmt: skip
def test_what_a_module_may_not_have(text: str) -> None:
    """Functions, floating point, addresses in tables: whatever is not known is refused."""
    module_text(kernel())
    with pytest.raises(UnknownInstruction):
        module_text(kernel(variables=text))
    with pytest.raises(UnknownInstruction):
        module_text(kernel("add.f32 %r1, %r2, %r3"))


def test_equal_text_is_built_once(tmp_path: Path) -> None:
    """The object is named by what it is made of."""
    path = build_module(kernel(), tmp_path)
    before = path.stat().st_mtime_ns
    assert build_module(kernel(), tmp_path) == path
    assert path.stat().st_mtime_ns == before
    assert build_module(kernel("bar.sync 0"), tmp_path) != path
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".so", ".so"]
