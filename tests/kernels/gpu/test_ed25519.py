"""Claims about the device's verification: its source, run by the host, gives the CPU's verdicts."""

import json
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spec.oracle
from kernels.field51 import P
from kernels.gpu import ed25519, ed25519_source
from kernels.gpu.device import Device
from kernels.gpu.ed25519_source import BLOCK_THREADS, BLOCKS_PER_SM
from kernels.gpu.failures import DeviceFailed
from kernels.gpu.nvrtc import compiled
from kernels.scalar25519 import SMALL_ORDER_YS, L
from kernels.signature_vectors_table import VECTORS
from kernels.signatures import VerdictDiffers
from tests.kernels.forgeries import (
    S_EDGES,
    as_rows,
    corrupted,
    libsodium,
    mixed_torsion,
    odd_encodings,
    signed_rows,
)
from tests.kernels.gpu import nvrtc
from tests.kernels.gpu.compiled import missing_packages
from tests.kernels.gpu.ed25519_builds import Build, PtxBuild, device_ptx, open_build
from tests.kernels.gpu.ed25519_counts import MULTIPLICATIONS, SQUARES
from tests.kernels.gpu.late_driver import LateDriver
from tests.kernels.test_ed25519 import RFC_8032, by_length

oracle: Any = spec.oracle
REDUCED_MAX = 2**255 + 2**11 - 1
REGISTERS_PER_SM = 65536
SPILLED_BYTES_MAX = 64

ONES = [2 ** (32 * k) - 1 for k in range(1, 9)]
EDGES = [
    *range(3), 18, 19, 20, 37, 38, 39, P - 1, P, P + 1, 2 * P - 1, 2 * P, 2 * P + 1, 2**255 - 1,
    2**255, REDUCED_MAX, 2**256 - 39, 2**256 - 38, 2**256 - 2, 2**256 - 1, *ONES,
    *(2**256 - 1 - ones for ones in ONES), sum((2**32 - 1) << 64 * k for k in range(4)),
    sum((2**32 - 1) << 64 * k + 32 for k in range(4)), *(2 ** (32 * k) for k in range(1, 8)),
]  # fmt: skip
"""Bounds of the field's functions, and words that make carries run through all others."""


DEVICE = pytest.param("device", marks=pytest.mark.gpu)


@pytest.fixture(params=["host", "ptx", DEVICE])
def build(request: pytest.FixtureRequest) -> Build:
    """Return a build of the device's source."""
    return open_build(request.param)


def pairs(seed: int, limit: int = 2**256) -> tuple[list[int], list[int]]:
    """Return all pairs of edges and of some random numbers below `limit`."""
    rng = random.Random(seed)
    numbers = [value for value in EDGES if value < limit]
    numbers += [rng.randrange(limit) for _ in range(16)]
    return [a for a in numbers for _ in numbers], numbers * len(numbers)


def congruent(found: list[int], wanted: list[int], limit: int) -> bool:
    """Say whether numbers are congruent modulo p and below a limit."""
    return all((x - y) % P == 0 and x < limit for x, y in zip(found, wanted, strict=True))


def test_products(build: Build, seed: int) -> None:
    """Products and squares of whole numbers are right and reduced."""
    a, b = pairs(seed)
    exact = [x * y for x, y in zip(a, b, strict=True)]
    assert congruent(build.probe("multiply", a, b), exact, REDUCED_MAX + 1)
    assert congruent(build.probe("square", a, b), [x * x for x in a], REDUCED_MAX + 1)


def test_sums(build: Build, seed: int) -> None:
    """Sums and differences are right for all that each function accepts."""
    a, b = pairs(seed)
    sums = [x + y for x, y in zip(a, b, strict=True)]
    assert congruent(build.probe("add", a, b), sums, 2**256)
    kept = [(x, y) for x, y in zip(a, b, strict=True) if y <= REDUCED_MAX]
    a, b = [x for x, _ in kept], [y for _, y in kept]
    assert congruent(build.probe("subtract", a, b), [x - y for x, y in kept], 2**256)
    a, b = pairs(seed, REDUCED_MAX + 1)
    sums = [x + y for x, y in zip(a, b, strict=True)]
    assert congruent(build.probe("add_reduced", a, b), sums, 2**256)


def test_canonical_and_inverse(build: Build, seed: int) -> None:
    """Every number has one canonical form, and an inverse, which is 0 for 0."""
    a, _ = pairs(seed)
    a = sorted(set(a))
    zeros = [0] * len(a)
    assert build.probe("canonical", a, zeros) == [x % P for x in a]
    inverses = [pow(x, P - 2, P) for x in a]
    assert congruent(build.probe("invert", a, zeros), inverses, REDUCED_MAX + 1)


def test_numbers_modulo_the_order(build: Build, seed: int) -> None:
    """512 bits modulo L: random ones, and those next to multiples of L."""
    rng = random.Random(seed)
    wide = [0, 1, L - 1, L, L + 1, 2**252, 2**512 - 1, (2**512 // L) * L, L * L]
    wide += [rng.getrandbits(512) for _ in range(200)]
    wide += [rng.randrange(2**259) * L + d for d in (-1, 0, 1) for _ in range(50)]
    wide = [value % 2**512 for value in wide]
    assert build.probe("reduce_order", wide, [0] * len(wide)) == [value % L for value in wide]


def test_what_is_refused_by_its_bytes(build: Build) -> None:
    """S from L on, y of A from p on, and the small orders as A and as R; nothing else."""
    ys = sorted({*range(20), *SMALL_ORDER_YS, *range(P - 20, 2**255)})
    for sign in (0, 2**255):
        rs = [y + sign for y in ys] + [5] * len(ys)
        keys = [5] * len(ys) + [y + sign for y in ys]
        wanted = [y not in SMALL_ORDER_YS for y in ys]
        wanted += [y < P and y not in SMALL_ORDER_YS for y in ys]
        assert build.probe("is_admitted", rs, keys) == wanted
    scalars = [*S_EDGES, L - 2, 2**32 - 1, L - 2**224, L + 2**224]
    rs = [5 + (s << 256) for s in scalars]
    assert build.probe("is_admitted", rs, [5] * len(rs)) == [s < L for s in scalars]


def test_published_vectors(build: Build) -> None:
    """The check before use passes; it names the first vector that a device judges otherwise."""
    ed25519.check(build)


def test_a_wrong_verdict_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector that is judged otherwise than published, either way, refuses the device."""
    build = open_build("host")
    for index in (0, 1):
        key, r, s, message, is_valid = VECTORS[index]
        altered = list(VECTORS)
        altered[index] = (key, r, s, message, not is_valid)
        with monkeypatch.context() as patch:
            patch.setattr(ed25519, "VECTORS", altered)
            with pytest.raises(VerdictDiffers, match=f"on g.*{r}{s} by.*verify on the CPU"):
                ed25519.check(build)


def check_cases(build: Build, cases: list[Any]) -> list[bool]:
    """Judge cases, grouped by length, like libsodium; return the verdicts."""
    answer = []
    for group in by_length(cases):
        rows = as_rows(group)
        verdicts: list[bool] = build.verify(*rows).tolist()
        assert verdicts == libsodium(rows)
        answer += verdicts
    return answer


def test_wycheproof(build: Build, shared: Path) -> None:
    """All vectors of Wycheproof whose signature has 64 bytes."""
    read = json.loads((shared / "vectors" / "wycheproof_ed25519.json").read_text())
    cases, expected = [], []
    for group in read["testGroups"]:
        for test in group["tests"]:
            signature, message = bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
            if len(signature) == 64:
                cases.append((bytes.fromhex(group["publicKey"]["pk"]), signature, message))
                expected.append(test["result"] == "valid")
    by_case = dict(zip(cases, expected, strict=True))
    ordered = [case for group in by_length(cases) for case in group]
    assert len(cases) > 130
    assert check_cases(build, cases) == [by_case[case] for case in ordered]


def test_rfc_8032(build: Build) -> None:
    """The vectors of the RFC are valid."""
    cases = [tuple(bytes.fromhex(part) for part in row) for row in RFC_8032]
    assert check_cases(build, cases) == [True] * 3


def test_mixed_torsion(build: Build, seed: int) -> None:
    """A and R with all pairs of the eight torsion points: some are valid, most are not."""
    verdicts = check_cases(build, list(mixed_torsion(random.Random(seed), 3)))
    assert True in verdicts
    assert False in verdicts


def test_odd_encodings(build: Build, seed: int) -> None:
    """Small-order and non-canonical A and R are refused, with any S."""
    assert True not in check_cases(build, list(odd_encodings(random.Random(seed))))


def test_s_at_its_edges(build: Build, seed: int) -> None:
    """S of the edges in place of the right one, and the right one plus L, are refused."""
    rng = np.random.default_rng(seed)
    key, signed, message = (array.tobytes() for array in signed_rows(rng, 1, 160))
    s = int.from_bytes(signed[32:], "little")
    tried = [s, *S_EDGES, s + oracle.ED_L, s ^ 1]
    cases = [(key, signed[:32] + oracle.uint(value, 32), message) for value in tried]
    assert check_cases(build, cases) == [True] + [False] * (len(tried) - 1)


def test_message_lengths(build: Build, rng: np.random.Generator) -> None:
    """Lengths around the ends of words and blocks, read in words and in bytes."""
    for length in (0, 1, 7, 8, 9, 46, 47, 48, 55, 56, 63, 64, 65, 127, 128, 160, 175, 176, 1024):
        rows, _ = corrupted(rng, signed_rows(rng, 8, length), 2)
        assert build.verify(*rows).tolist() == libsodium(rows)


@pytest.mark.parametrize(
    ("name", "count"),
    [("host", 4000), ("ptx", 600), pytest.param("device", 300_000, marks=pytest.mark.gpu)],
)
def test_random_and_corrupted(name: str, count: int, rng: np.random.Generator) -> None:
    """Random valid and corrupted transactions: exactly the untouched ones are valid."""
    build = open_build(name)
    rows, bad = corrupted(rng, signed_rows(rng, count, 160), 2)
    assert build.verify(*rows).tolist() == (~bad).tolist()


def test_threads_of_blocks(rng: np.random.Generator) -> None:
    """Threads of whole blocks each judge their own row, copy their part of B's table, and stop.

    The first pass fills the shared table, part by part; from the second on, each verdict counts.
    """
    build = open_build("ptx")
    assert isinstance(build, PtxBuild)
    rows, bad = corrupted(rng, signed_rows(rng, BLOCK_THREADS + 70, 160), 2)
    build.launch(rows, 1, BLOCK_THREADS)
    assert build.launch(rows, 2, BLOCK_THREADS).tolist() == (~bad).tolist()
    assert build.launch(rows, 1, BLOCK_THREADS)[BLOCK_THREADS:].tolist() == [255] * 70


def test_registers_and_spills(capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel fits the registers that its launch bounds leave, and spills next to nothing."""
    done = nvrtc.compile_cuda(ed25519_source.source(), ed25519_source.options(), to_ptx=False)
    with capsys.disabled():
        print("\n" + "\n".join(line for line in done.log.splitlines() if "Used" in line))  # noqa: T201
    found = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", done.log)
    used = re.search(r"Used (\d+) registers", done.log)
    assert found
    assert used
    assert max(map(int, found.groups())) <= SPILLED_BYTES_MAX
    assert int(used[1]) * BLOCK_THREADS * BLOCKS_PER_SM <= REGISTERS_PER_SM


def test_no_floating_point() -> None:
    """The compiled text has no instruction on floating-point numbers."""
    text = device_ptx()
    assert "mad.lo.cc.u32" in text
    assert re.search(r"\.(f16|bf16|f32|f64)\b", text) is None


def test_multiplications_of_a_verification(rng: np.random.Generator) -> None:
    """A valid signature runs the products that `ed25519_counts` counts with, and no division.

    By carry chains, a multiplication takes 64 high halves and a square 33; the rest is `mul.wide`.
    """
    build = open_build("ptx")
    assert isinstance(build, PtxBuild)
    rows = signed_rows(rng, 1, 160)
    before = build.counts()
    assert build.verify(*rows).tolist() == [True]
    ran = {name: count - before[name] for name, count in build.counts().items()}
    assert ran["madc.hi.cc.u32"] == 64 * MULTIPLICATIONS + 33 * SQUARES
    assert not [name for name in ran if name.startswith(("div", "rem"))]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> tuple[ed25519.DeviceVerifier, LateDriver]:
    """Return the verifier with chunks of 100 rows over streams that do everything late."""
    driver = LateDriver()
    monkeypatch.setattr("kernels.gpu.device.open_driver", lambda: driver)
    verifier = ed25519.DeviceVerifier(Device(), chunk=100)
    driver.launches.clear()
    return verifier, driver


def test_machine_code_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NVIDIA's compiler is asked once for a text and said to be; a text that is none is refused."""
    if missing_packages():
        pytest.skip(missing_packages())
    monkeypatch.setattr("kernels.jit.CONFIG.CACHE_DIR", str(tmp_path))
    source = 'extern "C" __global__ void nothing() {}'
    codes = [compiled("nothing", source, (), 90) for _ in range(2)]
    assert codes[0] == codes[1]
    assert codes[0].startswith(b"\x7fELF")
    assert capsys.readouterr().err.count("nothing is compiled") == 1
    assert compiled("nothing", source, ("-DOTHER",), 90).startswith(b"\x7fELF")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(DeviceFailed, match=r"COMPILATION: source\.cu.*\n *nonsense"):
        compiled("wrong", "nonsense", (), 90)
    assert len(list(tmp_path.iterdir())) == 2


def test_chunks_wait_for_each_other(late: Any, rng: np.random.Generator) -> None:
    """Any number of rows and lengths, in chunks in two slots: verdicts are those of their rows."""
    verifier, driver = late
    for count, length in (
        (0, 160),
        (1, 160),
        (99, 0),
        (100, 7),
        (101, 160),
        (730, 160),
        (420, 400),
    ):
        rows, bad = corrupted(rng, signed_rows(rng, count, length), 2)
        driver.launches.clear()
        assert verifier.verify(*rows).tolist() == (~bad).tolist()
        size = ed25519.chunk_rows(length, 100)
        assert driver.launches == [min(size, count - at) for at in range(0, count, size)]
    verifier.close()


def test_a_launch_that_does_not_run_is_noticed(late: Any, rng: np.random.Generator) -> None:
    """Verdicts of an earlier batch are never taken for those of one that was not judged."""
    verifier, driver = late
    rows = signed_rows(rng, 250, 160)
    assert verifier.verify(*rows).all()
    driver.is_broken = True
    with pytest.raises(DeviceFailed, match="without a verdict"):
        verifier.verify(*rows)
    driver.is_broken = False
    rows[1][7, 40] ^= 1
    assert np.flatnonzero(~verifier.verify(*rows)).tolist() == [7]


def test_chunks() -> None:
    """Chunks are as large as memory allows, at least one row, and too long messages are refused."""
    room = ed25519.CHUNK_ROWS * 160
    assert ed25519.chunk_rows(0) == ed25519.chunk_rows(160) == ed25519.CHUNK_ROWS
    for length in (161, 1024, 10**6, room):
        rows = ed25519.chunk_rows(length)
        assert 1 <= rows <= ed25519.CHUNK_ROWS
        assert rows * length <= room < (rows + 1) * length
    with pytest.raises(ValueError, match="verify them on the CPU"):
        ed25519.chunk_rows(room + 1)
    pinned, held = ed25519.memory_bytes(4)
    assert (pinned, held) == (2 * 4 * 257, 2 * 4 * (257 + 1216))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("public_keys", np.zeros((3, 31), np.uint8)),
        ("public_keys", np.zeros(3, np.uint8)),
        ("signatures", np.zeros((2, 64), np.uint8)),
        ("signatures", np.zeros((3, 64), np.int8)),
        ("messages", np.zeros((2, 160), np.uint8)),
        ("messages", np.zeros(3, np.uint8)),
    ],
)
def test_wrong_shapes_are_refused(name: str, array: Any) -> None:
    """Rows of another width, number or type are a mistake of the caller, named as such."""
    good = [np.zeros((3, width), np.uint8) for width in (32, 64, 160)]
    ed25519.check_shapes((good[0], good[1], good[2]))
    good[("public_keys", "signatures", "messages").index(name)] = array
    with pytest.raises(ValueError, match=f"{name} must be"):
        ed25519.check_shapes((good[0], good[1], good[2]))


@pytest.mark.gpu
def test_batches_around_the_edges_of_chunks(rng: np.random.Generator) -> None:
    """On the device: one bad signature at the edges of blocks and chunks is found, and only it."""
    build = open_build("device")
    rows = signed_rows(rng, 3 * ed25519.CHUNK_ROWS + 1, 160)
    for size in (
        1,
        2,
        127,
        128,
        129,
        *(n * ed25519.CHUNK_ROWS + d for n in (1, 3) for d in (0, 1)),
    ):
        for place in {0, size // 2, size - 1}:
            part = [array[:size].copy() for array in rows]
            part[1][place, 40] ^= 1
            verdicts = build.verify(part[0], part[1], part[2])
            assert not verdicts[place]
            assert verdicts.sum() == size - 1


@pytest.mark.gpu
def test_threads_share_a_device(rng: np.random.Generator) -> None:
    """On the device: batches of several threads do not mix."""
    build = open_build("device")
    rows = signed_rows(rng, 40_000, 160)
    batches = [corrupted(rng, rows, 2) for _ in range(6)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda batch: build.verify(*batch[0]), batches))
    for answer, (_, bad) in zip(answers, batches, strict=True):
        assert answer.tolist() == (~bad).tolist()
