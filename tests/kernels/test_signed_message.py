"""What transactions sign, from columns, against the specification's records."""

import numpy as np
import pytest

from engine.columns import signed_messages, to_records
from kernels.backend import open_backend
from kernels.host import HostBackend
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from tests.kernels.arms import random_columns

DOMAIN = bytes(range(100, 132))


@pytest.mark.parametrize("count", [0, 1, 7, 40_000])
def test_messages_are_domain_and_record(rng: np.random.Generator, count: int) -> None:
    """Each chosen row has the domain and the first 128 bytes of its record, on any threads."""
    columns = random_columns(rng, count)
    rows = np.flatnonzero(rng.random(count) < 0.7).astype(np.int32)
    expected = signed_messages(columns, DOMAIN)[rows]
    assert (expected[:, 32:] == to_records(columns)[rows, :128]).all()
    for name in ("serial", "cpu"):
        backend = open_backend(name)
        assert isinstance(backend, HostBackend)
        messages = backend.signed_messages(columns, rows, DOMAIN)
        backend.close()
        assert messages.dtype == np.uint8
        assert np.array_equal(messages, expected)


def test_verdicts_are_those_of_the_rows(rng: np.random.Generator) -> None:
    """All transactions, or some of them, get the verdict that their own signature deserves."""
    count = 200
    seeds = rng.integers(0, 256, (count, 32), np.uint8)
    columns = random_columns(rng, count)._replace(sender=insecure_public_keys(seeds))
    signatures = insecure_sign(seeds, columns.sender, signed_messages(columns, DOMAIN))
    is_valid = rng.random(count) < 0.5
    signatures[~is_valid, 5] ^= np.uint8(4)
    columns = columns._replace(signature=signatures)
    backend = open_backend("cpu")
    every = np.arange(count, dtype=np.int32)
    for rows in (every, every[::3].copy(), every[:0]):
        verdicts = backend.verify_transactions(columns, rows, DOMAIN)
        assert verdicts.astype(np.bool_).tolist() == is_valid[rows].tolist()
    other = backend.verify_transactions(columns, every, bytes(32))
    assert not other.any(), "another chain's signatures are worth nothing"
    backend.close()
