"""Let this process use the software device as its GPU; before anything looks for a driver.

The driver is compiled once, loaded by its path, and then found by its name: the loader of the
system gives a library that is there already to whoever asks for `libcuda.so.1`. Numba's real host
path then runs on it, with kernels from the PTX that its linker makes; those in CUDA C from the PTX
that NVIDIA's runtime compiler makes.
"""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from kernels.gpu import nvrtc
from kernels.jit import cache_root
from tests.kernels.gpu.compiled import missing_packages

Schedule = Literal["late", "early", "random"]
SCHEDULES: Final[tuple[Schedule, ...]] = ("late", "early", "random")
HERE: Final = Path(__file__).parent
FLAGS: Final = (
    *("-std=c++17", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"),
    # Leaving a kernel by a long jump is meant, and fortified jumps refuse it.
    *("-U_FORTIFY_SOURCE", "-Wl,-soname,libcuda.so.1"),
)
SECONDS_MAX: Final = 120
_LOADER: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was asked of the device so far; the order is that of `driver.h`."""

    launches: int
    copies_in: int
    copies_out: int
    copies_within: int
    memsets: int
    bytes_in: int
    bytes_out: int
    bytes_staged: int
    """of those in, from pageable memory"""
    waits: int
    """calls that wait for the device"""
    waits_in_frees: int
    """frees that waited, see `let_frees_wait`"""
    allocations: int
    pinned_allocations: int
    device_bytes: int
    """allocated now"""
    execution_ns: int
    """spent in kernels, copies and memsets, and in filling memory with noise"""


class SoftwareDevice:
    """What tests may ask of the driver that no GPU offers."""

    def __init__(self, library: Any) -> None:
        """Use a loaded driver."""
        self._library = library
        library.software_error.restype = ctypes.c_char_p
        library.software_execution_ns.restype = ctypes.c_uint64
        library.software_failures_left.restype = ctypes.c_uint64
        self.execution_ns: Callable[[], int] = library.software_execution_ns
        """`Counts.execution_ns` alone, cheap enough to be asked around every launch"""

    def set_schedule(self, schedule: Schedule, seed: int) -> None:
        """Do work late, early, or at random; seed 0: threads and blocks in ascending order."""
        self._library.software_set_schedule(SCHEDULES.index(schedule), ctypes.c_uint64(seed))

    def let_frees_wait(self, is_let: bool) -> None:
        """Let memory that pending work names be freed: then all work is done first, as on a GPU.

        Otherwise that loses the device: whoever frees must have waited.
        """
        self._library.software_let_frees_wait(int(is_let))

    def use_helper(self) -> None:
        """Let another thread do all work, on the cores that this one has now."""
        self._library.software_use_helper()

    def set_memory(self, memory_bytes: int) -> None:
        """Set what the device has."""
        self._library.software_set_memory(ctypes.c_uint64(memory_bytes))

    def counts(self) -> Counts:
        """Return what was asked of the device so far."""
        count = len(fields(Counts))
        numbers = np.zeros(count, np.uint64)
        found = self._library.software_counts(ctypes.c_void_p(numbers.ctypes.data), count)
        assert found == count, "the driver and this class name the same numbers"
        return Counts(
            **{field.name: int(n) for field, n in zip(fields(Counts), numbers, strict=True)}
        )

    def fail(self, kind: str, *, after: int, times: int = 1, code: int) -> None:
        """Let `times` calls of a kind fail, after so many that do not; times 0: none any more.

        kind: allocation, pinned, copy, memset, launch, wait, or run (a kernel, while it runs, after
        which the device is lost); code: a number of CUresult.
        """
        self._library.software_fail(
            kind.encode(), ctypes.c_uint64(after), ctypes.c_uint64(times), code
        )

    def failures_left(self, kind: str) -> int:
        """Return how many calls of a kind are still to fail."""
        return int(self._library.software_failures_left(kind.encode()))

    def recover(self) -> None:
        """Give a lost device back, without the work that was pending, and fail no more calls."""
        self._library.software_recover()

    def error(self) -> str:
        """Return what was wrong last, or nothing."""
        return str(self._library.software_error().decode())


_installed: list[SoftwareDevice] = []
_kept: list[Any] = []
"""What the driver calls, which must not be collected."""


def installed() -> SoftwareDevice:
    """Return the device of this process, which was installed."""
    return _installed[0]


def missing() -> str:
    """Return why there can be no software device here, or nothing."""
    if shutil.which("g++") is None:
        return "no g++ was found, which makes the software device"
    return missing_packages()


def install(
    schedule: Schedule = "late", seed: int = 0, build: Callable[[str, Path], Path] | None = None
) -> SoftwareDevice:
    """Make the software device the GPU of this process; a second call sets the schedule only.

    build: makes a shared object of PTX in a folder, that of `modules` unless another is given.
    """
    if not _installed:
        assert not missing(), missing()
        assert "numba.cuda" not in sys.modules, "Numba has looked for a driver already"
        library = ctypes.CDLL(str(build_driver(folder())), mode=ctypes.RTLD_GLOBAL)
        _register_loader(library, build or _build_module)
        _installed.append(SoftwareDevice(library))
        _take_ptx()
    _installed[0].set_schedule(schedule, seed)
    return _installed[0]


def folder() -> Path:
    """Return where the driver and modules are kept, beside compiled kernels."""
    found = cache_root().parent / "software"
    found.mkdir(parents=True, exist_ok=True)
    return found


def build_driver(where: Path) -> Path:
    """Return the path of the compiled driver, named by its sources."""
    sources = sorted(HERE.glob("*.cpp"))
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in [*sources, *sorted(HERE.glob("*.h"))]:
        digest.update(path.read_bytes())
    target = where / f"libcuda-{digest.hexdigest()[:24]}.so"
    if not target.exists():
        with tempfile.NamedTemporaryFile(dir=where, suffix=".so", delete=False) as part:
            command = ["g++", *FLAGS, f"-I{_headers()}", *map(str, sources), "-o", part.name]
            done = subprocess.run(
                [*command, "-ldl"], capture_output=True, text=True, check=False, timeout=SECONDS_MAX
            )
            assert done.returncode == 0, done.stderr
            Path(part.name).replace(target)  # others may have made the same meanwhile
    return target


def _headers() -> Path:
    """Return the folder of `cuda.h`, which says what each function of a driver takes."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        for header in sorted(Path(place).glob("*/include/cuda.h")):
            return header.parent
    raise FileNotFoundError("cuda.h is in none of the packages of CUDA")


def _build_module(ptx: str, where: Path) -> Path:
    from tests.kernels.gpu.software.modules import build_module

    return build_module(ptx, where)


def _register_loader(library: Any, build: Callable[[str, Path], Path]) -> None:
    """Let the driver ask `build` for modules."""

    def load(image: int, path: int, size: int) -> int:
        try:
            built = os.fsencode(build(ctypes.string_at(image).decode(), folder()))
        except Exception as error:  # nothing may be raised into the driver, which tells its caller
            print(f"software device: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
            return 1
        assert len(built) < size
        ctypes.memmove(path, built + b"\0", len(built) + 1)
        return 0

    loader = _LOADER(load)
    _kept.append(loader)
    library.software_set_loader(loader)


def _take_ptx() -> None:
    """Let compilers return PTX, not machine code: the software device runs nothing else.

    `_Linker.complete` is where all code of a kernel comes together; what it returns goes to the
    driver as it is. Compiled kernels are kept by Numba under a key, which has to say so too.
    """
    from numba.cuda.codegen import JITCUDACodegen
    from numba.cuda.cudadrv.driver import ObjectCode, _Linker

    def complete(linker: Any) -> Any:
        if linker.lto:
            return ObjectCode.from_ptx(linker.get_linked_ptx())
        assert len(linker._object_codes) == 1, "PTX that is not linked is that of one module"
        linker._info_log, linker.linker, linker._complete = "", linker, True
        return linker._object_codes[0]

    of_device = JITCUDACodegen.magic_tuple
    _Linker.complete = complete
    JITCUDACodegen.magic_tuple = lambda codegen: (*of_device(codegen), "software")
    nvrtc.compiled = partial(nvrtc.compiled, kind=("compute", "PTX"))
