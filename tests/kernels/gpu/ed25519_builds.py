"""Builds of the device's Ed25519: two that the host runs, and the device's own.

- `host`: the source itself, compiled by g++, with carry chains in words of 64 bits.
- `ptx`: what NVIDIA's compiler makes of it for the device, inline PTX included, run by `ptx`.
- `device`: `DeviceVerifier` itself, where there is a device.

What the host builds is kept with the compiled kernels, named by its text and compiler.
"""

import ctypes
import itertools
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from kernels import jit
from kernels.backend import DeviceSettings, DeviceUnavailable
from kernels.gpu import ed25519, ed25519_source
from kernels.gpu.ed25519_source import BLOCK_THREADS, KEY_TABLE_BYTES
from kernels.gpu.opening import open_device
from kernels.host_accounts import read_only
from kernels.layout import U8
from tests.kernels.gpu import nvrtc
from tests.kernels.gpu.compiler import build_shared, find_compiler
from tests.kernels.gpu.ptx import translate

PROBES = (
    "multiply", "square", "add_reduced", "add", "subtract", "canonical", "invert", "reduce_order",
    "is_admitted",
)  # fmt: skip
"""Functions of the source by their number there."""


class Build(Protocol):
    """What every build offers."""

    device_name: str

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """Judge each row, as DeviceVerifier.verify does."""

    def probe(self, name: str, a: list[int], b: list[int]) -> list[int]:
        """Return what one function answers of each pair; a: below 2^512, b: below 2^256."""


def compiled(text: str, *flags: str) -> Any:
    """Return the library that g++ makes of a text; skips where there is no g++."""
    if find_compiler() is None:
        pytest.skip("no g++: the device's source is compiled by it for the host")
    folder = Path(jit.CONFIG.CACHE_DIR)
    return ctypes.CDLL(str(build_shared(text, flags, folder, "ed25519")))


def _numbers(values: list[int], size: int) -> U8:
    return np.frombuffer(b"".join(value.to_bytes(size, "little") for value in values), np.uint8)


def _address(array: U8) -> ctypes.c_uint64:
    return ctypes.c_uint64(array.ctypes.data)


class HostBuild:
    """The source as g++ compiles it."""

    device_name = "g++"

    def __init__(self) -> None:
        """Compile, or take what was compiled before."""
        text = ed25519_source.source()
        self.library = compiled(text, "-O2", "-Wall", "-Wextra", "-Werror", "-DPROBES")

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """See Build.verify."""
        out = np.full(len(public_keys), 255, np.uint8)
        rows = [read_only(array) for array in (public_keys, signatures, messages)]
        length = messages.shape[1]
        self.library.verify(
            *(_address(array) for array in rows),
            ctypes.c_uint32(length), ctypes.c_uint32(length % 8 == 0), ctypes.c_uint32(len(out)),
            _address(out),
        )  # fmt: skip
        assert np.isin(out, (0, 1)).all(), "every row has a verdict"
        return out.view(np.bool_)

    def probe(self, name: str, a: list[int], b: list[int]) -> list[int]:
        """See Build.probe."""
        out = np.zeros((len(a), 32), np.uint8)
        left, right = _numbers(a, 64), _numbers(b, 32)
        self.library.probe(
            ctypes.c_uint32(PROBES.index(name)), ctypes.c_uint32(len(a)),
            _address(left), _address(right), _address(out),
        )  # fmt: skip
        return [int.from_bytes(row.tobytes(), "little") for row in out]


@cache
def device_ptx() -> str:
    """Return the device's text, tests' functions included; skips without NVIDIA's compiler."""
    options = ed25519_source.options("PROBES")
    text = nvrtc.compile_cuda(ed25519_source.source(), options, to_ptx=True).code
    return text.rstrip(b"\0").decode()


class PtxBuild:
    """The source as NVIDIA's compiler compiles it, run thread by thread."""

    device_name = "PTX on the host"

    def __init__(self) -> None:
        """Compile twice: to PTX, and that for the host."""
        verify, self.opcodes = translate(device_ptx(), "verify")
        probe, _ = translate(device_ptx(), "probe")
        self._verify = compiled(verify, "-O0", "-w", "-DCOUNTED")
        self._probe = compiled(probe, "-O0", "-w")

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """See Build.verify; blocks have one thread."""
        out = self.launch((public_keys, signatures, messages), len(public_keys), 1)
        assert np.isin(out, (0, 1)).all(), "every row has a verdict"
        return out.view(np.bool_)

    def launch(self, columns: tuple[U8, U8, U8], blocks: int, threads: int) -> U8:
        """Run all threads of all blocks in turn; return what they wrote, 255 where none did."""
        count, length = columns[2].shape
        out: U8 = np.full(count, 255, np.uint8)
        tables = np.zeros(max(1, count) * KEY_TABLE_BYTES, np.uint8)
        rows = [read_only(array) for array in columns]
        for block, thread in itertools.product(range(blocks), range(threads)):
            self._verify.verify(
                *(ctypes.c_uint32(number) for number in (block, thread, threads)),
                *(_address(array) for array in rows),
                ctypes.c_uint32(length), ctypes.c_uint32(length % 8 == 0), ctypes.c_uint32(count),
                _address(tables), _address(out),
            )  # fmt: skip
        return out

    def counts(self) -> dict[str, int]:
        """Return how often each instruction of `verify` ran since the library was loaded."""
        numbers = (ctypes.c_uint64 * len(self.opcodes)).in_dll(self._verify, "counts")
        return dict(zip(self.opcodes, numbers, strict=True))

    def probe(self, name: str, a: list[int], b: list[int]) -> list[int]:
        """See Build.probe."""
        out = np.zeros((len(a), 32), np.uint8)
        left, right = _numbers(a, 64), _numbers(b, 32)
        for block in range(len(a)):
            self._probe.probe(
                *(ctypes.c_uint32(number) for number in (block, 0, 1, PROBES.index(name), len(a))),
                _address(left), _address(right), _address(out),
            )  # fmt: skip
        return [int.from_bytes(row.tobytes(), "little") for row in out]


class DeviceBuild:
    """The source on a device, behind the driver that nodes use."""

    def __init__(self) -> None:
        """Open the driver, and compile the tests' functions with the same options; or skip."""
        try:
            self._device = open_device(DeviceSettings())
        except DeviceUnavailable as error:
            pytest.skip(str(error))
        self._verifier = ed25519.DeviceVerifier(self._device)
        self.device_name = self._device.name
        source, options = ed25519_source.source(), ed25519_source.options("PROBES")
        self._probe = self._device.driver.load_source("probe", source, options)

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """See Build.verify."""
        verdicts: Any = self._verifier.verify(public_keys, signatures, messages)
        return verdicts  # type: ignore[no-any-return]  # bool stands where the contract says U8

    def probe(self, name: str, a: list[int], b: list[int]) -> list[int]:
        """See Build.probe."""
        device = self._device
        left, right = device.put(_numbers(a, 64)), device.put(_numbers(b, 32))
        out = device.array((len(a), 32), np.uint8)
        words = (PROBES.index(name), len(a), left.address, right.address, out.address)
        blocks = -(-len(a) // BLOCK_THREADS)
        device.driver.launch_source(self._probe, blocks, BLOCK_THREADS, words, device.stream)
        return [int.from_bytes(row.tobytes(), "little") for row in device.fetch(out)]


@cache
def open_build(name: str) -> Build:
    """Return a build by name; skips where its compiler or its device is missing."""
    kinds: dict[str, type[Build]] = {"host": HostBuild, "ptx": PtxBuild, "device": DeviceBuild}
    return kinds[name]()
