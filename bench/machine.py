"""What a figure was measured on: without it, a figure is worth nothing."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

FEATURES = ("avx2", "avx512f", "avx512ifma", "sha_ni", "vaes")
"""CPU features that kernels or libraries choose by."""
LIBRARIES = ("numpy", "numba", "llvmlite", "pyarrow", "pynacl", "blake3")
MEMORY_TYPES = ("tmpfs", "ramfs")
"""File systems on which fdatasync waits for nothing."""


def describe(directory: Path, device: str | None = None) -> dict[str, Any]:
    """Return the machine, the commit and the libraries, as JSON values; to be asked before a run.

    Afterwards `load` is the run's own, and the commit may be another one. `directory` is where
    blocks are written to; `device` names the accelerator, if one is used.
    """
    model, flags = _cpu()
    return {
        "commit": commit(),
        "cpu": model,
        "features": [name for name in FEATURES if name in flags],
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": _kibibytes(Path("/proc/meminfo"), "MemTotal"),
        "load": round(os.getloadavg()[0], 2),
        "file_system": file_system(directory),
        "device": device,
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def describe_text(machine: dict[str, Any]) -> str:
    """Return the machine in three lines for a reader."""
    libraries = " ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    device = f", {machine['device']}" if machine["device"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores ({' '.join(machine['features'])}), "
        f"{machine['memory_bytes'] / 2**30:.1f} GiB{device}, load {machine['load']} at the start\n"
        f"commit {machine['commit']}, written to {machine['file_system']}\n"
        f"Python {machine['python']}, {libraries}"
    )


def commit() -> str:
    """Return the commit of the repository, `+` behind it if files differ, or `unknown`."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def file_system(directory: Path) -> str:
    """Return the type of the file system that holds `directory` (Linux), or `unknown`."""
    path = str(directory.resolve())
    best, kind = "", "unknown"
    for line in _lines(Path("/proc/self/mounts")):
        _, mount, name, *_ = line.split(" ")
        is_above = path == mount or path.startswith(mount.rstrip("/") + "/")
        if is_above and len(mount) >= len(best):
            best, kind = mount, name
    return kind


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process since `reset_peak_memory`."""
    return _kibibytes(Path("/proc/self/status"), "VmHWM")


def reset_peak_memory() -> bool:
    """Let the peak begin at the present size; False where the kernel does not offer it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _cpu() -> tuple[str, set[str]]:
    model, flags = platform.machine(), set[str]()
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() == "flags":
            flags = set(value.split())
            break
    return model, flags


def _kibibytes(path: Path, name: str) -> int:
    for line in _lines(path):
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()
