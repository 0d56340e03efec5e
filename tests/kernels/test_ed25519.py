"""Claims about verification: every path gives libsodium's and the specification's verdict."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spec.oracle
from kernels import ed25519, signatures
from kernels.curve25519 import AFFINE_ROW_BYTES
from kernels.ed25519_lanes import BASE_ENTRIES
from kernels.groups25519 import GROUPS_MAX
from kernels.host import HostBackend
from kernels.lanes64 import WIDTH
from kernels.layout import U8
from kernels.memory import zeros
from kernels.processor import LANES
from tests.kernels.elements import ROUNDING_MODES, rounding
from tests.kernels.forgeries import (
    S_EDGES,
    Case,
    as_rows,
    corrupted,
    libsodium,
    mixed_torsion,
    odd_encodings,
    signed_rows,
)

oracle: Any = spec.oracle
PATHS = [name for name in (LANES, "libsodium") if name is not None]
RFC_8032: tuple[tuple[str, str, str], ...] = (
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b4"
        "6bd25bf5f0595bbe24655141438e7a100b",
        "",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d"
        "8c387b2eaeb4302aeeb00d291612bb0c00",
        "72",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6"
        "594a7c15e9716ed28dc027beceea1ec40a",
        "af82",
    ),
)
"""Public key, signature and message of RFC 8032, 7.1, tests 1 to 3."""


@pytest.fixture(params=[(path, threads) for path in PATHS for threads in (1, 2)], ids=str)
def verifier(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return a backend of one path and thread count."""
    path, threads = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(signatures.VARIABLE, path)
        backend = HostBackend("cpu", threads)
    yield backend.verify_signatures
    backend.close()


def by_length(cases: list[Case]) -> list[list[Case]]:
    """Return cases grouped by the length of their messages."""
    lengths = sorted({len(case[2]) for case in cases})
    return [[case for case in cases if len(case[2]) == length] for length in lengths]


def check(verifier: Any, cases: list[Case], *, oracle_too: bool = True) -> list[bool]:
    """Judge cases in one batch per length, each at least twice; return verdicts of all."""
    answer = []
    for group in by_length(cases):
        verdicts: list[bool] = verifier(*as_rows(group + group))[: len(group)].tolist()
        assert verdicts == libsodium(as_rows(group))
        if oracle_too:
            assert verdicts == [oracle.is_valid_signature(*case) for case in group]
        answer += verdicts
    return answer


def test_wycheproof(verifier: Any, shared: Path) -> None:
    """All vectors of Wycheproof; those whose signature is not 64 bytes cannot be asked about."""
    read = json.loads((shared / "vectors" / "wycheproof_ed25519.json").read_text())
    cases, expected, short = [], [], 0
    for group in read["testGroups"]:
        for test in group["tests"]:
            signature, message = bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
            if len(signature) != 64:
                assert test["result"] == "invalid"
                short += 1
                continue
            cases.append((bytes.fromhex(group["publicKey"]["pk"]), signature, message))
            expected.append(test["result"] == "valid")
    assert len(cases) + short == read["numberOfTests"] == 151
    by_case = dict(zip(cases, expected, strict=True))
    ordered = [case for group in by_length(cases) for case in group]
    assert check(verifier, cases, oracle_too=False) == [by_case[case] for case in ordered]


def test_rfc_8032(verifier: Any) -> None:
    """The vectors of the RFC are valid, and not with another's signature."""
    cases = [tuple(bytes.fromhex(part) for part in row) for row in RFC_8032]
    assert check(verifier, cases) == [True] * 3  # type: ignore[arg-type]
    first, second = cases[0], cases[1]
    assert check(verifier, [(first[0], second[1], second[2])]) == [False]


def test_mixed_torsion(verifier: Any, seed: int) -> None:
    """A and R with all pairs of the eight torsion points: some are valid, most are not."""
    verdicts = check(verifier, list(mixed_torsion(random.Random(seed), 2)))
    assert True in verdicts
    assert False in verdicts


def test_odd_encodings(verifier: Any, seed: int) -> None:
    """Small-order and non-canonical A and R are refused, with any S."""
    cases = list(odd_encodings(random.Random(seed)))
    few = cases[:: len(cases) // 60]
    assert True not in check(verifier, few)
    assert True not in check(verifier, cases, oracle_too=False)


def test_s_at_its_edges(verifier: Any, seed: int) -> None:
    """S of the edges in place of the right one, and the right one plus L, are refused."""
    rng = np.random.default_rng(seed)
    keys, signed, messages = (array.tobytes() for array in signed_rows(rng, 1, 32))
    s = int.from_bytes(signed[32:], "little")
    tried = [s, *S_EDGES, s + oracle.ED_L, s ^ 1]
    cases = [(keys, signed[:32] + oracle.uint(value, 32), messages) for value in tried]
    assert check(verifier, cases) == [True] + [False] * (len(tried) - 1)


def test_refused_rows_spoil_no_others(
    verifier: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are refused early share lanes, groups and inversions with valid ones.

    Behind the table of the base point stand zeros here: a row read from there would be no point,
    its Z zero, and with it the inverse of every Z of its lane.
    """
    tables = ed25519.tables()
    longer = zeros(len(tables) + (256 - BASE_ENTRIES) * AFFINE_ROW_BYTES // 8, np.uint64)
    longer[: len(tables)] = tables
    monkeypatch.setattr(ed25519, "tables", lambda: longer)
    rng = random.Random(seed)
    valid = signed_rows(np.random.default_rng(seed), 8, 32)
    odd = [*list(odd_encodings(rng))[::7], *mixed_torsion(rng, 1)]
    good = [tuple(column[i].tobytes() for column in valid) for i in range(8)]
    odd += [
        (key, signed[:32] + oracle.uint(s, 32), message)
        for key, signed, message in good
        for s in S_EDGES
    ]
    odd += [(key[:31] + b"\xff", signed, message) for key, signed, message in good]
    cases: list[Any] = []
    for start in range(0, len(odd), WIDTH):
        cases += odd[start : start + WIDTH] + good
    rows = as_rows(cases)
    verdicts = verifier(*rows).tolist()
    assert verdicts == libsodium(rows)
    assert sum(verdicts) >= len(cases) // 2 - WIDTH


@pytest.mark.parametrize("lengths", [(0, 1, 47, 48, 63, 64, 65, 127, 128, 160, 176, 192, 1024)])
def test_message_lengths(verifier: Any, lengths: tuple[int, ...], rng: np.random.Generator) -> None:
    """Messages whose padded rows end at every kind of place."""
    for length in lengths:
        rows, _ = corrupted(rng, signed_rows(rng, 20, length), 2)
        assert verifier(*rows).tolist() == libsodium(rows)


def test_batch_sizes(verifier: Any, rng: np.random.Generator) -> None:
    """Sizes around groups and chunks: one bad signature at each place is found, and only it."""
    rows = signed_rows(rng, 130, 160)
    for size in (1, 2, 7, 8, 9, 40):
        one_bad_everywhere(verifier, rows, size, range(size))
    edge = GROUPS_MAX * WIDTH
    for size in (edge - 1, edge, edge + 1, 130):
        one_bad_everywhere(verifier, rows, size, (0, size // 2, size - 1))


def one_bad_everywhere(verifier: Any, rows: tuple[U8, U8, U8], size: int, places: Any) -> None:
    """Judge the first `size` rows once for each place, with a bad signature there."""
    for place in places:
        part = [array[:size].copy() for array in rows]
        part[1][place, 40] ^= 1
        verdicts = verifier(*part)
        assert not verdicts[place]
        assert verdicts.sum() == size - 1


def test_random_and_corrupted(verifier: Any, rng: np.random.Generator) -> None:
    """Random valid and corrupted signatures: exactly the untouched ones are valid."""
    rows, bad = corrupted(rng, signed_rows(rng, 1500, 160), 2)
    assert verifier(*rows).tolist() == (~bad).tolist()


@pytest.mark.parametrize("mode", ROUNDING_MODES)
def test_rounding_modes(verifier: Any, mode: str, rng: np.random.Generator) -> None:
    """How a process rounds floating-point numbers changes no verdict."""
    rows, bad = corrupted(rng, signed_rows(rng, 200, 160), 2)
    with rounding(mode):
        verdicts = verifier(*rows)
    assert verdicts.tolist() == (~bad).tolist()


def test_no_signatures(verifier: Any) -> None:
    """An empty batch has no verdicts."""
    rows = [np.empty((0, width), np.uint8) for width in (32, 64, 160)]
    assert verifier(*rows).shape == (0,)


def test_wrong_shapes_are_refused(verifier: Any) -> None:
    """Rows of another width are a mistake of the caller, named as such."""
    rows = [np.zeros((3, width), np.uint8) for width in (32, 63, 160)]
    with pytest.raises(ValueError, match="signatures must be"):
        verifier(*rows)


@pytest.mark.slow
def test_many_random_and_corrupted(verifier: Any, rng: np.random.Generator) -> None:
    """52,000 random valid and corrupted signatures over messages of 0 to 1,024 bytes."""
    for length in (160, 0, 1024, *rng.integers(1, 1024, 10).tolist()):
        rows, bad = corrupted(rng, signed_rows(rng, 4000, length), 2)
        verdicts = verifier(*rows).tolist()
        assert verdicts == (~bad).tolist()
        assert verdicts == libsodium(rows)


@pytest.mark.slow
def test_every_message_length(verifier: Any, rng: np.random.Generator) -> None:
    """Every length from 0 to 1,024 bytes."""
    for length in range(1025):
        rows, _ = corrupted(rng, signed_rows(rng, 10, length), 2)
        assert verifier(*rows).tolist() == libsodium(rows)


@pytest.mark.slow
def test_every_batch_size_and_place(verifier: Any, rng: np.random.Generator) -> None:
    """Batches of 1 to 130 with one bad signature at every place."""
    rows = signed_rows(rng, 130, 160)
    for size in range(1, 131):
        one_bad_everywhere(verifier, rows, size, range(size))


@pytest.mark.slow
def test_all_odd_cases_against_the_oracle(verifier: Any, seed: int) -> None:
    """Mixed torsion and odd encodings in numbers, each also judged by the specification."""
    rng = random.Random(seed)
    check(verifier, [*mixed_torsion(rng, 8), *odd_encodings(rng)])
