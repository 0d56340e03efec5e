"""The verifier of signatures as compiled for a device, in whole blocks with their barrier."""

import ctypes
import random
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from kernels import jit
from kernels.gpu import ed25519_source
from kernels.gpu.ed25519_source import BLOCK_THREADS, KEY_TABLE_BYTES
from kernels.layout import U8
from tests.kernels.forgeries import as_rows, corrupted, libsodium, mixed_torsion, signed_rows
from tests.kernels.gpu import nvrtc
from tests.kernels.gpu.compiler import find_compiler
from tests.kernels.gpu.software.launches import Number, launch
from tests.kernels.gpu.software.modules import Stop, build_module

UNTOUCHED: Final = 255


@pytest.fixture(scope="module", autouse=True)
def compilers() -> None:
    """Skip where the source cannot be compiled or the module cannot be built."""
    nvrtc.require()
    if find_compiler() is None:
        pytest.skip("no g++: it builds modules for the host")


@cache
def module() -> Path:
    """Return the module, built from the text of NVIDIA's compiler."""
    source, options = ed25519_source.source(), ed25519_source.options()
    text = nvrtc.compile_cuda(source, options, to_ptx=True).code
    return build_module(text.rstrip(b"\0").decode(), Path(jit.CONFIG.CACHE_DIR))


def verify(rows: tuple[U8, U8, U8], *, blocks: int, threads: int, seed: int) -> tuple[int, U8]:
    """Return what the launch answers, and the verdicts, UNTOUCHED where there is none."""
    count, length = rows[2].shape
    out = np.full(count, UNTOUCHED, np.uint8)
    tables = np.zeros(count * KEY_TABLE_BYTES + 16, np.uint8)
    tables = tables[-tables.ctypes.data % 16 :]
    kept = [np.ascontiguousarray(array) for array in rows]
    numbers: list[Number] = [
        *(ctypes.c_uint64(array.ctypes.data) for array in kept), ctypes.c_uint32(length),
        ctypes.c_uint32(length % 8 == 0), ctypes.c_uint32(count),
        ctypes.c_uint64(tables.ctypes.data), ctypes.c_uint64(out.ctypes.data),
    ]  # fmt: skip
    return launch(module(), "verify", blocks, threads, numbers, seed=seed), out


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("length", [160, 33])
def test_whole_blocks(rng: np.random.Generator, length: int, seed: int) -> None:
    """Each thread judges its own row with the block's table, in whatever order threads run."""
    rows, bad = corrupted(rng, signed_rows(rng, 2 * BLOCK_THREADS + 70, length), 2)
    answer, verdicts = verify(rows, blocks=3, threads=BLOCK_THREADS, seed=seed)
    assert answer == 0
    assert verdicts.tolist() == (~bad).tolist()
    answer, verdicts = verify(rows, blocks=2, threads=BLOCK_THREADS, seed=seed)
    assert answer == 0
    assert (verdicts[2 * BLOCK_THREADS :] == UNTOUCHED).all()


def test_torsion_in_whole_blocks(rng: np.random.Generator) -> None:
    """Keys and points with torsion parts have libsodium's verdicts."""
    cases = list(mixed_torsion(random.Random(int(rng.integers(2**32))), 3))
    rows = as_rows(cases)
    blocks = -(-len(cases) // BLOCK_THREADS)
    answer, verdicts = verify(rows, blocks=blocks, threads=BLOCK_THREADS, seed=3)
    assert answer == 0
    assert verdicts.tolist() == libsodium(rows)
    assert {0, 1} == set(verdicts.tolist())


def test_blocks_of_another_size_are_refused(rng: np.random.Generator) -> None:
    """The kernel's launch bounds hold: more threads than it was compiled for are an error."""
    rows = signed_rows(rng, 1, 160)
    answer, _ = verify(rows, blocks=1, threads=BLOCK_THREADS + 1, seed=0)
    assert answer == Stop.BAD_LAUNCH
