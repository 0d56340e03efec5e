"""NVIDIA's runtime compiler by ctypes: PTX and machine code without a driver and without a device.

It comes with the package `nvidia-cuda-nvrtc`, or with an installed CUDA toolkit.
"""

import ctypes
import ctypes.util
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ARCHITECTURE = "90"


class Compiled(NamedTuple):
    """What the compiler made of a text, and what it said of it."""

    code: bytes
    log: str


def folders() -> list[Path]:
    """Return the folders of libraries that CUDA packages or a toolkit have."""
    found = []
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or [] if spec else []:
        found += sorted(Path(root).glob("*/lib"))
    for variable in ("CUDA_PATH", "CUDA_HOME"):
        if os.environ.get(variable):
            found.append(Path(os.environ[variable]) / "lib64")
    return found


@cache
def library() -> Any:
    """Return the compiler, or None where there is none."""
    for folder in folders():
        found = sorted(folder.glob("libnvrtc.so*"))
        if found:
            # It looks for this part of itself by name alone.
            for part in sorted(folder.glob("libnvrtc-builtins.so*")):
                ctypes.CDLL(str(part), ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(found[-1]))
    name = ctypes.util.find_library("nvrtc")
    return ctypes.CDLL(name) if name else None


def require() -> Any:
    """Return the compiler, or skip the test."""
    found = library()
    if found is None:
        pytest.skip("no CUDA compiler: neither the package nvidia-cuda-nvrtc nor CUDA_PATH is here")
    return found


def _call(name: str, *arguments: Any) -> None:
    status = getattr(require(), name)(*arguments)
    assert status == 0, f"{name} failed with status {status}"


def _text(prefix: str, program: Any) -> bytes:
    size = ctypes.c_size_t()
    _call(f"{prefix}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(prefix, program, buffer)
    return buffer.raw[: size.value]


def compile_cuda(source: str, options: tuple[str, ...], *, to_ptx: bool) -> Compiled:
    """Compile a text to PTX, or to machine code with what the assembler says of registers."""
    program = ctypes.c_void_p()
    _call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    target = [f"--gpu-architecture={'compute' if to_ptx else 'sm'}_{ARCHITECTURE}"]
    given = [*options, *target, *([] if to_ptx else ["--ptxas-options=-v"])]
    texts = (ctypes.c_char_p * len(given))(*(item.encode() for item in given))
    try:
        status = require().nvrtcCompileProgram(program, len(given), texts)
        log = _text("nvrtcGetProgramLog", program).rstrip(b"\0").decode()
        assert status == 0, log
        return Compiled(_text("nvrtcGetPTX" if to_ptx else "nvrtcGetCUBIN", program), log)
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))
