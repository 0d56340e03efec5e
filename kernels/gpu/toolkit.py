"""Where Numba's compiler for devices finds NVIDIA's: in packages, or in a toolkit of the machine.

The extra [gpu] brings that library (NVVM) as a package. Images that come with a toolkit often leave
the package out, and not all of them say in the environment where the toolkit lies.
"""

import shutil
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

VARIABLES: Final = ("CUDA_PATH", "CUDA_HOME")
"""What says where a toolkit lies, to everybody who looks for one."""
USUAL: Final = Path("/usr/local/cuda")


def name_toolkit(environment: MutableMapping[str, str], usual: Path = USUAL) -> None:
    """Say in the environment where the toolkit of this machine lies, unless that is said.

    It is the one whose `nvcc` is on the path, or lies at `usual`; without one nothing is said.
    Libraries in packages are found before it. Before CUDA's modules first look for a library: they
    read the environment once.
    """
    if any(environment.get(name) for name in VARIABLES):
        return
    compiler = shutil.which("nvcc", path=environment.get("PATH", ""))
    places = [usual] if compiler is None else [Path(compiler).resolve().parent.parent, usual]
    for place in places:
        if (place / "nvvm").is_dir():
            environment["CUDA_HOME"] = str(place)
            return
