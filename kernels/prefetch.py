"""Ask for memory before it is needed: the one thing that makes random access to state affordable.

A prefetch changes nothing that a program can see and may name any element of an array; the index
is not checked, and an address that is not mapped is ignored by the processor. Bodies that also
run on a GPU do not prefetch: their drivers do.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import CONFIG, njit

_FOR_READING, _FOR_WRITING = 0, 1
_KEEP = 3
_DATA = 1


def _emit(context: Any, builder: Any, signature: Any, arguments: Any, mode: int) -> Any:
    """Emit `llvm.prefetch` of element `index` along the first axis of an array."""
    array_type = signature.args[0]
    array = context.make_array(array_type)(context, builder, arguments[0])
    first = context.cast(builder, arguments[1], signature.args[1], types.intp)
    zero = context.get_constant(types.intp, 0)
    indices = [first] + [zero] * (array_type.ndim - 1)
    element = cgutils.get_item_pointer(
        context, builder, array_type, array, indices, wraparound=False, boundscheck=False
    )
    address = builder.bitcast(element, ir.IntType(8).as_pointer())
    word = ir.IntType(32)
    prefetch_type = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, prefetch_type, "llvm.prefetch.p0")
    builder.call(function, [address, word(mode), word(_KEEP), word(_DATA)])
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _emit(context, builder, signature, arguments, _FOR_READING)

    return types.void(array, index), emit


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch_write(typingctx: Any, array: Any, index: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _emit(context, builder, signature, arguments, _FOR_WRITING)

    return types.void(array, index), emit


@njit
def prefetch_nothing(array: Any, index: Any) -> None:
    """Do what a prefetch means to the program: nothing."""


prefetch: Any = prefetch_nothing if CONFIG.DISABLE_JIT else _prefetch
"""Ask for the cache line of `array[index]` (the first element of that row) to read it."""
prefetch_write: Any = prefetch_nothing if CONFIG.DISABLE_JIT else _prefetch_write
"""Ask for the cache line of `array[index]` to write it."""
