"""What one verification costs a device, counted: `python -m tests.kernels.gpu.ed25519_counts`.

Counts, not measurements: the instructions of each field function in the machine code for sm_90
(what one more call of it adds to a kernel), the instructions of PTX that a valid signature over 160
bytes runs, and the ceilings that follow for a device of so many multiprocessors and such a clock.
Needs nvidia-cuda-nvrtc, and nvdisasm (package nvidia-cuda-nvdisasm, or on PATH).
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import click
import numpy as np

from kernels.gpu import ed25519_source
from tests.kernels.forgeries import signed_rows
from tests.kernels.gpu import nvrtc
from tests.kernels.gpu.ed25519_builds import PtxBuild

MULTIPLICATIONS: Final = 18 + 59 + (64 * 7 + 32 + 32 * 6 + 252 * 3 + 63) + 13
"""Decoding, table, windows (of h, T, of S, doublings, T), inverse and encoding."""
SQUARES: Final = 255 + 252 * 4 + 254
"""Decoding, doublings, inverse."""
CALLS: Final = {
    "multiply(x, y)": MULTIPLICATIONS,
    "square(x)": SQUARES,
    "add_reduced(x, y)": 96 * 2 + 252 * 3 + 32 + 7 * 3 + 9 * 2,
    "add(x, y)": 96 + 252 + 7 + 1,
    "subtract(x, y)": 96 * 4 + 252 * 2 + 7 * 4 + 9 + 3,
}
"""Calls of each function in one verification; each subtraction in `negated_where` is counted."""

LOOP_MIN: Final = 500
_KERNEL: Final = """
extern "C" __global__ void one(const Element *a, Element *out) {
    Element x = a[2 * threadIdx.x], y = a[2 * threadIdx.x + 1];
    out[threadIdx.x] = OPERATION;
}
"""


def disassembler() -> str:
    """Return the path of nvdisasm; raises click.ClickException where it is missing."""
    found = shutil.which("nvdisasm")
    for folder in nvrtc.folders():
        found = found or shutil.which("nvdisasm", path=str(folder.parent / "bin"))
    if found is None:
        raise click.ClickException("no nvdisasm: install the package nvidia-cuda-nvdisasm")
    return found


def listing(text: str) -> list[str]:
    """Return labels and instructions of the machine code of a text with one kernel."""
    done = nvrtc.compile_cuda(text, ed25519_source.options(), to_ptx=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "one.cubin"
        file.write_bytes(done.code)
        command = [disassembler(), "-c", str(file)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^(\.L_x_\d+|\s+/\*[0-9a-f]{4,}\*/.*?;)", printed, re.MULTILINE)


def machine_code(operation: str) -> Counter[str]:
    """Return the instructions, by opcode, of a kernel that computes `operation` of x and y."""
    field = Path(ed25519_source.__file__).with_name("ed25519_field.cuh").read_text()
    lines = listing(field + _KERNEL.replace("OPERATION", operation))
    found = re.findall(r"\*/\s+(?:@!?U?P[0-9T]+ +)?([A-Z0-9_.]+)", "\n".join(lines))
    return Counter(found[: found.index("EXIT")])


def loops() -> tuple[int, list[int]]:
    """Return the instructions of the whole kernel and of each of its loops, by their ends."""
    places: dict[str, int] = {}
    count, sizes = 0, []
    for line in listing(ed25519_source.source()):
        if line.startswith(".L"):
            places[line] = count
            continue
        count += 1
        target = re.search(r"BRA.*`\((\.L_x_\d+)\)", line)
        if target and target[1] in places:
            sizes.append(count - places[target[1]])
    return count, sizes


def cost(call: str) -> tuple[int, int]:
    """Return what one more call adds: all instructions, and those that multiply pairs."""
    once = machine_code(call)
    twice = machine_code(call.replace("x", call, 1))
    pairs = [
        sum(n for name, n in counts.items() if name.startswith("IMAD.WIDE"))
        for counts in (once, twice)
    ]
    return twice.total() - once.total(), pairs[1] - pairs[0]


def executed() -> Counter[str]:
    """Return the PTX that one valid signature runs, without the block's copy of B's table."""
    build = PtxBuild()
    rows = signed_rows(np.random.default_rng(1), 1, 160)
    before = Counter(build.counts())
    assert build.verify(*rows).all(), "the signature is valid"
    return Counter(build.counts()) - before


@click.command()
@click.option("--multiprocessors", default=132, show_default=True)
@click.option("--clock-mhz", default=1980, show_default=True)
def main(multiprocessors: int, clock_mhz: int) -> None:
    """Print the counts, and ceilings of a device: arithmetic, not measurements."""
    total = pairs = 0
    for call, times in CALLS.items():
        instructions, wide = cost(call)
        total, pairs = total + times * instructions, pairs + times * wide
        click.echo(f"{call:18} {instructions:4} instructions, {wide:3} wide, {times:5} calls")
    click.echo(f"field: {total:,} instructions, {pairs:,} of them wide multiply-adds")
    size, sizes = loops()
    large = ", ".join(str(n) for n in sizes if n >= LOOP_MIN)
    click.echo(f"kernel: {size:,} instructions; loops of {LOOP_MIN} and more: {large}")
    ran = executed()
    click.echo(f"PTX: {ran.total():,} instructions; most of them:")
    for name, count in ran.most_common(12):
        click.echo(f"  {count:8,} {name}")
    lanes = multiprocessors * clock_mhz * 10**6
    for words, count, per_clock in (
        ("every instruction issues, 4 warps of 32 per clock", total, 128),
        ("wide multiply-adds at 64 per clock", pairs, 64),
        ("wide multiply-adds at 32 per clock", pairs, 32),
    ):
        rate = lanes * per_clock // count
        click.echo(f"ceiling if {words}: {rate // 10**5 / 10:.1f}M signatures/s")


if __name__ == "__main__":
    main()
