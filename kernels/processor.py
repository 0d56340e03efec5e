"""What compiled kernels may use of the processor, and which lanes signatures are computed in.

The compiler ends the whole process when it meets an instruction that it was told not to emit. So
whatever depends on an instruction set asks here first, and everything here follows what the
compiler was told: the host's own features, or `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES`.
"""

import os
from typing import Any, Final, Literal, get_args

import llvmlite.binding
import numba
from numba.core.codegen import get_host_cpu_features

CONFIG: Any = numba.config

AVX512_FEATURES = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
"""What every server core with AVX-512 has had since the first, and what the wide bodies need."""

_STEPS: Final = (
    {"sse"}, {"sse2"}, {"sse3"}, {"ssse3"}, {"sse4.1"}, {"sse4.2"}, {"avx"},
    {"avx2", "fma", "f16c"}, {"avx512f"},
)  # fmt: skip
"""Instruction sets of which each builds on those before: without one, the compiler drops all
behind it, and every other AVX-512 set, whatever else it was told."""

LanesName = Literal["ifma", "avx512", "avx2"]
VARIABLE: Final = "TOS_ED25519"
LANES_FEATURES: Final[dict[LanesName, frozenset[str]]] = {
    "ifma": AVX512_FEATURES | {"avx512ifma"},
    "avx512": AVX512_FEATURES,
    "avx2": frozenset({"avx2", "fma"}),
}
"""What each kind of lanes for signatures needs, the fastest first."""
LANES_NAMES: Final[tuple[LanesName, ...]] = get_args(LanesName)
assert tuple(LANES_FEATURES) == LANES_NAMES, "every kind has its needs, in the same order"


def cpu_name() -> str:
    """Return LLVM's name of the processor that kernels are compiled for."""
    return str(CONFIG.CPU_NAME or llvmlite.binding.get_host_cpu_name())


def cpu_features() -> frozenset[str]:
    """Return LLVM's names of the instruction sets that kernels are compiled for.

    `NUMBA_CPU_FEATURES` and `NUMBA_CPU_NAME=generic` count, as they do for the compiler. What is
    switched off anywhere in the list is off here, and so is what builds on it.
    """
    named = CONFIG.CPU_FEATURES
    listed = str(get_host_cpu_features() if named is None else named)
    names = [item.strip() for item in listed.split(",")]
    off = {name[1:] for name in names if name.startswith("-")}
    on = {name[1:] for name in names if name.startswith("+")} - off
    is_dropping = False
    for step in _STEPS:
        if is_dropping:
            on -= step
        is_dropping = is_dropping or not off.isdisjoint(step)
    if is_dropping:
        on = {name for name in on if not name.startswith("avx512")}
    return frozenset(on)


def has_avx512() -> bool:
    """Say whether compiled kernels may use 512-bit vectors."""
    return cpu_features() >= AVX512_FEATURES


def missing_features(lanes: LanesName) -> list[str]:
    """Return which instruction sets a kind of lanes lacks: none, where it may be compiled."""
    return sorted(LANES_FEATURES[lanes] - cpu_features())


def choose_lanes(forced: str | None) -> LanesName | None:
    """Return the kind of lanes that kernels have: what was forced if it can run, else the fastest.

    None where no kind can run. A forced name that is none, or cannot run, is an error elsewhere
    (`signatures.choose_path`), not here.
    """
    usable = [name for name in LANES_NAMES if not missing_features(name)]
    if forced in usable:
        return usable[usable.index(forced)]
    return usable[0] if usable else None


LANES: Final = choose_lanes(os.environ.get(VARIABLE))
"""The kind of lanes of this process: what `lanes64` and `field51` were made for when imported."""
