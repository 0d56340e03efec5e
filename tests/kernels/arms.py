"""The host's arms for the tests of kernels, and random transactions for them."""

from collections.abc import Iterator

import numpy as np
import pytest

from kernels.backend import Backend, open_backend
from kernels.layout import Columns


@pytest.fixture(scope="module")
def backends() -> Iterator[list[Backend]]:
    """Open every arm that runs on a host: scalar, vectors, vectors on two threads."""
    opened = [open_backend("serial"), open_backend("cpu", 1), open_backend("cpu", 2)]
    yield opened
    for backend in opened:
        backend.close()


def random_columns(rng: np.random.Generator, count: int) -> Columns:
    """Return transactions of random bytes in every field."""
    words = [rng.integers(0, 2**64, count, np.uint64) for _ in range(4)]
    octets = [rng.integers(0, 256, (count, width), np.uint8) for width in (16, 32, 32, 64)]
    small = [rng.integers(0, 256, count, np.uint8) for _ in range(2)]
    return Columns(*small, rng.integers(0, 2**32, count, np.uint32), *words, *octets)
