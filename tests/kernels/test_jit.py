"""Claims about where compiled kernels lie and what they may use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels import jit

REPOSITORY = Path(jit.__file__).resolve().parent.parent


@jit.njit
def _bare(value: np.uint64) -> np.uint64:
    return value + np.uint64(1)


@jit.njit(inline="always")
def _with_options(value: np.uint64) -> np.uint64:
    return value + np.uint64(2)


def import_in_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own: the cache is chosen when kernels.jit is imported."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )


def test_njit_works_bare_and_with_options() -> None:
    """Both forms compile and wrap at 2^64."""
    assert int(_bare(np.uint64(2**64 - 1))) == 0
    assert int(_with_options(np.uint64(2**64 - 1))) == 1


def test_fastmath_is_refused() -> None:
    """An option that relaxes arithmetic is a bug."""
    with pytest.raises(AssertionError, match="integers"):
        jit.njit(fastmath=True)


def test_key_follows_every_source(tmp_path: Path) -> None:
    """The name of the cache changes when a module's text or name changes, and only then."""
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 1\n")
    first = jit.cache_key(tmp_path)
    assert jit.cache_key(tmp_path) == first
    (tmp_path / "b.py").write_text("y = 2\n")
    second = jit.cache_key(tmp_path)
    (tmp_path / "b.py").rename(tmp_path / "c.py")
    third = jit.cache_key(tmp_path)
    (tmp_path / "gpu").mkdir()
    (tmp_path / "c.py").rename(tmp_path / "gpu" / "c.py")
    assert len({first, second, third, jit.cache_key(tmp_path)}) == 4


def test_key_follows_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another instruction set or processor gives another cache."""
    keys = {jit.cache_key(tmp_path)}
    monkeypatch.setattr(jit.CONFIG, "CPU_FEATURES", "+sse2")
    keys.add(jit.cache_key(tmp_path))
    monkeypatch.setattr(jit.CONFIG, "CPU_NAME", "generic")
    keys.add(jit.cache_key(tmp_path))
    assert len(keys) == 3


def test_lanes_have_caches_of_their_own() -> None:
    """Processes whose signatures take other lanes never read each other's compiled code."""
    code = "from kernels import jit, processor; print(processor.LANES, jit.CONFIG.CACHE_DIR)"
    found: dict[str, str] = {}
    for name in ("ifma", "avx512", "avx2", "libsodium", "avx2"):
        lanes, folder = import_in_process(code, TOS_ED25519=name).stdout.split()
        assert found.setdefault(lanes, folder) == folder
    assert len(set(found.values())) == len(found)


def test_oldest_folders_are_dropped(tmp_path: Path) -> None:
    """At most CACHE_FOLDERS_MAX folders stay, the one in use among them."""
    for age in range(jit.CACHE_FOLDERS_MAX + 3):
        folder = tmp_path / f"old{age}"
        folder.mkdir()
        (folder / "code").write_text("")
        os.utime(folder, ns=(10**18 - age, 10**18 - age))
    used = jit.prepare_cache(tmp_path, "new")
    left = {path.name for path in tmp_path.iterdir()}
    assert used == tmp_path / "new"
    assert left == {"new", *(f"old{age}" for age in range(jit.CACHE_FOLDERS_MAX - 1))}


def test_cache_lies_where_it_was_asked_for(tmp_path: Path) -> None:
    """`TOS_CACHE_DIR` moves the compiled code."""
    code = "import numba; from kernels import jit; print(numba.config.CACHE_DIR)"
    done = import_in_process(code, TOS_CACHE_DIR=str(tmp_path))
    assert done.stderr == ""
    assert Path(done.stdout.strip()).parent == tmp_path / "numba"


def test_unwritable_cache_is_no_obstacle(tmp_path: Path) -> None:
    """Without a place to write, kernels still work, with one warning that says what to do."""
    (tmp_path / "file").write_text("")
    code = "import numba; from kernels import jit; print(numba.config.CACHE_DIR)"
    done = import_in_process(code, TOS_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 0
    assert "set TOS_CACHE_DIR" in done.stderr
    assert not Path(done.stdout.strip()).exists(), "the temporary folder goes with the process"


def test_checkouts_share_compiled_code(tmp_path: Path) -> None:
    """The same sources in another folder load what the first compiled; changed sources do not."""
    code = (
        "import numpy as np; from kernels import bitmap;"
        "bitmap.first_repeat(np.zeros(8, np.uint64), np.arange(8, dtype=np.uint32));"
        "print(sum(bitmap.first_repeat.stats.cache_hits.values()))"
    )
    hits = []
    for name in ("first", "second", "changed"):
        checkout = tmp_path / name / "kernels"
        shutil.copytree(REPOSITORY / "kernels", checkout, ignore=shutil.ignore_patterns("__*__"))
        if name == "changed":
            (checkout / "added.py").write_text("")
        environment = {**os.environ, "TOS_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=checkout.parent, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stderr == ""
        hits.append(int(done.stdout))
    assert hits == [0, 1, 0]


@pytest.mark.parametrize("version", ["", "0.30"])
def test_a_checkout_is_ready_with_what_it_can_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """What one checkout compiled serves others, but not the code of a device."""
    monkeypatch.setattr(jit, "device_packages", lambda: version)
    ours = jit.compiled_mark()
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "kernels" / "jit.py"))
    assert (jit.compiled_mark() == ours) == (version == "")
    assert jit.compiled_mark().parent == ours.parent
