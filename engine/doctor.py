"""Look at the machine before trusting a node to it: each check is one line with a figure.

Nothing is changed: what is written to measure the disk is removed again. A check that fails says
what to do; one that is only worth knowing is a note. `python -m engine doctor` prints them.
"""

import ctypes
import errno
import importlib.metadata
import os
import platform
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from engine.config import Settings
from engine.constants import MESSAGE_BYTES
from engine.crossover import SIZES, crossover
from engine.gossip.addresses import TCP, GossipError, check_listen, parse_peers
from engine.store.disk import free_bytes
from engine.store.errors import StoreError
from engine.store.home import read_format
from engine_api.transport import UNIX, check_address, split_host_port
from engine_api.types import SetupError
from kernels import processor, signatures
from kernels.backend import DeviceSettings, DeviceUnavailable, open_backend
from kernels.layout import U8
from runtime.errors import advice_on_listening
from runtime.lock import LOCK_NAME, holder_of

LIBRARIES = (
    "numpy", "numba", "llvmlite", "pyarrow", "pynacl", "blake3", "lmdb", "grpcio", "protobuf",
    "msgspec", "pyjwt",
)  # fmt: skip
DISK_BYTES = 2**26
"""written at once to measure the rate of the disk"""
DISK_CHUNK_BYTES = 2**20
SYNCS = 32
"""small writes that are waited for"""
SYNC_BYTES = 2**12
DISK_MB_PER_S_MIN = 50
SYNC_US_MAX = 50_000
"""slower disks hold up every vote"""
SIGNATURES = 2_048
"""verified to measure the rate"""
CLOCK_ERROR_US_MAX = 1_000_000
_OTHER_USER = "start it as the user of the home, or let this user read the folders above it"
_TIMEX_BYTES = 256
_UNSYNCHRONISED = 0x40


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor."""

    name: str
    level: Level
    value: str
    what_to_do: str = ""


def examine(home: Path, settings: Settings) -> Iterator[Check]:
    """Make all checks, one after the other; `home` need not exist yet."""
    for check in (
        check_versions,
        check_processor,
        check_signatures,
        lambda: check_device(settings),
        check_clock,
        lambda: check_home(home),
        lambda: check_disk(home, settings.free_bytes_min),
        lambda: check_engine_api(engine_api_address(home, settings)),
        lambda: check_http("http", settings.http_address),
        lambda: check_http("query", settings.query_address),
        lambda: check_gossip(settings.gossip_listen, settings.gossip_peers),
    ):
        yield check()


def engine_api_address(home: Path, settings: Settings) -> str:
    """Return where a node with these settings listens."""
    return settings.engine_api_address or f"{UNIX}{home.absolute().joinpath('run', 'engine.sock')}"


def ok(name: str, value: str) -> Check:
    """Return a check that is well."""
    return Check(name=name, level=Level.OK, value=value)


def note(name: str, value: str, what_to_do: str = "") -> Check:
    """Return a check that is worth knowing."""
    return Check(name=name, level=Level.NOTE, value=value, what_to_do=what_to_do)


def fail(name: str, value: str, what_to_do: str) -> Check:
    """Return a check with which a node should not start."""
    return Check(name=name, level=Level.FAIL, value=value, what_to_do=what_to_do)


def software_version() -> str:
    """Return the version of this program."""
    return importlib.metadata.version("tos-ledger")


def check_versions() -> Check:
    """Name this program, Python and the libraries."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES]
    program = f"tos-ledger {software_version()}"
    return ok("versions", ", ".join([program, f"Python {platform.python_version()}", *found]))


def check_processor() -> Check:
    """Name the processor that kernels are compiled for, and its features that count."""
    features = sorted(
        (processor.AVX512_FEATURES | {"avx2", "avx512ifma"}) & processor.cpu_features()
    )
    cores = len(os.sched_getaffinity(0))
    return ok(
        "processor", f"{processor.cpu_name()}, {cores} cores, {' '.join(features) or 'no vectors'}"
    )


def check_signatures() -> Check:
    """Name the path that signatures take, checked by the published vectors, and its rate."""
    try:
        path = signatures.choose_path()
        backend = open_backend("cpu")
    except (signatures.PathUnavailable, signatures.VerdictDiffers) as error:
        return fail("signatures", str(error), f"unset {signatures.VARIABLE}, or correct it")
    try:
        rows = _signatures()
        backend.verify_signatures(*rows)
        start = time.perf_counter_ns()
        backend.verify_signatures(*rows)
        ns = time.perf_counter_ns() - start
    finally:
        backend.close()
    return ok("signatures", f"path {path}, {SIGNATURES * 10**9 // ns} per second")


_BASE_POINT = "58" + "66" * 31
"""of the curve, encoded (RFC 8032)"""


def _signatures() -> tuple[U8, U8, U8]:
    """Return keys (n, 32), signatures (n, 64) and messages whose verdicts are real work.

    Nobody signed, but points are points, and both scalars have their whole size and are different
    in each row: small ones, or the same ones again, cost libsodium a sixth less.
    """
    random = np.random.default_rng(1)
    keys = np.zeros((SIGNATURES, 32), np.uint8)
    keys[:] = np.frombuffer(bytes.fromhex(_BASE_POINT), np.uint8)
    scalars = random.integers(0, 256, (SIGNATURES, 32), np.uint8)
    scalars[:, 31] &= 0x0F  # below the order of the group, or it is refused unseen
    messages = random.integers(0, 256, (SIGNATURES, MESSAGE_BYTES), np.uint8)
    return keys, np.concatenate([keys, scalars], axis=1), messages


def check_device(settings: Settings) -> Check:
    """Say whether there is a GPU, and from how many transactions on a block is faster there."""
    if settings.device == "cpu":
        return ok("device", "cpu, as the settings say")
    try:
        gpu = open_backend("gpu", device=DeviceSettings(crossover_transactions=1, check_blocks=0))
    except DeviceUnavailable as error:
        if settings.device == "gpu":
            return fail("device", str(error), "install what is missing, or set device to cpu")
        return note("device", f"cpu: {error}")
    cpu = open_backend("cpu", settings.threads or None)
    try:
        found = crossover(cpu, gpu)
    finally:
        cpu.close()
        gpu.close()
    if gpu.degraded:
        return fail("device", gpu.degraded, "look at the device and its driver; set device to cpu")
    if found is None:
        value = f"gpu, but blocks of {SIZES[-1]} transactions are faster on the CPU"
        return note("device", value, "set device to cpu")
    value = f"gpu, faster than the CPU from {found} transactions on"
    if found == settings.device_crossover:
        return ok("device", value)
    return note("device", value, f"set device_crossover to {found}")


def check_clock() -> Check:
    """Say whether the system's clock follows a time server, and how far it may be off."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex") or libc.adjtimex(buffer) < 0:
        return note("clock", "the system does not tell whether it follows a time server")
    error_us = int.from_bytes(buffer.raw[24:32], "little", signed=True)
    status = int.from_bytes(buffer.raw[40:44], "little")
    advice = "run a time service (chrony, systemd-timesyncd): proposals ahead of the clock wait"
    if status & _UNSYNCHRONISED:
        return note("clock", "not synchronised with a time server", advice)
    if error_us > CLOCK_ERROR_US_MAX:
        return note("clock", f"synchronised, off by up to {error_us} us", advice)
    return ok("clock", f"synchronised, off by at most {error_us} us")


def check_home(home: Path) -> Check:
    """Say whose home this is and whether a process has it open."""
    try:
        if not home.exists():
            return note("home", f"{home} does not exist", "make it with `init`")
        chain = read_format(home)
    except StoreError as error:
        level = note if error.code == "store.no_home" else fail
        return level("home", f"{error.what} ({error.where})", error.what_to_do)
    except OSError as error:
        return fail("home", f"{home}: {error.strerror}", _OTHER_USER)
    try:
        holder = holder_of(home)
        state = f"open in process {holder}" if holder else "not open"
    except FileNotFoundError:
        state = "not open"
    except OSError as error:
        state = f"nobody can say whether it is open ({error.strerror}: {LOCK_NAME})"
    return ok("home", f"chain {chain.hex()}, {state}, {free_bytes(home)} bytes free")


def check_disk(home: Path, free_bytes_min: int) -> Check:
    """Measure the disk of the home: bytes per second, and how long a small write takes to last.

    A disk with less room than a node leaves free is a failure: every block would be refused.
    """
    folder = home
    try:
        while not folder.is_dir():
            folder = folder.parent
        free = free_bytes(folder)
    except OSError as error:
        return fail("disk", f"{folder}: {error.strerror}", _OTHER_USER)
    if free < free_bytes_min:
        value = f"{free} bytes are free, less than free_bytes_min: no block would be stored"
        return fail(
            "disk", value, f"free disk space, or lower free_bytes_min, {free_bytes_min} now"
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            rate = _append_mb_per_s(file.fileno())
            waits_us = sorted(_sync_us(file.fileno()) for _ in range(SYNCS))
    except OSError as error:
        where = f"{folder}: {error.strerror}"
        if error.errno == errno.ENOSPC:
            return fail("disk", where, "free disk space")
        return fail("disk", where, "give this user write access, or choose another home")
    middle_us, most_us = int(statistics.median_low(waits_us)), waits_us[-1]
    value = f"{rate} MB/s, fdatasync {middle_us} us (median), {most_us} us (worst of {SYNCS})"
    if rate < DISK_MB_PER_S_MIN or middle_us > SYNC_US_MAX:
        return note("disk", value, "use a faster disk: every vote waits for it")
    return ok("disk", value)


def check_engine_api(address: str) -> Check:
    """Say whether the Engine API can listen where the settings want it."""
    try:
        check_address(address)
    except SetupError as error:
        return fail("engine_api", f"{error.what} ({error.where}): {error.why}", error.what_to_do)
    if not address.startswith(UNIX):
        return _try_port("engine_api", address)
    path = Path(address.removeprefix(UNIX))
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            return note("engine_api", f"a process answers at {path}", "it may be this node")
    return ok("engine_api", f"{path} is free")


def check_http(name: str, address: str) -> Check:
    """Say whether what the setting NAME_address serves can be served there."""
    if not address:
        return note(name, "nothing is served")
    return _try_port(name, address)


def check_gossip(listen: str, peers: str) -> Check:
    """Say whether peers can be listened to where the settings want it, and can be read."""
    if not listen:
        return note("gossip", "no part is taken in gossip")
    try:
        check_listen(listen)
        parse_peers(peers)
    except GossipError as error:
        return fail("gossip", f"{error.what} ({error.where}): {error.why}", error.what_to_do)
    return _try_port("gossip", listen.removeprefix(TCP))


def _try_port(name: str, address: str) -> Check:
    place = split_host_port(address)
    if place is None:
        return fail(name, f"{address} is not a host and a port", f"choose another {name}_address")
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return note(name, f"a process listens at {address}", "it may be this node")
        return fail(name, f"{address}: {error}", advice_on_listening(error))
    return ok(name, f"{address} is free")


def _append_mb_per_s(file: int) -> int:
    chunk = os.urandom(DISK_CHUNK_BYTES)
    start = time.perf_counter_ns()
    for _ in range(DISK_BYTES // DISK_CHUNK_BYTES):
        os.write(file, chunk)
    os.fdatasync(file)
    return DISK_BYTES * 1_000 // (time.perf_counter_ns() - start)


def _sync_us(file: int) -> int:
    start = time.perf_counter_ns()
    os.write(file, bytes(SYNC_BYTES))
    os.fdatasync(file)
    return (time.perf_counter_ns() - start) // 1_000
