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
    return Columns(
        version=rng.integers(0, 256, count, np.uint8),
        kind=rng.integers(0, 256, count, np.uint8),
        chain_id=rng.integers(0, 2**32, count, np.uint32),
        nonce=rng.integers(0, 2**64, count, np.uint64),
        valid_until=rng.integers(0, 2**64, count, np.uint64),
        amount=rng.integers(0, 2**64, count, np.uint64),
        fee=rng.integers(0, 2**64, count, np.uint64),
        memo=rng.integers(0, 256, (count, 16), np.uint8),
        sender=rng.integers(0, 256, (count, 32), np.uint8),
        recipient=rng.integers(0, 256, (count, 32), np.uint8),
        signature=rng.integers(0, 256, (count, 64), np.uint8),
    )
