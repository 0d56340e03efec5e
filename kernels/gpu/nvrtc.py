"""CUDA C compiled by NVIDIA's runtime compiler, for the very device that runs it, and kept.

Compiling takes some ten seconds, so machine code lies beside the other compiled kernels, named by
the text, by what the compiler is told and by which compiler it is.
"""

import hashlib
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from kernels import jit
from kernels.gpu.failures import DeviceFailed

LOG_LENGTH_MAX: Final = 2_000
"""Of what the compiler says about a text that it refuses."""
MACHINE_CODE: Final = ("sm", "CUBIN")
"""The kind of architecture, and the name of what comes of it; ("compute", "PTX") is the other."""


def compiled(
    name: str,
    source: str,
    options: tuple[str, ...],
    capability: int,
    kind: tuple[str, str] = MACHINE_CODE,
) -> bytes:
    """Return what a text compiles to; compiled the first time, which is said on stderr.

    name: a word for people and for the file; capability: 10 major + minor of the device's. Raises
    DeviceFailed for a text that the compiler refuses.
    """
    compiler = import_module("cuda.bindings.nvrtc")
    architecture, product = kind
    told = (*options, f"--gpu-architecture={architecture}_{capability}")
    digest = hashlib.blake2b(digest_size=16)
    for part in (str(_checked(compiler, compiler.nvrtcVersion())), *told, source):
        digest.update(part.encode() + b"\0")
    kept = Path(jit.CONFIG.CACHE_DIR) / f"{name}-{digest.hexdigest()}.{product.lower()}"
    if kept.exists():
        return kept.read_bytes()
    sys.stderr.write(f"compiling {name} for the device: once, some 10 s ...\n")
    start_ns = time.monotonic_ns()
    code = _compile(compiler, source, told, product)
    sys.stderr.write(f"{name} is compiled ({(time.monotonic_ns() - start_ns) // 1_000_000} ms)\n")
    with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as part_file:
        part_file.write(code)
    Path(part_file.name).replace(kept)  # others may have made the same meanwhile
    return code


def _compile(compiler: Any, source: str, options: tuple[str, ...], product: str) -> bytes:
    made = compiler.nvrtcCreateProgram(source.encode(), b"source.cu", 0, [], [])
    program = _checked(compiler, made)
    try:
        texts = [option.encode() for option in options]
        (status,) = compiler.nvrtcCompileProgram(program, len(texts), texts)
        if status != compiler.nvrtcResult.NVRTC_SUCCESS:
            log = bytearray(_checked(compiler, compiler.nvrtcGetProgramLogSize(program)))
            _checked(compiler, compiler.nvrtcGetProgramLog(program, log))
            text = bytes(log).rstrip(b"\0").decode(errors="replace")[:LOG_LENGTH_MAX]
            raise DeviceFailed(f"compiling: {status.name}: {text}")
        size = getattr(compiler, f"nvrtcGet{product}Size")(program)
        code = bytearray(_checked(compiler, size))
        _checked(compiler, getattr(compiler, f"nvrtcGet{product}")(program, code))
        return bytes(code)
    finally:
        compiler.nvrtcDestroyProgram(program)


def _checked(compiler: Any, result: tuple[Any, ...]) -> Any:
    """Return what a call answers; raises DeviceFailed for a status that is none of success."""
    if result[0] != compiler.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceFailed(f"NVIDIA's runtime compiler: {result[0].name}")
    answers = result[1:]
    return answers[0] if len(answers) == 1 else answers
