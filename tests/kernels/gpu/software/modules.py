"""A module of PTX as a shared object of the host, which runs whole launches of its kernels.

For each kernel NAME of the module the object has

    extern "C" int NAME(void **params, const struct Launch *launch);

params[i] points at the bytes of the i-th parameter; the answer is 0 or the code of an error (Stop).
Blocks run one after the other, and between two barriers the threads of a block do so too. Their
order is drawn from the launch's seed, so a result that depends on it comes out differently. All
threads of a block must come to each barrier, those of a warp to the same one. Memory that nobody
wrote (registers, shared and local memory) has 0xA5 in each byte. Read `launch.hpp` next.
"""

import ctypes
import re
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final

from tests.kernels.gpu import ptx as texts
from tests.kernels.gpu.compiler import build_shared
from tests.kernels.gpu.ptx import UnknownInstruction

THREADS_MAX: Final = 1024
"""Of a block."""
FRAME_BYTES_MAX: Final = 128 << 10
"""That a kernel may take of a thread's stack; half of `STACK_BYTES`."""
_FLAGS: Final = (
    "-O2", "-fno-strict-aliasing", "-fwrapv",
    f"-Werror=frame-larger-than={FRAME_BYTES_MAX}",
)  # fmt: skip
_LAUNCHES: Final = (Path(__file__).parent / "launch.hpp").read_text()


class Stop(IntEnum):
    """What a launch answers where it fails; see `instructions.hpp`."""

    TRAPPED = 1
    OUT_OF_FIBERS = 2
    BARRIER_MISSED = 3
    MISALIGNED = 4
    BAD_LAUNCH = 5


class Launch(ctypes.Structure):
    """How many blocks and threads, in which order; only x may be more than 1."""

    _fields_ = (
        ("blocks", ctypes.c_uint32 * 3),
        ("threads", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
    )


def entry_names(ptx: str) -> list[str]:
    """Return the names of a module's kernels."""
    return re.findall(r"^(?:\.visible )?\.entry ([\w$]+)\(", ptx, re.MULTILINE)


def _outside(ptx: str) -> str:
    """Return a module's text without its kernels; what stands there must be known."""
    text = re.sub(r"^(?:\.visible )?\.entry [\w$]+\(.*?^\}$", "", ptx, flags=re.S | re.M)
    known = r"(?:\.(?:version|target|address_size|file) .*|(?:\.\w+ )*\.(?:const|global|shared) .*)"
    for line in text.splitlines():
        if line.strip() and re.fullmatch(known, line) is None:
            raise UnknownInstruction(line[:200])
    declared = len(re.findall(r"^(?:\.\w+ )*\.(?:const|global|shared) ", text, re.MULTILINE))
    written = len(list(texts.variables(text))) + len(list(texts.shared_variables(text)))
    if declared != written + len(_dynamic(text)):
        raise UnknownInstruction("a variable of the module")
    return text


def _dynamic(text: str) -> list[str]:
    """Return the names of what begins behind all declared shared memory."""
    return re.findall(
        r"^\s*\.extern \.shared \.align (?:1|2|4|8|16) \.b8 ([\w$]+)\[\];", text, re.M
    )


def _shared(outside: str, body: str) -> tuple[list[str], int]:
    """Return the C++ of the addresses of shared memory, and how much of it is declared."""
    size = 0
    lines = []
    for name, align, length in [
        *texts.shared_variables(outside),
        *texts.shared_variables(body),
    ]:
        size = -(-size // align) * align
        lines.append(f"const u64 sym_{name} = here.shared + {size};")
        size += length
    size = -(-size // 16) * 16
    lines += [f"const u64 sym_{name} = here.shared + {size};" for name in _dynamic(outside)]
    return lines, size


def _kernel(ptx: str, outside: str, name: str, interleaved: bool) -> Iterator[str]:
    """Yield the C++ of one kernel."""
    parameters, directives, text = texts.entry(ptx, name)
    places, shared_bytes = _shared(outside, text)
    limit = re.search(r"\.(?:maxntid|reqntid) (\d+)", directives)
    threads_max = min(THREADS_MAX, int(limit[1])) if limit else THREADS_MAX
    statements = list(texts.body(text.splitlines(), "", lambda _: ""))
    way = "CALLED"
    if interleaved:
        way = "INTERLEAVED"
    elif any("barrier(__LINE__)" in line for line in statements):
        way = "MEETING"
    yield f"static void body_{name}(void **params, const Thread &here) {{"
    yield "u64 wide; u32 carry = 0;"
    yield from (f"const u64 sym_{n} = (u64)params[{i}];" for i, (_, n) in enumerate(parameters))
    yield from places
    yield from statements
    yield "}"
    yield f'extern "C" int {name}(void **params, const Launch *launch) {{'
    yield (f"return run_launch(body_{name}, {way}, params, launch, {shared_bytes}, {threads_max});")
    yield "}"


def module_text(ptx: str, *, interleaved: bool = False) -> str:
    """Return the C++ of a whole module; as `build_module`."""
    ptx = re.sub(r"/\*.*?\*/", " ", ptx, flags=re.S)
    ptx = re.sub(r"//.*", "", ptx)
    ptx = "\n".join(re.sub(r"[ \t]+", " ", line).rstrip() for line in ptx.splitlines())
    outside = _outside(ptx)
    names = entry_names(ptx)
    kernels = [line for name in names for line in _kernel(ptx, outside, name, interleaved)]
    return "\n".join(
        [
            texts.INSTRUCTIONS,
            _LAUNCHES,
            "#define barrier(site) wait_at(here, site)",
            f"#define touch() {'touch_at(here)' if interleaved else ''}",
            *texts.variables(outside),
            *kernels,
            "",
        ]
    )


def build_module(ptx: str, folder: Path, *, interleaved: bool = False) -> Path:
    """Return the shared object of a module, in a folder that exists; equal text is built once.

    interleaved: threads of some blocks at a time are switched between their accesses to memory, at
    places drawn from the seed too: what reads, works and writes without an atomic operation loses
    updates of others. Several processes may build at once. Raises UnknownInstruction.
    """
    name = "module_interleaved" if interleaved else "module"
    return build_shared(module_text(ptx, interleaved=interleaved), _FLAGS, folder, name)
