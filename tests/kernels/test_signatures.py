"""Claims about paths: which one is taken, what is checked before, and what is said."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba.core.codegen import get_host_cpu_features

import spec.oracle
from kernels import ed25519, ed25519_batch, ed25519_batch_lanes, jit, signatures
from kernels.ed25519_batch import BATCH_MIN
from kernels.host import HostBackend
from kernels.lanes64 import WIDTH
from kernels.pool import Pool
from kernels.processor import LANES, LANES_FEATURES, LANES_NAMES, VARIABLE, LanesName
from kernels.scalar25519 import SMALL_ORDER_YS
from kernels.signature_vectors_table import VECTORS
from tests.kernels.elements import needs_lanes

oracle: Any = spec.oracle
PATHS: list[Any] = [LANES, "libsodium"] if LANES else ["libsodium"]
REPOSITORY = Path(jit.__file__).resolve().parent.parent
HOST = str(get_host_cpu_features())
AVX512, AVX2, BARE = (f"{HOST},-{name}" for name in ("avx512ifma", "avx512f", "avx"))
"""What kernels may use in processes of their own: what there is but for these, and what builds on
them. What is not switched off, the compiler may use where the processor's name stands for it."""
QUICK_TESTS = [f"tests/kernels/test_{name}.py" for name in ("products", "bit_sums25519", "ed25519")]
LANE_TESTS = [
    f"tests/kernels/test_{name}.py"
    for name in (
        "products", "field51", "curve25519", "lane_arithmetic", "ed25519", "insecure_signer",
        "bit_sums25519", "ed25519_batch", "known_keys",
    )
]  # fmt: skip
JUDGE = (
    "import numpy as np; from kernels.backend import open_backend; from kernels import lanes64;"
    "from kernels.signature_vectors_table import VECTORS as V;"
    "rows = [np.frombuffer(bytes.fromhex(''.join(p)), np.uint8).reshape(len(V), -1) for p in"
    " ([v[0] for v in V], [v[1] + v[2] for v in V], [v[3] for v in V])];"
    "backend = open_backend('cpu', 1);"
    "print(backend._verifier.path, backend.verify_signatures(*rows).tolist() == [v[4] for v in V])"
)


def in_process(features: str, *arguments: str, **environment: str) -> Any:
    """Run Python where kernels may use some instructions only."""
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env={**clean, "NUMBA_CPU_FEATURES": features, **environment},
    )  # fmt: skip


def needs(lanes: LanesName) -> None:
    """Skip where the processor itself could not run these lanes."""
    missing = LANES_FEATURES[lanes] - {name[1:] for name in HOST.split(",") if name[0] == "+"}
    if missing:
        pytest.skip(f"the processor has no {' '.join(sorted(missing))}")


def test_the_lanes_of_the_process_are_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word of the user: the lanes, but libsodium where they may not be compiled."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert signatures.choose_path() == (LANES or "libsodium")
    monkeypatch.setenv(VARIABLE, "libsodium")
    assert signatures.choose_path() == "libsodium"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(jit.CONFIG, "CPU_FEATURES", BARE)
    assert signatures.choose_path() == "libsodium"


def test_forcing_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown path, and lanes that may not be compiled, are errors that say what to do."""
    monkeypatch.setenv(VARIABLE, "avx")
    known = "set it to ifma, avx512, avx2 or libsodium"
    with pytest.raises(signatures.PathUnavailable, match=known):
        signatures.choose_path()
    monkeypatch.setattr(jit.CONFIG, "CPU_FEATURES", BARE)
    for name, feature in (("ifma", "avx512ifma"), ("avx512", "avx512dq"), ("avx2", "fma")):
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(
            signatures.PathUnavailable, match=rf"without .*{feature}.*; unset TOS_ED"
        ):
            signatures.choose_path()


def test_forcing_other_lanes_than_were_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are made for one kind of lanes: a word that comes later is refused, not ignored."""
    every = LANES_FEATURES["ifma"] | LANES_FEATURES["avx2"]
    monkeypatch.setattr(jit.CONFIG, "CPU_FEATURES", ",".join(f"+{name}" for name in every))
    for name in set(LANES_NAMES) - {LANES}:
        monkeypatch.setenv(VARIABLE, name)
        with pytest.raises(signatures.PathUnavailable, match="before it starts"):
            signatures.choose_path()


@pytest.mark.parametrize(
    ("features", "forced", "said"),
    [
        (BARE, "", "libsodium True"),
        (BARE, "avx2", "PathUnavailable: TOS_ED25519=avx2: kernels are compiled for"),
        (AVX2, "avx512", "PathUnavailable: TOS_ED25519=avx512: kernels are compiled for"),
        (AVX2, "ifma", "PathUnavailable: TOS_ED25519=ifma: kernels are compiled for"),
        (AVX512, "ifma", "PathUnavailable: TOS_ED25519=ifma: kernels are compiled for"),
        (AVX512 + ",+avx512ifma", "ifma", "PathUnavailable: TOS_ED25519=ifma: kernels are"),
    ],
    ids=[
        "bare",
        "avx2 bare",
        "avx512 on avx2",
        "ifma on avx2",
        "ifma on avx512",
        "ifma off and on",
    ],
)
def test_forcing_ends_in_an_error_not_in_an_abort(features: str, forced: str, said: str) -> None:
    """A process that may not use an instruction never compiles it, whatever it is told."""
    done = in_process(features, "-c", JUDGE, TOS_ED25519=forced)
    assert done.returncode == (1 if "PathUnavailable" in said else 0), done.stderr
    assert said in done.stdout + done.stderr


def test_avx2_gives_the_same_verdicts() -> None:
    """Four lanes without AVX-512 give the same products of limbs and the same verdicts."""
    needs("avx2")
    done = in_process(AVX2, "-m", "pytest", "-vk", "not libsodium", *QUICK_TESTS)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "avx2" in done.stdout, "the name of the path stands among those of the tests"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lanes", "features"), [("avx512", AVX512), ("avx2", AVX2)], ids=["avx512", "avx2"]
)
def test_every_kind_of_lanes_passes_all_tests_of_lanes(lanes: LanesName, features: str) -> None:
    """Eight lanes without IFMA, and four: all tests of lanes, the slow ones too."""
    needs(lanes)
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow")
    done = in_process(features, *arguments, *LANE_TESTS, TOS_ED25519=lanes)
    assert done.returncode == 0, done.stdout[-4000:]


def test_serial_asks_libsodium(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arm that confirms refusals uses no vectors, whatever is forced."""
    monkeypatch.setenv(VARIABLE, "ifma")
    backend = HostBackend("serial", 1)
    assert backend._verifier.path == "libsodium"
    backend.close()


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_verdict_refuses_to_start(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that differs on one published signature, either way, does not open."""
    for index in (0, 1, len(VECTORS) - 1):
        key, r, s, message, is_valid = VECTORS[index]
        altered = [*VECTORS[:index], (key, r, s, message, not is_valid), *VECTORS[index + 1 :]]
        monkeypatch.setattr(signatures, "VECTORS", altered)
        signatures.start_path.cache_clear()
        monkeypatch.setenv(VARIABLE, path)
        with pytest.raises(signatures.VerdictDiffers, match=f"Ed25519 path .*{key}"):
            HostBackend("cpu", 1)
    monkeypatch.undo()
    signatures.start_path.cache_clear()


@needs_lanes
@pytest.mark.parametrize("answer", [True, False])
def test_an_equation_that_errs_refuses_to_start(
    answer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path whose batches hold for one that is not valid does not open, nor if none ever holds."""
    assert LANES
    monkeypatch.setattr(ed25519_batch, "cancels", lambda *_: answer)
    with pytest.raises(signatures.VerdictDiffers, match=f"Ed25519 path {LANES}"):
        signatures.check_path(LANES)


@needs_lanes
def test_an_error_that_only_known_keys_have_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The vectors are judged by hints, too: the equation errs here only where one was taken."""
    prepare_rows, cancels = ed25519_batch_lanes.prepare_rows, ed25519_batch_lanes.cancels
    missed = []

    def prepare(*arguments: Any) -> int:
        missed.append(prepare_rows(*arguments))
        return int(missed[-1])

    assert LANES
    monkeypatch.setattr(ed25519_batch, "prepare_rows", prepare)
    monkeypatch.setattr(ed25519_batch, "cancels", lambda *rest: missed[-1] == 0 or cancels(*rest))
    with pytest.raises(signatures.VerdictDiffers, match=f"Ed25519 path {LANES}"):
        signatures.check_path(LANES)


@needs_lanes
def test_what_is_compiled_is_found() -> None:
    """Once the vectors are judged, a start does not say that it compiles."""
    assert LANES
    signatures.check_path(LANES)
    assert signatures._is_compiled()


def test_published_verdicts_are_the_oracles() -> None:
    """Each vector that is judged before use has the specification's verdict."""
    for key, r, s, message, is_valid in VECTORS:
        case = [bytes.fromhex(item) for item in (key, r + s, message)]
        assert oracle.is_valid_signature(*case) == is_valid


def test_published_vectors_cover_what_libraries_differ_on() -> None:
    """Both verdicts, all small-order encodings as A and as R, torsion of every order in A."""
    verdicts = [vector[4] for vector in VECTORS]
    assert True in verdicts
    assert False in verdicts
    small = {oracle.uint(y | sign << 255, 32).hex() for y in SMALL_ORDER_YS for sign in (0, 1)}
    assert small <= {vector[0] for vector in VECTORS}
    assert small <= {vector[1] for vector in VECTORS}
    mixed = set()
    for key, *_, is_valid in VECTORS:
        point = oracle.ed_decode(bytes.fromhex(key))
        if point is not None and not oracle.is_small_order(bytes.fromhex(key)):
            x, y, z, _ = oracle.ed_multiply(oracle.ED_L, point)
            mixed.add(
                (
                    x * pow(z, -1, oracle.ED_P) % oracle.ED_P,
                    y * pow(z, -1, oracle.ED_P) % oracle.ED_P,
                    is_valid,
                )
            )
    assert len({(x, y) for x, y, is_valid in mixed if is_valid}) == 8
    assert len({(x, y) for x, y, is_valid in mixed if not is_valid}) == 8


def test_ranges_are_whole_groups() -> None:
    """Ranges cover all rows once, begin at groups, and are no more than there are threads."""
    for threads in (1, 2, 3, 16):
        for count in [*range(300), *range(BATCH_MIN - 9, 3 * BATCH_MIN, 17), 16384]:
            ranges = signatures.lane_ranges(count, threads)
            assert 1 <= len(ranges) <= threads
            assert ranges[0][0] == 0
            assert ranges[-1][1] == count
            assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
            assert all(start % WIDTH == 0 and start <= stop for start, stop in ranges)
            threads_of_batches = signatures.batch_threads(count, threads)
            for start, stop in signatures.lane_ranges(count, threads_of_batches):
                assert count < BATCH_MIN or stop - start >= BATCH_MIN
            assert threads_of_batches == threads or BATCH_MIN <= count < 2 * threads * BATCH_MIN


def test_a_single_signature_needs_no_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one is libsodium's on every path."""
    monkeypatch.setattr(ed25519, "verify_range", None)
    key, r, s, message, is_valid = VECTORS[0]
    rows = [np.frombuffer(bytes.fromhex(item), np.uint8)[None, :] for item in (key, r + s, message)]
    pool = Pool(1)
    for path in PATHS:
        verdicts = signatures.Verifier(path, pool).verify(*rows)
        assert verdicts.tolist() == [is_valid]
    pool.close()


@pytest.mark.slow
@pytest.mark.parametrize("features", [BARE, AVX2], ids=["libsodium", "avx2"])
def test_all_tests_pass_on_lesser_processors(features: str) -> None:
    """With the effective features restricted, everything quick passes on what is left.

    But for the checks of the tree's text, which no processor changes.
    """
    ignored = "--ignore=tests/test_tidy.py"
    done = in_process(features, "-m", "pytest", "-q", "tests", "-p", "no:cacheprovider", ignored)
    assert done.returncode == 0, done.stdout[-4000:]
