"""Kernels of the device, compiled for sm_90 without one: integers only, few spills."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernels.gpu import compiled

GPU = Path(__file__).resolve().parents[3] / "kernels" / "gpu"


def kernels_in_sources() -> Iterator[str]:
    """Yield module.kernel of every function under `@kernel`."""
    for path in sorted(GPU.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                names = {item.id for item in node.decorator_list if isinstance(item, ast.Name)}
                if "kernel" in names:
                    yield f"{path.stem}.{node.name}"


def test_every_kernel_is_in_the_table() -> None:
    """The table of types names each kernel of the package, and no other."""
    assert sorted(kernels_in_sources()) == sorted(compiled.KERNELS)


@pytest.fixture(scope="module")
def compiler() -> None:
    """Skip where Numba cannot make PTX; otherwise let it, without a device."""
    missing = compiled.missing_packages()
    if missing:
        pytest.skip(missing)
    import kernels.gpu.backend  # noqa: F401 - loads all of Numba that asks for a device

    compiled.pretend_device()


MODULES = sorted({name.split(".")[0] for name in compiled.KERNELS})


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile(module: str, tmp_path: Path) -> None:
    """PTX has no floating point, and machine code for sm_90 spills at most 64 bytes."""
    ptxas = compiled.find_ptxas()
    for name in (name for name in compiled.KERNELS if name.startswith(f"{module}.")):
        ptx = compiled.ptx_of(name)
        assert re.search(r"\.f(16|32|64)\b", ptx) is None, f"{name} has floating point"
        if ptxas is not None:
            machine = compiled.assemble(ptxas, ptx, tmp_path)
            print(f"{name}: {machine}")  # noqa: T201 - the figures are read with `pytest -s`
            assert machine.spill_bytes <= compiled.SPILL_BYTES_MAX, name
            assert 0 < machine.registers <= 255, name
    if ptxas is None:
        pytest.skip("PTX is right; no ptxas was found that makes machine code of it")


def test_the_search_for_floating_point_finds_it() -> None:
    """The pattern above sees every width, and no other instruction."""
    found = re.compile(r"\.f(16|32|64)\b")
    assert all(found.search(f"add.f{bits} %a, %b;") for bits in (16, 32, 64))
    assert found.search(".reg .f64 %fd<3>;")
    assert not found.search("shf.l.wrap.b32 %r1; .func foo; ld.param.u64")
