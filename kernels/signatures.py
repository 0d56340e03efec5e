"""Signature verification: the choice of a path, its check before use, and libsodium's path.

- `ifma`, `avx512` and `avx2` compute signatures side by side (`ed25519`), where kernels may use the
  instructions (`processor`): eight, whose numbers AVX-512 IFMA multiplies, eight without it, or
  four. A process has the kernels of one of them. Many are judged by one equation
  (`ed25519_batch`). The choice is made by what the compiler was told to use, before anything is
  compiled: it ends the process when it meets an instruction that it may not emit.
- `libsodium` calls the function of libsodium 1.0.20, which PyNaCl carries, by address from a
  compiled loop. It gives exactly the verdict of spec/signatures.md#verdict, on every CPU.

`TOS_ED25519` forces one. Before a path is used in a process it judges `signature_vectors_table`.
"""

import ctypes
import itertools
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from llvmlite import ir
from nacl import _sodium  # the extension module itself: it carries libsodium's symbols
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels import jit, processor
from kernels.ed25519_batch import BATCH_MIN, Batches
from kernels.jit import njit
from kernels.known_keys import KnownKeys
from kernels.lanes64 import WIDTH
from kernels.layout import U8
from kernels.pool import Pool
from kernels.processor import (
    LANES,
    LANES_NAMES,
    LanesName,
    cpu_name,
    missing_features,
)
from kernels.signature_vectors_table import VECTORS

VARIABLE: Final = processor.VARIABLE
PathName = LanesName | Literal["libsodium"]

LIBSODIUM_GRAIN: Final = 8
"""Signatures below which a second thread costs more than it brings."""
CHECK_KEYS: Final = 2**14
"""Entries for the keys of the published vectors: few of them stand in each other's place."""
HANDOVER_GROUPS: Final = 2
"""Groups of WIDTH that the calling thread verifies while another one wakes up."""

# Its address is an argument, not a constant, so that compiled code can be cached.
_LIBRARY = ctypes.CDLL(_sodium.__file__)
_VERIFY = _LIBRARY.crypto_sign_verify_detached
_VERIFY.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulonglong, ctypes.c_char_p)
VERIFY_ADDRESS = np.uint64(ctypes.cast(_VERIFY, ctypes.c_void_p).value or 0)
assert VERIFY_ADDRESS, "PyNaCl's libsodium exports crypto_sign_verify_detached"
_POINTER_BITS = 8 * ctypes.sizeof(ctypes.c_void_p)
assert _POINTER_BITS == 64, "kernels pass addresses as 64-bit integers"


class PathUnavailable(Exception):
    """A path was asked for that does not exist, or that this CPU cannot run."""


class VerdictDiffers(Exception):
    """A path judges a published signature otherwise than the specification: it must not run."""


@intrinsic  # type: ignore[untyped-decorator]
def _call_verify(
    typing_context: Any, address: Any, signature: Any, message: Any, length: Any, key: Any
) -> Any:
    """`int crypto_sign_verify_detached(signature, message, length, key)` at `address`."""
    arguments = types.int32(types.uint64, types.uint64, types.uint64, types.uint64, types.uint64)

    def generate(context: Any, builder: Any, signature_: Any, values: Any) -> Any:
        pointer = cgutils.voidptr_t
        kind = ir.FunctionType(ir.IntType(32), [pointer, pointer, ir.IntType(64), pointer])
        function = builder.inttoptr(values[0], kind.as_pointer())
        pointers = [builder.inttoptr(values[i], pointer) for i in (1, 2, 4)]
        return builder.call(function, [pointers[0], pointers[1], values[3], pointers[2]])

    return arguments, generate


_PROTOTYPE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulonglong, ctypes.c_void_p
)


def _call_interpreted(address: Any, signature: Any, message: Any, length: Any, key: Any) -> int:
    """Do what `_call_verify` does, in a run without the compiler (`NUMBA_DISABLE_JIT`)."""
    verdict: int = _PROTOTYPE(int(address))(int(signature), int(message), int(length), int(key))
    return verdict


call_verify: Any = _call_interpreted if jit.CONFIG.DISABLE_JIT else _call_verify


@njit
def verify_rows(
    address: np.uint64,
    public_keys: U8,
    signatures: U8,
    messages: U8,
    out: U8,
    start: int,
    stop: int,
) -> None:
    """Write 1 to `out` for each valid signature of rows [start, stop), 0 for the others.

    public_keys: (n, 32), signatures: (n, 64), messages: (n, m), all C-contiguous read-only uint8.
    """
    key = np.uint64(public_keys.ctypes.data)
    signature = np.uint64(signatures.ctypes.data)
    message = np.uint64(messages.ctypes.data)
    length = np.uint64(messages.shape[1])
    for i in range(start, stop):
        row = np.uint64(i)
        verdict = call_verify(
            address,
            signature + row * np.uint64(64),
            message + row * length,
            length,
            key + row * np.uint64(32),
        )
        out[i] = np.uint8(1) if verdict == 0 else np.uint8(0)


def choose_path() -> PathName:
    """Return the path for this process: what `TOS_ED25519` says, else the fastest that can run.

    Raises PathUnavailable for a name that is none, for lanes that kernels may not use here, and
    for other lanes than those that the kernels were imported for.
    """
    forced = os.environ.get(VARIABLE) or None
    if forced is None:
        return LANES if LANES is not None and not missing_features(LANES) else "libsodium"
    if forced == "libsodium":
        return "libsodium"
    for name in LANES_NAMES:
        if forced == name:
            _require(name)
            return name
    known = ", ".join(LANES_NAMES)
    raise PathUnavailable(f"{VARIABLE}={forced}: no such path; set it to {known} or libsodium")


def _require(name: LanesName) -> None:
    """Raise PathUnavailable unless kernels have these lanes and may use them."""
    missing = missing_features(name)
    if missing:
        raise PathUnavailable(
            f"{VARIABLE}={name}: kernels are compiled for {cpu_name()} without"
            f" {', '.join(missing)}; unset {VARIABLE}, or set it to libsodium"
        )
    if name != LANES:
        raise PathUnavailable(
            f"{VARIABLE}={name}: this process has imported its kernels for {LANES}; set"
            f" {VARIABLE} before it starts"
        )


def verify_one(public_key: U8, signature: U8, message: U8) -> bool:
    """Judge a single signature by libsodium, without what it costs to call a kernel.

    public_key, signature, message: any shape, of 32, 64 and m bytes.
    """
    text = message.tobytes()
    verdict = _VERIFY(signature.tobytes(), text, len(text), public_key.tobytes())
    return bool(verdict == 0)


def lane_ranges(count: int, threads: int) -> list[tuple[int, int]]:
    """Cut [0, count) into at most `threads` ranges at multiples of WIDTH.

    The first is the caller's own and longer by what another thread loses until it runs.
    """
    groups = -(-count // WIDTH)
    helpers = min(threads - 1, max(0, groups - HANDOVER_GROUPS) // (HANDOVER_GROUPS + 1))
    share = (groups - HANDOVER_GROUPS * min(helpers, 1)) // (helpers + 1)
    cuts = [0, *[groups - share * (helpers - i) for i in range(helpers)], groups]
    return [(WIDTH * start, min(WIDTH * stop, count)) for start, stop in itertools.pairwise(cuts)]


def batch_threads(count: int, threads: int) -> int:
    """Return over how many threads signatures are shared out, so that each has a whole batch.

    What makes one is not cut into less: that costs more work than other threads take over.
    """
    if count < BATCH_MIN:
        return threads
    return max(1, min(threads, count // (BATCH_MIN + HANDOVER_GROUPS * WIDTH)))


class Verifier:
    """Verifies signatures on one path, on the threads of a pool; any thread may call."""

    def __init__(self, path: PathName, pool: Pool, known_keys: int = 0) -> None:
        """Borrow the pool; keep what saves work for so many keys, where the path makes use of it.

        Raises ValueError for a number of keys beyond `KNOWN_KEYS_MAX`.
        """
        self.path = path
        self._pool = pool
        self.known = KnownKeys(known_keys if path != "libsodium" else 0)
        self._batches = Batches(spares_max=pool.threads, known=self.known)

    def verify(self, public_keys: U8, signatures: U8, messages: U8) -> U8:
        """Return 1 for each valid signature, 0 for the others, (n,) uint8.

        A single one goes to libsodium on any path: from two on, lanes, some of them idle, are as
        fast or faster. (Zen 4, in us: libsodium takes 53 for each; the first group of lanes takes
        68 by `ifma`, 98 by `avx512`, 72 by `avx2`, however many signatures it has.)

        public_keys: (n, 32), signatures: (n, 64), messages: (n, m), C-contiguous read-only uint8.
        """
        rows = public_keys, signatures, messages
        count, pool = len(public_keys), self._pool
        if count == 1:
            return np.array([verify_one(*rows)], np.uint8)
        out = np.zeros(count, np.uint8)
        if self.path != "libsodium":
            ranges = lane_ranges(count, batch_threads(count, pool.threads))
            pool.run(self._batches.verify_range, ranges, *rows, out)
        else:
            ranges = pool.ranges(count, grain=LIBSODIUM_GRAIN)
            pool.run(verify_rows, ranges, VERIFY_ADDRESS, *rows, out)
        return out

    def check(self) -> None:
        """Judge the published vectors; raises VerdictDiffers, which names the first difference."""
        columns = [
            np.frombuffer(bytes.fromhex("".join("".join(row) for row in rows)), np.uint8)
            for rows in (
                [vector[0:1] for vector in VECTORS],
                [vector[1:3] for vector in VECTORS],
                [vector[3:4] for vector in VECTORS],
            )
        ]
        keys, signed, messages = (column.reshape(len(VECTORS), -1) for column in columns)
        for vector, verdict in zip(VECTORS, self.verify(keys, signed, messages), strict=True):
            if bool(verdict) != vector[4]:
                raise self._differs(vector)
        if self.path == "libsodium":
            return
        known = KnownKeys(CHECK_KEYS)
        for _ in ("new keys", "known keys"):
            accepted = self._batches.accepts_each((keys, signed, messages), known)
            for vector, is_accepted in zip(VECTORS, accepted, strict=True):
                # What a batch does not accept may still be valid, but not all of them.
                if not accepted.any() or (is_accepted and not vector[4]):
                    raise self._differs(vector)

    def _differs(self, vector: tuple[str, str, str, str, bool]) -> VerdictDiffers:
        return VerdictDiffers(
            f"Ed25519 path {self.path}: signature {vector[1]}{vector[2]} by {vector[0]} of"
            f" {vector[3]} is {'valid' if vector[4] else 'not valid'}, but this path says"
            f" otherwise; it must not be used: set {VARIABLE} to another, and report this CPU,"
            f" {cpu_name()}"
        )


@cache
def start_path(path: PathName) -> None:
    """Compile a path, saying so if that takes a while, and let it judge the published vectors.

    Raises VerdictDiffers if it judges one of them otherwise: nothing may run on such a path.
    """
    is_compiling = path != "libsodium" and not _is_compiled()
    if is_compiling:
        _say(f"compiling Ed25519 for {cpu_name()}: once, some 20 s ...")
    start = time.monotonic_ns()
    check_path(path)
    if is_compiling:
        _say(f"Ed25519 is compiled ({(time.monotonic_ns() - start) // 1_000_000} ms)")


def check_path(path: PathName) -> None:
    """Let a path judge the published vectors; raises VerdictDiffers."""
    pool = Pool(1)
    try:
        Verifier(path, pool).check()
    finally:
        pool.close()


def _is_compiled() -> bool:
    """Say whether the cache of this process has the kernel (a wrong answer costs a message)."""
    return any(Path(jit.CONFIG.CACHE_DIR).glob("*/ed25519_batch_lanes.have_order-*.nbi"))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
