"""The pool's file comes back as it was written, or is refused with a reason."""

from pathlib import Path

import numpy as np
import pytest

from engine.pool_file import PoolFileRefused, read_pool, remove_pool, write_pool
from tests.engine.batches import random_records

GENESIS = bytes(range(32))
MOST = 100


def test_what_is_written_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    """Any number of records; a second file replaces the first; removed, there is nothing."""
    path = tmp_path / "pool"
    assert len(read_pool(path, GENESIS, MOST)) == 0
    for count in (0, 1, 57, MOST):
        records = random_records(rng, count)
        write_pool(path, GENESIS, records)
        assert read_pool(path, GENESIS, MOST).tobytes() == records.tobytes()
        assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["pool"]
    remove_pool(path)
    remove_pool(path)
    assert len(read_pool(path, GENESIS, MOST)) == 0


def test_every_flipped_byte_is_found(tmp_path: Path, rng: np.random.Generator) -> None:
    """A byte that differs anywhere, a cut, something behind, another chain, too many: refused."""
    path = tmp_path / "pool"
    write_pool(path, GENESIS, random_records(rng, 2))
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(PoolFileRefused):
            read_pool(path, GENESIS, MOST)
    for bad in (good[:-1], good + b"\0", good[:50], b""):
        path.write_bytes(bad)
        with pytest.raises(PoolFileRefused):
            read_pool(path, GENESIS, MOST)
    path.write_bytes(good)
    with pytest.raises(PoolFileRefused, match="another chain"):
        read_pool(path, bytes(32), MOST)
    with pytest.raises(PoolFileRefused, match="at most"):
        read_pool(path, GENESIS, 1)
