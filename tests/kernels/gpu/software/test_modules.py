"""Whole launches of PTX on the host: order, barriers, shared memory, errors; needs only g++."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kernels import jit
from tests.kernels.gpu.software.modules import (
    Launch,
    build_module,
    entry_names,
    find_compiler,
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
    ptx: str, blocks: int, threads: int, *arrays: NDArray[Any], seed: int = 0, shared: int = 0
) -> int:
    """Run the one kernel of a module on the addresses of arrays; return what it answers."""
    library = ctypes.CDLL(str(build_module(ptx, Path(jit.CONFIG.CACHE_DIR))))
    numbers = [ctypes.c_uint64(array.ctypes.data) for array in arrays]
    params = (ctypes.c_void_p * len(numbers))(*map(ctypes.addressof, numbers))
    how = Launch((blocks, 1, 1), (threads, 1, 1), shared, seed)
    (name,) = entry_names(ptx)
    answer: int = getattr(library, name)(params, ctypes.byref(how))
    return answer


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


@pytest.mark.parametrize("order", [0, 1, 2, 2**64 - 1])
def test_a_block_adds_up_behind_barriers(rng: np.random.Generator, order: int) -> None:
    """A reduction through shared memory gives each block's sum, in whatever order threads run."""
    values = rng.integers(0, 2**64, 37 * THREADS, np.uint64)
    sums = np.zeros(37, np.uint64)
    assert launch(REDUCTION, 37, THREADS, values, sums, seed=order) == 0
    assert (sums == values.reshape(37, THREADS).sum(axis=1)).all()


def test_a_reduction_without_its_barriers_goes_wrong(rng: np.random.Generator) -> None:
    """Where threads do not wait, what they read depends on their order: barriers are no-ops."""
    values = rng.integers(0, 2**64, THREADS, np.uint64)
    sums = np.zeros(1, np.uint64)
    without = REDUCTION.replace("\tbar.sync 0;\n", "")
    assert launch(without, 1, THREADS, values, sums, seed=1) == 0
    assert sums[0] != values.sum()
