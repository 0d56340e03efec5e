"""Claims about paths: which one is taken, what is checked before, and what is said."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spec.oracle
from kernels import ed25519, jit, signatures
from kernels.host import HostBackend
from kernels.jit import has_ifma
from kernels.lanes64 import WIDTH
from kernels.pool import Pool
from kernels.scalar25519 import SMALL_ORDER_YS
from kernels.signature_vectors_table import VECTORS

oracle: Any = spec.oracle
REPOSITORY = Path(jit.__file__).resolve().parent.parent
AVX2 = "+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+bmi,+bmi2,+fma"


def in_avx2_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python where kernels may use AVX2 at most."""
    clean = {name: value for name, value in os.environ.items() if name != signatures.VARIABLE}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
        env={**clean, "NUMBA_CPU_FEATURES": AVX2, **environment},
    )  # fmt: skip


def test_features_choose_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word of the user, IFMA where kernels may use it and libsodium elsewhere."""
    monkeypatch.delenv(signatures.VARIABLE, raising=False)
    features = ",".join(f"+{name}" for name in jit.AVX512_FEATURES)
    monkeypatch.setattr(jit.CONFIG, "CPU_FEATURES", features)
    assert signatures.choose_path() == "libsodium"
    monkeypatch.setattr(jit.CONFIG, "CPU_FEATURES", features + ",+avx512ifma")
    assert signatures.choose_path() == "ifma"
    monkeypatch.setenv(signatures.VARIABLE, "libsodium")
    assert signatures.choose_path() == "libsodium"


def test_forcing_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown path, and IFMA without IFMA, are errors that say what to do."""
    monkeypatch.setenv(signatures.VARIABLE, "avx")
    with pytest.raises(signatures.PathUnavailable, match="set it to ifma or libsodium"):
        signatures.choose_path()
    monkeypatch.setenv(signatures.VARIABLE, "ifma")
    monkeypatch.setattr(jit.CONFIG, "CPU_FEATURES", AVX2)
    with pytest.raises(signatures.PathUnavailable, match=r"without .*avx512ifma.*; unset TOS_ED"):
        signatures.choose_path()


def test_forcing_ends_in_an_error_not_in_an_abort() -> None:
    """A process restricted to AVX2 that is told to use IFMA raises, and one that is not, works."""
    code = (
        "import numpy as np; from kernels.backend import open_backend; from kernels import host;"
        "from kernels.signature_vectors_table import VECTORS as V;"
        "rows = [np.frombuffer(bytes.fromhex(''.join(p)), np.uint8).reshape(len(V), -1) for p in"
        " ([v[0] for v in V], [v[1] + v[2] for v in V], [v[3] for v in V])];"
        "backend = open_backend('cpu', 1);"
        "print(backend._path, backend.verify_signatures(*rows).tolist() == [v[4] for v in V])"
    )
    done = in_avx2_process("-c", code)
    assert done.stdout.split() == ["libsodium", "True"], done.stderr
    done = in_avx2_process("-c", code, TOS_ED25519="ifma")
    assert done.returncode == 1
    assert "PathUnavailable: TOS_ED25519=ifma: kernels are compiled for" in done.stderr


def test_serial_asks_libsodium(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arm that confirms refusals uses no vectors, whatever is forced."""
    monkeypatch.setenv(signatures.VARIABLE, "ifma")
    backend = HostBackend("serial", 1)
    assert backend._path == "libsodium"
    backend.close()


@pytest.mark.parametrize("path", ["ifma", "libsodium"])
def test_a_wrong_verdict_refuses_to_start(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that differs on one published signature, either way, does not open."""
    if path == "ifma" and not has_ifma():
        pytest.skip("kernels may not use AVX-512 IFMA here")
    for index in (0, 1, len(VECTORS) - 1):
        key, r, s, message, is_valid = VECTORS[index]
        altered = [*VECTORS[:index], (key, r, s, message, not is_valid), *VECTORS[index + 1 :]]
        monkeypatch.setattr(signatures, "VECTORS", altered)
        signatures.start_path.cache_clear()
        monkeypatch.setenv(signatures.VARIABLE, path)
        with pytest.raises(signatures.VerdictDiffers, match=f"Ed25519 path .*{key}"):
            HostBackend("cpu", 1)
    monkeypatch.undo()
    signatures.start_path.cache_clear()


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
        for count in [*range(300), 16384]:
            ranges = signatures.ifma_ranges(count, threads)
            assert 1 <= len(ranges) <= threads
            assert ranges[0][0] == 0
            assert ranges[-1][1] == count
            assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
            assert all(start % WIDTH == 0 and start <= stop for start, stop in ranges)


def test_a_single_signature_needs_no_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one is libsodium's on both paths."""
    monkeypatch.setattr(ed25519, "verify_range", None)
    key, r, s, message, is_valid = VECTORS[0]
    rows = [np.frombuffer(bytes.fromhex(item), np.uint8)[None, :] for item in (key, r + s, message)]
    pool = Pool(1)
    for path in ("ifma", "libsodium"):
        verdicts = signatures.verify(path, pool, *rows)
        assert verdicts.tolist() == [is_valid]
    pool.close()


@pytest.mark.slow
def test_all_tests_of_signatures_pass_with_avx2() -> None:
    """With the effective features restricted to AVX2, everything quick passes on the fallback.

    But for the checks of the tree's text, which no processor changes.
    """
    ignored = "--ignore=tests/test_tidy.py"
    done = in_avx2_process("-m", "pytest", "-q", "tests", "-p", "no:cacheprovider", ignored)
    assert done.returncode == 0, done.stdout[-4000:]
