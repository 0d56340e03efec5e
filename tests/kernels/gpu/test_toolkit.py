"""Claims about finding NVIDIA's compiler: an installed toolkit is named, what is said stands."""

from pathlib import Path

import pytest

from kernels.backend import DeviceSettings, DeviceUnavailable
from kernels.gpu import opening
from kernels.gpu.toolkit import name_toolkit


@pytest.fixture
def toolkit(tmp_path: Path) -> Path:
    """Return the folder of a toolkit with its compiler and NVVM."""
    place = tmp_path / "cuda-13.0"
    for folder in ("bin", "nvvm"):
        (place / folder).mkdir(parents=True)
    compiler = place / "bin" / "nvcc"
    compiler.touch(mode=0o755)
    return place


def test_the_toolkit_of_the_compiler_on_the_path_is_named(toolkit: Path, tmp_path: Path) -> None:
    """Also behind a link, as distributions install it."""
    link = tmp_path / "bin"
    link.mkdir()
    (link / "nvcc").symlink_to(toolkit / "bin" / "nvcc")
    for folder in (toolkit / "bin", link):
        environment = {"PATH": str(folder)}
        name_toolkit(environment, usual=tmp_path / "none")
        assert environment["CUDA_HOME"] == str(toolkit)


def test_the_usual_place_is_named(toolkit: Path, tmp_path: Path) -> None:
    """Without a compiler on the path, or with one that has no NVVM beside it."""
    lone = tmp_path / "lone" / "bin"
    lone.mkdir(parents=True)
    (lone / "nvcc").touch(mode=0o755)
    for environment in ({"PATH": str(lone)}, {}):
        name_toolkit(environment, usual=toolkit)
        assert environment["CUDA_HOME"] == str(toolkit)


def test_what_is_said_stands(toolkit: Path, tmp_path: Path) -> None:
    """Who named a toolkit meant it; where there is none, none is named."""
    for said in ({"CUDA_HOME": "/opt/cuda"}, {"CUDA_PATH": "/opt/cuda"}):
        environment = dict(said)
        name_toolkit(environment, usual=toolkit)
        assert environment == said
    nothing: dict[str, str] = {}
    name_toolkit(nothing, usual=tmp_path / "none")
    assert not nothing


def test_cuda_without_its_compiler_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that CUDA's packages do not find is told with what to do about it."""
    kind = type("DynamicLibNotFoundError", (RuntimeError,), {"__module__": "cuda.pathfinder"})

    def is_available() -> bool:
        raise kind("Failure finding libnvvm.so:\n" + 100 * "  one more folder\n")

    monkeypatch.setattr("numba.cuda.is_available", is_available)
    monkeypatch.setattr(opening, "SIMULATED", False)
    monkeypatch.setattr(opening, "require_packages", lambda: None)
    with pytest.raises(DeviceUnavailable, match=r"Failure finding libnvvm\.so: .*CUDA_HOME"):
        opening.open_gpu(DeviceSettings(), None, 0, lambda _: None)
