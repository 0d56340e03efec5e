"""Opening a device: what is there, or why there is none.

`open_gpu` makes a backend, `open_device` the device alone, for those who verify signatures on it.
"""

import importlib.util
from collections.abc import Callable
from typing import Final

from numba import cuda

from kernels.backend import DeviceSettings, DeviceUnavailable
from kernels.gpu.backend import GpuBackend
from kernels.gpu.device import Device
from kernels.gpu.ed25519 import DeviceVerifier
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.grid import SIMULATED
from kernels.gpu.refusals import refusals
from kernels.host import HostBackend

REASON_LENGTH_MAX: Final = 200
"""Of what CUDA's packages say of a library that they do not find: they list whole folders."""


def open_gpu(
    settings: DeviceSettings, threads: int | None, known_keys: int, tell: Callable[[str], None]
) -> GpuBackend:
    """Open the first device.

    Raises DeviceUnavailable with what is missing, VerdictDiffers for a device that judges a
    published signature otherwise than the specification.
    """
    device = open_device(settings)
    # The verifier first: accounts take what it leaves.
    verifier = None if SIMULATED else DeviceVerifier(device)
    host = HostBackend("serial", 1) if SIMULATED else HostBackend("cpu", threads, known_keys)
    return GpuBackend(host, device, settings, tell, verifier)


def open_device(settings: DeviceSettings) -> Device:
    """Return the first device; raises DeviceUnavailable with what is missing."""
    require_packages()
    if SIMULATED and not settings.is_simulator_allowed:
        raise DeviceUnavailable("NUMBA_ENABLE_CUDASIM is set: the simulator is no device; unset it")
    if not _is_available():
        raise DeviceUnavailable(f"no GPU: {_reason()}; use the backend 'cpu'")
    try:
        return Device(settings.memory_bytes_max)
    except DeviceFailed as error:
        raise DeviceUnavailable(f"the GPU cannot be used: {error}") from error


def require_packages() -> None:
    """Raise DeviceUnavailable where nothing can compile for a device."""
    if not SIMULATED and importlib.util.find_spec("numba_cuda") is None:
        raise DeviceUnavailable(
            "the packages for a GPU are not installed: type `make venv-gpu`, or use the backend"
            " 'cpu'"
        )


def _is_available() -> bool:
    """Say whether there is a device; raises DeviceUnavailable for CUDA without its compiler."""
    try:
        with refusals("no library of CUDA to compile kernels with"):
            return bool(cuda.is_available())
    except DeviceFailed as error:
        what = " ".join(str(error).split())[:REASON_LENGTH_MAX]
        raise DeviceUnavailable(
            f"{what}; install what the extra [gpu] names (`make venv-gpu`), or say in CUDA_HOME"
            " where a toolkit of CUDA 13 lies"
        ) from error


def _reason() -> str:
    """Return why Numba finds no device, in one line."""
    error = cuda.cuda_error()
    return "no device was found" if error is None else " ".join(str(error).split())
