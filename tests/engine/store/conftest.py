"""One backend for all tests of the store."""

from collections.abc import Iterator

import pytest

from kernels.backend import Backend, open_backend


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    """Open the vectorised arm with one thread."""
    opened = open_backend("cpu", 1)
    yield opened
    opened.close()
