"""What the driver refuses becomes one kind of error, and a device that is lost one message."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

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
        if not _is_refusal(error):
            raise
        CLEANUP.stop_if_lost()
        raise DeviceFailed(f"{what}: {error}") from error


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, FAILURES) or type(error).__module__.startswith(_NVIDIA)


class Cleanup:
    """Whether Numba gives memory and code back to the device when nobody names them any more.

    A device that is lost refuses each piece, and Numba's finalizers write a traceback for each, on
    stderr, around the one message that says what happened. What is left there goes with the
    process: after a loss nothing is given back.
    """

    def __init__(self) -> None:
        """Begin without a device."""
        self._lock = threading.Lock()
        self._context: Any = None
        self._deferred = contextlib.ExitStack()

    def begin(self, context: Any) -> None:
        """Watch the context of a device that is well, and give back what was left in it before."""
        with self._lock:
            self._deferred.close()
            self._context = context

    def stop_if_lost(self) -> None:
        """Give nothing back any more if the device refuses even to say how much memory it has."""
        with self._lock:
            if self._context is None:
                return
            try:
                self._context.get_memory_info()
            except Exception as error:
                if not _is_refusal(error):
                    raise
                self._deferred.enter_context(self._context.defer_cleanup())
                self._context = None


CLEANUP: Final = Cleanup()
