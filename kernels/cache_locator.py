"""Where in the folder of compiled code a kernel's own lies: the same place for every checkout.

Numba names that place after the absolute path of the source. The folder itself is already named
after everything that the code depends on (`jit.cache_key`), so with a path in it a second checkout
of the same sources would find the folder marked as complete and compile everything once more, in
its first blocks.
"""

from pathlib import Path
from typing import Any, Final

from numba.core import caching

KERNELS: Final = Path(__file__).parent


class KernelLocator(caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """Locates the code of functions below `kernels/`, whose text the folder's name stands for."""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        """Return a locator, or None for other functions: their place is Numba's business.

        Of those, such as a test's, the folder's name says nothing, so checkouts keep them apart.
        """
        if not Path(py_file).is_relative_to(KERNELS):
            return None
        return super().from_function(py_func, py_file)  # type: ignore[no-untyped-call]

    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """Return "kernels", or "kernels_" and the folders in it that the source lies in."""
        folder = Path(py_file).parent.relative_to(KERNELS.parent)
        return "_".join(folder.parts)


LOCATORS: Final = ",".join(
    [
        f"{KernelLocator.__module__}.{KernelLocator.__qualname__}",
        *("UserProvidedCacheLocator", "IPythonCacheLocator", "ZipCacheLocator"),
    ]
)
"""For `NUMBA_CACHE_LOCATOR_CLASSES`: ours, then Numba's that obey or need no folder's name."""
