"""What Numba and NVIDIA's packages raise where a device refuses becomes one kind of error."""

import contextlib
from collections.abc import Iterator
from typing import Final

from numba.cuda.cudadrv.driver import CudaAPIError
from numba.cuda.cudadrv.error import CudaSupportError

from kernels.gpu.failures import DeviceFailed

FAILURES: Final = (CudaAPIError, CudaSupportError, MemoryError)
"""What Numba raises where the driver refuses something; besides, what NVIDIA's packages raise."""
_NVIDIA: Final = "cuda."
"""Their modules. The kinds of errors have no public place that all versions share."""


@contextlib.contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what Numba raises for the driver into DeviceFailed."""
    try:
        yield
    except Exception as error:
        if isinstance(error, FAILURES) or type(error).__module__.startswith(_NVIDIA):
            raise DeviceFailed(f"{what}: {error}") from error
        raise
