"""llama.cpp's exponential of float32 vectors, and what stands on it: SiLU and the numerator of a softmax.

A polynomial of the rest after whole powers of two (`ggml_v_expf` in ggml-cpu/vec.h). With vectors of 16 lanes the power
is put in at once, with 8 it is multiplied in, which rounds otherwise in the last place. What fills no whole vector has
the exponential of the C library.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.machine.vectors import F32, F64, I32, Vectors, array_intrinsic

_POWERS, _ROUND = float.fromhex("0x1.715476p+0"), float.fromhex("0x1.8p23")  # 1 / ln 2; leaves a whole number
_LN2 = tuple(map(float.fromhex, ("0x1.62e4p-1", "0x1.7f7d1cp-20")))
_TERMS = tuple(
    map(float.fromhex, ("0x1.ffffecp-1", "0x1.fffdb6p-2", "0x1.555e66p-3", "0x1.573e2ep-5", "0x1.0e4020p-7"))
)
_ONE, _ROUND_BITS = 0x3F800000, 0x4B400000
_TWICE = 126  # beyond this power of two it is multiplied in two steps
_ENDS = 192


def exponential(v: Vectors, x: Any, width: int) -> Any:  # noqa: ANN401
    """exp(x) of every float32 lane, as a build with vectors of `width` lanes has it."""
    b, count = v.b, x.type.count
    floats, words = x.type, ir.VectorType(I32, count)

    def of(value: float) -> Any:  # noqa: ANN401
        return v.constant(F32, count, value)

    def word(value: int) -> Any:  # noqa: ANN401
        return v.constant(I32, count, value)

    shifted = v.fma(x, of(_POWERS), of(_ROUND))
    n = b.fsub(shifted, of(_ROUND))
    rest = v.fma(n, of(-_LN2[1]), v.fma(n, of(-_LN2[0]), x))
    square = b.fmul(rest, rest)
    high = v.fma(v.fma(of(_TERMS[4]), rest, of(_TERMS[3])), square, v.fma(of(_TERMS[2]), rest, of(_TERMS[1])))
    size = v.call(f"llvm.fabs.v{count}f32", floats, n)
    negative = b.fcmp_ordered("<=", n, of(0.0))
    if width == 16:
        near = v.fma(high, square, v.fma(of(_TERMS[0]), rest, of(1.0)))
        # half of the power first, which is exact, so that the product rounds once, also to a denormal number
        power = b.sub(b.bitcast(shifted, words), word(_ROUND_BITS))
        first = b.ashr(power, word(1))
        powers = (first, b.sub(power, first))
        factors = [b.bitcast(b.shl(b.add(power, word(127)), word(23)), floats) for power in powers]
        result = b.fmul(b.fmul(near, factors[0]), factors[1])
        limit = b.select(negative, of(0.0), of(float("inf")))
        return b.select(b.fcmp_ordered(">", size, of(_ENDS)), limit, result)
    near = v.fma(high, square, b.fmul(of(_TERMS[0]), rest))
    power = b.shl(b.bitcast(shifted, words), word(23))
    whole = b.bitcast(b.add(power, word(_ONE)), floats)
    aside = b.select(negative, word(-0x7E000000), word(0))
    second = b.bitcast(b.add(aside, word(0x7F000000)), floats)
    first = b.bitcast(b.sub(power, aside), floats)
    result = v.fma(whole, near, whole)
    result = b.select(b.fcmp_ordered(">", size, of(_TWICE)), b.fmul(v.fma(first, near, first), second), result)
    return b.select(b.fcmp_ordered(">", size, of(_ENDS)), b.fmul(second, second), result)


_MOST = 16  # lanes that are computed together


def _emit_silu(width: int) -> Callable[..., None]:
    def emit(b: Any, x: Any, start: Any, count: Any, out: Any) -> None:  # noqa: ANN401
        v, i64 = Vectors(b), count.type

        def vector(place: Any, lanes: int) -> None:  # noqa: ANN401
            values = v.load(F32, lanes, x, place)
            powers = exponential(v, b.fsub(v.constant(F32, lanes, 0.0), values), width)
            v.store(b.fdiv(values, b.fadd(v.constant(F32, lanes, 1.0), powers)), out, place)

        with cgutils.for_range(b, b.udiv(count, i64(_MOST))) as part:
            vector(b.add(start, b.mul(part.index, i64(_MOST))), _MOST)
        done = b.and_(count, i64(-_MOST))
        if width < _MOST:
            with cgutils.for_range(b, b.udiv(b.sub(count, done), i64(width))) as part:
                vector(b.add(b.add(start, done), b.mul(part.index, i64(width))), width)

    return emit


def silu_vectors(width: int) -> Callable[..., None]:
    """A kernel function of (x, start, count, out): x / (1 + exp(-x)) of whole vectors of x from x[start] on."""
    return array_intrinsic(4, types.void, _emit_silu(width))


def _emit_powers(width: int) -> Callable[..., Any]:
    def emit(b: Any, x: Any, largest: Any, count: Any) -> Any:  # noqa: ANN401
        v, i64 = Vectors(b), count.type
        total = cgutils.alloca_once_value(b, ir.Constant(F64, 0.0))
        b.store(ir.Constant(F64, 0.0), total)
        most = v.splat(largest, width)
        with cgutils.for_range(b, b.udiv(count, i64(width))) as part:
            at = b.mul(part.index, i64(width))
            powers = exponential(v, b.fsub(v.load(F32, width, x, at), most), width)
            v.store(powers, x, at)
            b.store(b.fadd(b.load(total), b.fpext(v.total(powers), F64)), total)
        return b.load(total)

    return emit


def powers_and_sum(width: int) -> Callable[..., Any]:
    """A kernel function of (x, largest, count): exp(x - largest) of whole vectors in place of x, and their sum.

    Float32 within a vector, float64 from one to the next (`ggml_vec_soft_max_f32`).
    """
    return array_intrinsic(3, types.float64, _emit_powers(width))
