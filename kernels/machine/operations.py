"""Machine operations that Numba does not offer: half precision, fused multiply-add, and packed integer dots.

The bits are defined by IEEE 754 (fma rounds once; conversions round to even).
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.machine.vectors import Vectors


def _half_to_float(_context: Any, _bits: Any) -> Any:  # noqa: ANN401
    """float32 value of an IEEE half given as uint16 bits."""

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        v = Vectors(builder)
        return v.first(v.from_half(v.alone(args[0])))

    return types.float32(types.uint16), emit


def _float_to_half(_context: Any, _value: Any) -> Any:  # noqa: ANN401
    """uint16 bits of the IEEE half nearest to a float32, ties to even."""

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        v = Vectors(builder)
        return v.first(v.to_half(v.alone(args[0])))

    return types.uint16(types.float32), emit


def _fma(_context: Any, _a: Any, _b: Any, c: Any) -> Any:  # noqa: ANN401
    """a*b + c in the float type of c, rounded once."""
    real = types.float64 if c == types.float64 else types.float32

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.fma(*args)

    return real(real, real, real), emit


def _bits(_context: Any, value: Any) -> Any:  # noqa: ANN401
    """The bits of a float as an unsigned integer; those of positive floats are in numeric order."""
    wide = value == types.float64

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(args[0], ir.IntType(64 if wide else 32))

    return (types.uint64 if wide else types.uint32)(value), emit


def _from_bits(_context: Any, value: Any) -> Any:  # noqa: ANN401
    """The float that has these bits, of uint32 or uint64."""
    wide = value == types.uint64

    def emit(_cg: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        return builder.bitcast(args[0], ir.DoubleType() if wide else ir.FloatType())

    return (types.float64 if wide else types.float32)(value), emit


half_to_float = cast("Callable[[np.uint16], np.float32]", intrinsic(_half_to_float))
float_to_half = cast("Callable[[np.float32], np.uint16]", intrinsic(_float_to_half))
fma = cast("Callable[[Any, Any, Any], Any]", intrinsic(_fma))
bits = cast("Callable[[np.floating[Any]], np.unsignedinteger[Any]]", intrinsic(_bits))
from_bits = cast("Callable[[np.unsignedinteger[Any]], Any]", intrinsic(_from_bits))
