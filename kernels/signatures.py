"""Ed25519 verification by libsodium, called by address from a compiled loop that holds no GIL.

libsodium 1.0.20, which PyNaCl carries, gives exactly the verdict of spec/signatures.md#verdict.
Its function's address is an argument, not a constant, so that compiled code can be cached.
"""

import ctypes
from typing import Any

import numpy as np
from llvmlite import ir
from nacl import _sodium  # the extension module itself: it carries libsodium's symbols
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import njit
from kernels.layout import U8

_LIBRARY = ctypes.CDLL(_sodium.__file__)
VERIFY_ADDRESS = np.uint64(
    ctypes.cast(_LIBRARY.crypto_sign_verify_detached, ctypes.c_void_p).value or 0
)
assert VERIFY_ADDRESS, "PyNaCl's libsodium exports crypto_sign_verify_detached"
_POINTER_BITS = 8 * ctypes.sizeof(ctypes.c_void_p)
assert _POINTER_BITS == 64, "kernels pass addresses as 64-bit integers"


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
        verdict = _call_verify(
            address,
            signature + row * np.uint64(64),
            message + row * length,
            length,
            key + row * np.uint64(32),
        )
        out[i] = np.uint8(1) if verdict == 0 else np.uint8(0)
