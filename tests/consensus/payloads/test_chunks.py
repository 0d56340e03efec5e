"""Chunks and their proofs against the specification's oracle."""

import numpy as np
import pytest

from consensus.payloads import chunks
from spec import oracle

LENGTHS = (0, 1, 64, 128, 262_143, 262_144, 262_145, 786_432, 786_433, 5 * 262_144 + 7)


@pytest.mark.parametrize("length", LENGTHS)
def test_the_commitment_is_the_specification_s(length: int, rng: np.random.Generator) -> None:
    """A tree has the oracle's commitment, and every chunk its proof, at every number of chunks."""
    payload = rng.bytes(length)
    tree = chunks.tree_of(payload)
    assert tree.commitment == oracle.payload_commitment(payload)
    for index in range(chunks.chunk_count(length)):
        start = index * chunks.CHUNK_BYTES
        data = payload[start : start + chunks.CHUNK_BYTES]
        assert len(data) == chunks.chunk_bytes(length, index)
        leaf = chunks.leaf_of(data)
        path = tree.path(index)
        assert chunks.is_proved(
            commitment=tree.commitment, payload_bytes=length, index=index, path=path, leaf=leaf
        )


def test_nothing_else_is_proved(rng: np.random.Generator) -> None:
    """No other place, length, path, leaf or commitment proves a chunk."""
    payload = rng.bytes(5 * chunks.CHUNK_BYTES)
    tree = chunks.tree_of(payload)
    leaf = chunks.leaf_of(payload[2 * chunks.CHUNK_BYTES : 3 * chunks.CHUNK_BYTES])
    path = tree.path(2)

    def proved(**changed: object) -> bool:
        said: dict[str, object] = {
            "commitment": tree.commitment,
            "payload_bytes": len(payload),
            "index": 2,
            "path": path,
            "leaf": leaf,
        }
        return chunks.is_proved(**{**said, **changed})  # type: ignore[arg-type]  # one varies

    assert proved()
    for index in (0, 1, 3, 4, 5, 6, 7, 8, -1, 2**32):
        assert not proved(index=index)
    for length in (0, 5 * chunks.CHUNK_BYTES - 1, 6 * chunks.CHUNK_BYTES, 8 * chunks.CHUNK_BYTES):
        assert not proved(payload_bytes=length)
    for place in range(len(path)):
        wrong = path[:place] + bytes((path[place] ^ 4,)) + path[place + 1 :]
        assert not proved(path=wrong)
    assert not proved(path=path[:-32])
    assert not proved(path=path + bytes(32))
    assert not proved(leaf=chunks.leaf_of(payload[: chunks.CHUNK_BYTES]))
    assert not proved(commitment=bytes(32))
