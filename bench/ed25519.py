"""Signatures verified per second, path by path, in one run: `python bench/ed25519.py --help`.

- `backend`: what blocks are verified with, `Backend.verify_signatures` of the cpu arm; new keys
- `known keys`: the same for keys that it has met before, as a node does where senders come again
- `one by one`: the same lanes without batches, which judge many signatures by one equation
- `libsodium`: its function from a compiled loop without the interpreter lock; the ratio's baseline
- `libsodium from Python`: PyNaCl, one call per signature
- `OpenSSL from Python`: the cryptography package, key from bytes and one call per signature
- `device`, with `--gpu`: from the host's arrays to verdicts on the host, all copies included
- `device, kernel alone`: one launch over rows that are on the device already

Every row names the lanes that `backend` had in its process, and the instructions that were
withheld from the kernels of that process, which this processor has. With `--lesser` the first two
paths and libsodium are also measured in the lanes of lesser processors, in a process for each.

Each repeat runs all paths one after the other, so that what else the machine does meets them all.
Figures are medians over repeats; the ratio divides medians of the same threads and batch.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench._start import require_environment

    require_environment()

import click
import nacl.bindings
import numpy as np
from numba.core.codegen import get_host_cpu_features
from rich.console import Console
from rich.table import Table

from bench import machine
from kernels import ed25519, signatures
from kernels.backend import KNOWN_KEYS, DeviceSettings, DeviceUnavailable, open_backend
from kernels.host_accounts import read_only
from kernels.insecure_signer import insecure_public_keys, insecure_sign
from kernels.layout import U8
from kernels.pool import THREADS_MAX, Pool
from kernels.processor import LANES, LANES_NAMES, VARIABLE, LanesName, cpu_features

if TYPE_CHECKING:
    from kernels.gpu.ed25519 import DeviceVerifier

MESSAGE_BYTES = 160
"""Of a transaction: its domain and its signed part."""
SAMPLE_NS = 20_000_000
"""A sample repeats its batch until about so much time has passed."""
BATCH_MAX = 1 << 20
BASELINE = "libsodium"
KNOWN = "known keys"
KERNEL = "device, kernel alone"
LESSER: dict[LanesName, str] = {"avx512": "avx512ifma", "avx2": "avx512f"}
"""What is withheld where those lanes are the best ones; what builds on it goes with it."""
WIDTH = 132
"""Columns of the table where no terminal says how wide it is."""

Rows = tuple[U8, U8, U8]
"""Public keys, signatures, messages."""
Verify = Callable[[], None]


def read_numbers(_: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    """Read a comma list of batch sizes or thread counts."""
    limit = THREADS_MAX if parameter.name == "threads" else BATCH_MAX
    try:
        numbers = [int(item) for item in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of numbers such as 1,2") from error
    if not all(1 <= number <= limit for number in numbers):
        raise click.BadParameter(f"each must be 1..{limit}")
    return list(dict.fromkeys(numbers))


@click.command(context_settings={"max_content_width": 100})
@click.option("--batch", "batches", callback=read_numbers, default="1,8,64,1024,16384",
              show_default=True, metavar="N,...", help="Signatures per call.")  # fmt: skip
@click.option("--threads", callback=read_numbers, default=lambda: default_threads(),
              metavar="N,...", help="Thread counts. Default: 1 and all cores.")  # fmt: skip
@click.option("--repeat", type=click.IntRange(1), default=9, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63), default=1, show_default=True)
@click.option("--gpu", is_flag=True, help="Also verify on the GPU; exits with 3 if there is none.")
@click.option("--lesser", is_flag=True, help="Also verify as processors with less than this one.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="Write all rows.")  # fmt: skip
def main(
    batches: list[int],
    threads: list[int],
    repeat: int,
    seed: int,
    gpu: bool,
    lesser: bool,
    json_file: Path | None,
) -> None:
    """Verify batches of signatures on every path and print signatures per second.

    Exits with 2 for arguments that make no sense, with 3 if --gpu finds no device.
    """
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise click.UsageError(f"--json: {json_file.absolute().parent} is no folder")
    try:
        device = open_verifier() if gpu else None
    except DeviceUnavailable as error:
        click.echo(f"ed25519.py: --gpu: {error}; without --gpu, only CPU paths run", err=True)
        sys.exit(3)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    described = machine.describe(Path(), device.device_name if device else None)
    console.print(machine.describe_text(described), highlight=False)
    rows = run(batches, threads, repeat=repeat, seed=seed, described=described, device=device)
    if device is not None:
        device.close()
    if lesser:
        options = ["--batch", ",".join(map(str, batches)), "--threads", ",".join(map(str, threads))]
        options += ["--repeat", str(repeat), "--seed", str(seed)]
        rows += [row for name in lesser_lanes() for row in run_lesser(name, options)]
    console.print(f"cpu arm: path {signatures.choose_path()}, {MESSAGE_BYTES}-byte messages")
    console.print(as_table(rows))
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n")


def open_verifier() -> "DeviceVerifier":
    """Return what verifies on the first device; raises DeviceUnavailable."""
    from kernels.gpu.ed25519 import DeviceVerifier
    from kernels.gpu.opening import open_device  # needs Numba's part for devices

    return DeviceVerifier(open_device(DeviceSettings()))


def default_threads() -> str:
    """Return the thread counts that are measured unless others are named."""
    return ",".join(map(str, sorted({1, len(os.sched_getaffinity(0))})))


def lesser_lanes() -> list[LanesName]:
    """Return the kinds of lanes that this processor has beside those of this process."""
    if LANES is None:
        return []
    return [name for name in LANES_NAMES[LANES_NAMES.index(LANES) + 1 :] if name in LESSER]


def withheld() -> list[str]:
    """Return the instruction sets that this processor has and kernels of this process lack."""
    names = get_host_cpu_features().split(",")
    return sorted({name[1:] for name in names if name.startswith("+")} - cpu_features())


def run_lesser(name: LanesName, options: list[str]) -> list[dict[str, Any]]:
    """Return the rows of `backend` and the baseline from a process that lacks instructions."""
    features = f"{get_host_cpu_features()},-{LESSER[name]}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        subprocess.run(
            [sys.executable, __file__, *options, "--json", str(file)],
            env={**os.environ, "NUMBA_CPU_FEATURES": features, VARIABLE: name},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        rows: list[dict[str, Any]] = json.loads(file.read_text())
    return [row for row in rows if row["path"] in ("backend", KNOWN, BASELINE)]


def run(
    batches: list[int],
    threads: list[int],
    *,
    repeat: int,
    seed: int,
    described: dict[str, Any],
    device: "DeviceVerifier | None" = None,
) -> list[dict[str, Any]]:
    """Measure every path for every thread count and batch; answers the rows of JSON."""
    signed = make_rows(max(batches), seed)
    rows = []
    for count in threads:
        for batch in batches:
            part = (signed[0][:batch], signed[1][:batch], signed[2][:batch])
            verifiers = paths(part, count)
            if device is not None:
                verifiers["device"] = by_device(device, part)
            rates = measure(verifiers, batch, repeat)
            if device is not None and batch <= device.rows_max(MESSAGE_BYTES):
                rates[KERNEL] = [batch * 1e9 / ns for ns in device.kernel_ns(*part, repeat)]
            base = statistics.median(rates[BASELINE])
            for name, values in rates.items():
                median = statistics.median(values)
                rows.append(
                    {
                        "path": name,
                        "lanes": signatures.choose_path(),
                        "withheld": withheld(),
                        "threads": count,
                        "batch": batch,
                        "per_s": {
                            "median": round(median, 1),
                            "min": round(min(values), 1),
                            "max": round(max(values), 1),
                        },
                        "ratio_to_libsodium": round(median / base, 3),
                        "machine": described,
                    }
                )
    return rows


def make_rows(count: int, seed: int) -> Rows:
    """Return `count` valid signatures of different keys over random messages."""
    rng = np.random.Generator(np.random.PCG64(seed))
    seeds = rng.integers(0, 256, (count, 32), np.uint8)
    messages = rng.integers(0, 256, (count, MESSAGE_BYTES), np.uint8)
    keys = insecure_public_keys(seeds)
    return read_only(keys), read_only(insecure_sign(seeds, keys, messages)), read_only(messages)


def paths(rows: Rows, threads: int) -> dict[str, Verify]:
    """Return what verifies all rows once, by the name of the path; each refuses a wrong verdict."""
    pool = Pool(threads)
    baseline = signatures.Verifier("libsodium", pool)
    backend = open_backend("cpu", threads)
    knowing = open_backend("cpu", threads, known_keys=KNOWN_KEYS)
    executor = ThreadPoolExecutor(threads)
    count = len(rows[0])
    cuts = [count * part // threads for part in range(threads + 1)]
    raw = [(k.tobytes(), s.tobytes(), m.tobytes()) for k, s, m in zip(*rows, strict=True)]
    parts = [raw[start:stop] for start, stop in itertools.pairwise(cuts) if start < stop]

    def by_backend() -> None:
        assert backend.verify_signatures(*rows).all(), "all signatures are valid"

    def by_backend_again() -> None:
        assert knowing.verify_signatures(*rows).all(), "all signatures are valid"

    def by_lanes() -> None:
        verdicts = np.zeros(count, np.uint8)
        ranges = signatures.lane_ranges(count, threads)
        pool.run(ed25519.verify_range, ranges, *rows, verdicts)
        assert verdicts.all(), "all signatures are valid"

    def by_loop() -> None:
        verdicts = baseline.verify(*rows)
        assert verdicts.all(), "all signatures are valid"

    def by_each(verify: Callable[[list[tuple[bytes, bytes, bytes]]], None]) -> Verify:
        if len(parts) == 1:
            return lambda: verify(parts[0])
        return lambda: [None for _ in executor.map(verify, parts)].clear()

    return {
        "backend": by_backend,
        **({KNOWN: by_backend_again} if LANES else {}),
        **({"one by one": by_lanes} if LANES else {}),
        BASELINE: by_loop,
        "libsodium from Python": by_each(verify_pynacl),
        "OpenSSL from Python": by_each(verify_openssl),
    }


def by_device(device: "DeviceVerifier", rows: Rows) -> Verify:
    """Return what verifies all rows once on a device."""

    def verify() -> None:
        assert device.verify(*rows).all(), "all signatures are valid"

    return verify


def verify_pynacl(part: list[tuple[bytes, bytes, bytes]]) -> None:
    """Verify (key, signature, message) by PyNaCl, which raises for a wrong one."""
    for key, signature, message in part:
        nacl.bindings.crypto_sign_open(signature + message, key)


def verify_openssl(part: list[tuple[bytes, bytes, bytes]]) -> None:
    """Verify (key, signature, message) by OpenSSL, which raises for a wrong one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for key, signature, message in part:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)


def measure(verifiers: dict[str, Verify], batch: int, repeat: int) -> dict[str, list[float]]:
    """Return signatures per second of each repeat, by path."""
    turns = {}
    for name, verify in verifiers.items():
        verify()
        start = time.perf_counter_ns()
        verify()
        turns[name] = max(1, SAMPLE_NS // (time.perf_counter_ns() - start + 1))
    rates: dict[str, list[float]] = {name: [] for name in verifiers}
    for _ in range(repeat):
        for name, verify in verifiers.items():
            start = time.perf_counter_ns()
            for _ in range(turns[name]):
                verify()
            elapsed = time.perf_counter_ns() - start
            rates[name].append(batch * turns[name] * 1e9 / elapsed)
    return rates


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table for people."""
    table = Table(box=None, pad_edge=False)
    for name in ("threads", "batch"):
        table.add_column(name, justify="right")
    table.add_column("lanes")
    table.add_column("path")
    for name in ("per s", "min", "max", "to libsodium"):
        table.add_column(name, justify="right")
    for row in rows:
        rate = row["per_s"]
        table.add_row(
            str(row["threads"]),
            f"{row['batch']:,}",
            row["lanes"],
            row["path"],
            *(f"{rate[name]:,.0f}" for name in ("median", "min", "max")),
            f"{row['ratio_to_libsodium']:.2f}x",
        )
    return table


if __name__ == "__main__":
    main()
