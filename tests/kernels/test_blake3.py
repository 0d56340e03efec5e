"""BLAKE3 against its authors' vectors and against the `blake3` package, in all three modes."""

import json
from pathlib import Path

import blake3 as package
import numpy as np
import pytest

from kernels import blake3, blake3_wide
from kernels.blake3_vectors import WIDTH
from kernels.layout import U8

CONTEXT = "BLAKE3 2019-12-27 16:29:52 test vectors context"
KEY = b" ".join((b"what" + b"s", b"the Elvish word for friend"))  # spelt as the vectors spell it
LONG = (*range(1023, 8200, 511), 16384, 16385, 31744, 102400, 262144)
"""Lengths of several chunks: complete and incomplete last ones, trees of many shapes."""


def modes() -> dict[str, tuple[bytes | None, int]]:
    """Return the key and the flags of each mode."""
    derived = blake3.context_key(CONTEXT)
    return {
        "hash": (None, blake3.PLAIN),
        "keyed_hash": (KEY, blake3.KEYED),
        "derive_key": (derived, blake3.DERIVE),
    }


def digests(kernel: object, rows: U8, mode: str) -> list[bytes]:
    """Hash rows with one kernel in one mode."""
    key, flags = modes()[mode]
    out = np.zeros((len(rows), 32), np.uint8)
    rows = rows.view()
    rows.flags.writeable = False
    assert callable(kernel)
    kernel(rows, blake3.key_words(key), flags, out, 0, len(rows))
    return [row.tobytes() for row in out]


def expected(rows: U8, mode: str) -> list[bytes]:
    """Hash rows with the package."""

    def hash_one(message: bytes) -> bytes:
        if mode == "keyed_hash":
            return package.blake3(message, key=KEY).digest()
        if mode == "derive_key":
            return package.blake3(message, derive_key_context=CONTEXT).digest()
        return package.blake3(message).digest()

    return [hash_one(row.tobytes()) for row in rows]


KERNELS = (blake3.hash_rows_scalar, blake3_wide.hash_rows_wide)


@pytest.mark.parametrize("mode", ["hash", "keyed_hash", "derive_key"])
def test_the_authors_vectors(shared: Path, mode: str) -> None:
    """Every published case, 0 to 102,400 bytes, has its published digest."""
    published = json.loads((shared / "vectors" / "blake3.json").read_text())
    assert published["key"].encode() == KEY
    assert published["context_string"] == CONTEXT
    assert len(published["cases"]) == 35
    for case in published["cases"]:
        row = (np.arange(case["input_len"]) % 251).astype(np.uint8).reshape(1, -1)
        for kernel in KERNELS:
            assert digests(kernel, row, mode)[0].hex() == case[mode][:64]


@pytest.mark.parametrize("mode", ["hash", "keyed_hash", "derive_key"])
def test_every_length_to_4096(rng: np.random.Generator, mode: str) -> None:
    """Messages of 0 to 4,096 bytes hash as the package does; groups are full and not full."""
    data = rng.integers(0, 256, (WIDTH + 3, 4096), np.uint8)
    for length in range(4097):
        rows = np.ascontiguousarray(data[: 1 + length % len(data), :length])
        wanted = expected(rows, mode)
        assert digests(blake3_wide.hash_rows_wide, rows, mode) == wanted, length
        assert digests(blake3.hash_rows_scalar, rows[:1], mode) == wanted[:1], length


@pytest.mark.parametrize("length", LONG)
def test_long_messages(rng: np.random.Generator, length: int) -> None:
    """Messages of many chunks hash as the package does."""
    rows = rng.integers(0, 256, (2, length), np.uint8)
    for mode in modes():
        for kernel in KERNELS:
            assert digests(kernel, rows, mode) == expected(rows, mode)


def test_parts_of_a_batch() -> None:
    """A range of rows is hashed and nothing outside of it is written."""
    rows = np.arange(40 * 70, dtype=np.uint64).astype(np.uint8).reshape(40, 70)
    rows.flags.writeable = False
    wanted = expected(rows, "hash")
    for kernel in KERNELS:
        for start, stop in ((0, 0), (0, 1), (3, 20), (7, 40), (39, 40)):
            out = np.full((40, 32), 7, np.uint8)
            kernel(rows, blake3.key_words(None), blake3.PLAIN, out, start, stop)
            for index, row in enumerate(out):
                inside = start <= index < stop
                assert row.tobytes() == (wanted[index] if inside else b"\x07" * 32)


def test_a_key_has_32_bytes() -> None:
    """Another length is refused."""
    with pytest.raises(ValueError, match="32 bytes"):
        blake3.key_words(b"short")
