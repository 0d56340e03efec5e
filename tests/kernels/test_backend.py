"""The backend's contract on every arm: equal bits, odd shapes, read-only and strided arrays."""

import subprocess
import sys
from typing import Any

import blake3
import numpy as np
import pytest
from nacl.signing import SigningKey

from bench.machine import REPOSITORY
from kernels import receipt_hash, transaction_hash
from kernels.backend import Backend, DeviceUnavailable, open_backend
from spec import oracle
from tests.kernels.arms import backends, random_columns

__all__ = ["backends"]

KEY = bytes(range(32))


def test_names_and_threads() -> None:
    """A backend has the threads that were asked for; wrong names and counts are refused."""
    for name, threads, got in (("serial", None, 1), ("cpu", 3, 3)):
        backend = open_backend(name, threads)  # type: ignore[arg-type]  # a loop over names
        assert (backend.name, backend.threads) == (name, got)
        backend.close()
    with pytest.raises(ValueError, match="serial, cpu or gpu"):
        open_backend("tpu")  # type: ignore[arg-type]  # what a person may type
    with pytest.raises(ValueError, match="threads must be"):
        open_backend("cpu", 0)


def test_a_missing_device_says_so() -> None:
    """Without a usable device "gpu" raises DeviceUnavailable, with what to do instead."""
    try:
        open_backend("gpu").close()
    except DeviceUnavailable as error:
        said = str(error)
    else:
        pytest.skip("this machine has a device")
    assert "use the backend 'cpu'" in said


def test_nothing_of_a_device_is_loaded_on_a_cpu() -> None:
    """A process that executes on the CPU imports no kernel of a device and none of its packages."""
    program = (
        "import sys; import engine.service, engine.doctor, bench.arms\n"
        "from kernels.backend import open_backend; open_backend('cpu', 1).close()\n"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "kernels.host" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("cupy", "cuda", "numba_cuda")]
    assert not [name for name in loaded if name.startswith("kernels.gpu")]


@pytest.mark.parametrize(
    "shape", [(0, 0), (0, 64), (1, 0), (40, 0), (33, 64), (5000, 31), (3, 5000)]
)
def test_messages(
    backends: list[Backend], rng: np.random.Generator, shape: tuple[int, int]
) -> None:
    """Batches of any shape hash to the plain BLAKE3 of each row; strided input is the same."""
    messages = rng.integers(0, 256, shape, np.uint8)
    expected = [blake3.blake3(row.tobytes()).digest() for row in messages]
    strided = np.zeros((shape[0], 2 * shape[1]), np.uint8)
    strided[:, ::2] = messages
    messages.flags.writeable = False
    for backend in backends:
        for given in (messages, strided[:, ::2]):
            hashed = backend.hash_messages(given)
            assert hashed.shape == (shape[0], 32)
            assert [row.tobytes() for row in hashed] == expected


def test_messages_of_another_type_are_refused(backends: list[Backend]) -> None:
    """Only rows of bytes are messages."""
    wrong: list[Any] = [np.zeros(3, np.uint8), np.zeros((3, 3), np.uint32)]
    for array in wrong:
        with pytest.raises(ValueError, match="messages must be"):
            backends[1].hash_messages(array)


@pytest.mark.parametrize("count", [1, 7, 16, 17, 45])
def test_transactions_and_receipts(
    backends: list[Backend], rng: np.random.Generator, count: int
) -> None:
    """Hashes of records and of receipts equal the oracle's for random bytes in every field."""
    columns = random_columns(rng, count)
    statuses = rng.integers(0, 3, count, np.uint8)
    made = [
        oracle.Transaction(
            **{
                name: value.tobytes() if isinstance(value, np.ndarray) else int(value)
                for name, value in zip(columns._fields, row, strict=True)
            }
        )
        for row in zip(*columns, strict=True)
    ]
    hashes = [oracle.transaction_hash(t) for t in made]
    leaves = [
        oracle.keyed(KEY, oracle.receipt(t, int(status)))
        for t, status in zip(made, statuses, strict=True)
    ]
    for backend in backends:
        hashed = backend.hash_transactions(columns)
        assert [row.tobytes() for row in hashed] == hashes
        receipts = backend.hash_receipts(hashed, statuses, columns.kind, columns.fee, KEY)
        assert [row.tobytes() for row in receipts] == leaves


def test_large_batches_are_the_same_on_every_arm(
    backends: list[Backend], rng: np.random.Generator
) -> None:
    """Beyond the size at which threads are used all arms give the same bits."""
    columns = random_columns(rng, 5000)
    statuses = rng.integers(0, 3, 5000, np.uint8)
    results = []
    for backend in backends:
        hashed = backend.hash_transactions(columns)
        receipts = backend.hash_receipts(hashed, statuses, columns.kind, columns.fee, KEY)
        root = backend.list_root(receipts, KEY, bytes(32))
        results.append((hashed.tobytes(), receipts.tobytes(), root))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("count", [*range(20), 31, 32, 33, 511, 512, 513, 1025, 2049])
def test_roots_of_lists(backends: list[Backend], rng: np.random.Generator, count: int) -> None:
    """Roots of lists equal the specification's, also of none and of one leaf."""
    leaves = rng.integers(0, 256, (count, 32), np.uint8)
    expected = oracle.merkle_root([leaf.tobytes() for leaf in leaves], KEY, b"\x09" * 32)
    for backend in backends:
        assert backend.list_root(leaves, KEY, b"\x09" * 32) == expected


def test_leaves_of_another_shape_are_refused(backends: list[Backend]) -> None:
    """Leaves are rows of 32 bytes."""
    with pytest.raises(ValueError, match="leaves must be"):
        backends[1].list_root(np.zeros((3, 31), np.uint8), KEY, bytes(32))


def test_signatures(backends: list[Backend]) -> None:
    """Good signatures pass and changed ones fail, row by row; other shapes are refused."""
    signer = SigningKey(KEY)
    messages = np.arange(40 * 9, dtype=np.uint64).astype(np.uint8).reshape(40, 9)
    signatures = np.array(
        [list(signer.sign(message.tobytes()).signature) for message in messages], np.uint8
    )
    keys = np.tile(np.frombuffer(bytes(signer.verify_key), np.uint8), (40, 1))
    signatures[7, 40] ^= 1
    messages[20, 0] ^= 128
    keys[33, 5] ^= 4
    for array in (keys, signatures, messages):
        array.flags.writeable = False
    for backend in backends:
        verdicts = backend.verify_signatures(keys, signatures, messages)
        assert verdicts.dtype == np.bool_
        assert np.flatnonzero(~verdicts).tolist() == [7, 20, 33]
        assert len(backend.verify_signatures(keys[:0], signatures[:0], messages[:0])) == 0
        with pytest.raises(ValueError, match="signatures must be"):
            backend.verify_signatures(keys, signatures[:, :63], messages)


def moved(array: Any) -> Any:
    """Return a copy that begins at an odd address, as columns of a stranger's buffer may."""
    copy = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_arrays_at_odd_addresses_compile_nothing_more(rng: np.random.Generator) -> None:
    """Kernels are compiled for aligned arrays alone; others are copied before they get there."""
    columns = random_columns(rng, 33)
    odd = type(columns)(*(moved(column) for column in columns))
    assert not odd.nonce.flags.aligned
    kernels: list[Any] = [
        transaction_hash.hash_transactions_scalar, transaction_hash.hash_transactions_wide,
        receipt_hash.hash_receipts_scalar, receipt_hash.hash_receipts_wide,
    ]  # fmt: skip
    hashes, statuses = rng.integers(0, 256, (33, 32), np.uint8), np.zeros(33, np.uint8)
    for name in ("serial", "cpu"):
        backend = open_backend(name, 1)
        try:
            expected = backend.hash_transactions(columns)
            receipts = backend.hash_receipts(hashes, statuses, statuses, columns.fee, KEY)
            forms = [len(kernel.signatures) for kernel in kernels]
            assert (backend.hash_transactions(odd) == expected).all()
            again = backend.hash_receipts(hashes, statuses, statuses, odd.fee, KEY)
            assert (again == receipts).all()
            assert [len(kernel.signatures) for kernel in kernels] == forms
        finally:
            backend.close()
