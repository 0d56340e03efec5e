"""Every kernel of the device with the types that it is launched with, and how to compile it.

Nothing here needs a device: Numba makes PTX from the sources, `ptxas` of the CUDA packages makes
machine code for sm_90 and says how many registers it takes and what it spills.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

COMPUTE_CAPABILITY: Final = (9, 0)
SPILL_BYTES_MAX: Final = 64

# One letter per argument: an array of one or (doubled) two dimensions, or a number.
_BYTES, _I32S, _U32S, _U64S = "b", "i", "w", "q"
_COLUMNS: Final = "b b w q q q q"
_WALK: Final = f"{_COLUMNS} qq i w w w qq Q Q Q Q"
_TABLE: Final = "q qq q"
KERNELS: Final = {
    "hashes.hash_all_leaves": "qq L ww w",
    "hashes.hash_leaves": "qq w ww w",
    "hashes.hash_messages": "bb ww",
    "hashes.hash_receipts": "ww b b q w ww",
    "hashes.hash_transactions": f"{_COLUMNS} qq qq qq qq ww",
    "long_lanes.add_costs": "i qq",
    "long_lanes.judge_tiles": f"{_WALK} i i i qq",
    "long_lanes.pay_tiles": f"{_WALK} i i i qq b",
    "long_lanes.walk_long": f"{_WALK} i i qq b q q q",
    "prefix.add_tiles": "w w",
    "prefix.fill_u32": "w W",
    "prefix.sum_tiles": "w w w",
    "settlement.assign_slots": "w w w i L w",
    "settlement.count_words": "q w",
    "settlement.create_accounts": f"{_TABLE} qq w w L qq",
    "settlement.credit_recipients": "qq b w q l Q",
    "settlement.debit_senders": "qq w q q",
    "settlement.flag_first": "w w w",
    "settlement.flag_missing": "b w w q",
    "settlement.list_missing": "w w qq i qq",
    "settlement.mark_changed": "w b w l q",
    "settlement.open_settlement": f"{_TABLE} qq Q L L w qq l q q",
    "settlement.read_changed": "qq w q q L q",
    "settlement.take_words": "q w w w q",
    "signed.gather_signed": f"{_COLUMNS} qq qq qq qq q i qq qq qq",
    "table.claim_keys": "qq q w w",
    "table.clear_records": "qq L L",
    "table.enter_slots": f"{_TABLE} L L",
    "table.find_keys": f"{_TABLE} qq w",
    "table.find_rows": f"{_TABLE} qq i w",
    "table.forget_slots": f"{_TABLE} L L",
    "table.write_keys": "qq qq L",
    "table.write_values": "qq w q q",
    "tree.hash_changed": "ww L L L w L w w",
    "tree.hash_subtrees": "ww L L L ww L ww L L w ww",
    "walks.claim_senders": "w w q",
    "walks.release_senders": "w w",
    "walks.walk_short": f"{_WALK} Q b q q q",
}
"""module.kernel -> types of its arguments, see `_types`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What `ptxas` says of a kernel."""

    registers: int
    spill_bytes: int
    """stores and loads"""
    stack_bytes: int


def missing_packages() -> str:
    """Return why kernels cannot be compiled here, or nothing."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "the packages of the extra [gpu] are not installed (`make venv-gpu`)"
    return ""


def find_ptxas() -> str | None:
    """Return the path of `ptxas`, of the CUDA packages or of the system."""
    for folder in map(Path, sys.path):
        for path in sorted(folder.glob("nvidia/*/bin/ptxas")):
            return str(path)
    return shutil.which("ptxas") or shutil.which("ptxas", path="/usr/local/cuda/bin")


def _types(letters: str) -> tuple[Any, ...]:
    from numba import types

    table = {
        "b": types.uint8[::1], "i": types.int32[::1], "w": types.uint32[::1],
        "q": types.uint64[::1], "l": types.int64[::1],
        "bb": types.uint8[:, ::1], "ww": types.uint32[:, ::1], "qq": types.uint64[:, ::1],
        "L": types.int64, "Q": types.uint64, "W": types.uint32,
    }  # fmt: skip
    return tuple(table[letter] for letter in letters.split())


def kernel_named(name: str) -> Callable[..., Any]:
    """Return the Python function of a kernel in KERNELS."""
    module, function = name.split(".")
    dispatcher = getattr(importlib.import_module(f"kernels.gpu.{module}"), function)
    found: Callable[..., Any] = dispatcher.py_func
    return found


def pretend_device() -> None:
    """Let Numba compile for sm_90 without a device: functions ask for that of the process."""

    class Pretended:
        compute_capability = COMPUTE_CAPABILITY

    for name, module in list(sys.modules.items()):
        if name.startswith("numba.cuda") and hasattr(module, "get_current_device"):
            module.get_current_device = Pretended  # type: ignore[attr-defined]  # as said above


def ptx_of(name: str) -> str:
    """Return the PTX of a kernel."""
    from numba import cuda

    ptx, _ = cuda.compile_ptx(kernel_named(name), _types(KERNELS[name]), cc=COMPUTE_CAPABILITY)
    return str(ptx)


def assemble(ptxas: str, ptx: str, folder: Path) -> Machine:
    """Make machine code for sm_90 from PTX."""
    source = folder / "kernel.ptx"
    source.write_text(ptx)
    done = subprocess.run(
        [ptxas, "-arch=sm_90", "-v", str(source), "-o", str(folder / "kernel.cubin")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def number(pattern: str) -> int:
        return max(map(int, re.findall(pattern, done.stderr)), default=0)

    return Machine(
        registers=number(r"Used (\d+) registers"),
        spill_bytes=number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        stack_bytes=number(r"(\d+) bytes stack frame"),
    )
