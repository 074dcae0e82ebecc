"""One quantized row times one token of 8-bit codes, in the exact summation order of llama.cpp's AVX2 kernels.

Every type reduces to the same scheme (ggml-cpu/arch/x86/quants.c, `ggml_vec_dot_*`): in a 32-element group, lane l of
eight owns bytes 4l..4l+3 and sums their integer products; group sums times group scales add up over a block; then

    acc[l] = fma(d_weight * d_activation, float(lane_sum[l]), acc[l])

All integer work is exact, so only this float order decides the bits. `dot_*` run it as AVX2 vector instructions where
the processor has them and as plain loops with the same bits elsewhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from kernels.compiler import helper
from kernels.machine import fma

HAS_AVX2 = bool(llvm.get_host_cpu_features().get("avx2", False))


class Scheme(NamedTuple):
    """What differs between the row dots."""

    groups: int  # 32-element groups in a block
    signed: bool  # codes are int8 (else 0..63 as uint8)
    scales: int  # integer scales in a group: 0, 1 or 2
    offset: bool  # subtract 32 * sum(scale * activation sum): Q6_K's codes are stored without their -32
    mins: str  # "none", "lanes" (four float lanes, Q4_K) or "sum" (one float, Q5_K)


BLOCK_32 = Scheme(groups=1, signed=True, scales=0, offset=False, mins="none")
Q4_K = Scheme(groups=8, signed=False, scales=1, offset=False, mins="lanes")
Q5_K = Scheme(groups=8, signed=False, scales=1, offset=False, mins="sum")
Q6_K = Scheme(groups=8, signed=False, scales=2, offset=True, mins="none")

# codes int8 (n,), scales int16 (n/16,), mins int16 (n/32,), d float32 (blocks,), dmin float32 (blocks,) of the row;
# codes int8 (n,), d float32 (blocks,), sums of 16 and of 32 codes int16 (n/16,), (n/32,) of the token.
Dot = Callable[..., np.float32]


def plain_dot(scheme: Scheme) -> Dot:
    """The row dot as plain loops."""
    groups, scales_in_group, offset = scheme.groups, scheme.scales, scheme.offset
    min_lanes, min_sum = scheme.mins == "lanes", scheme.mins == "sum"

    @helper()
    def dot(
        codes: NDArray[np.int8],
        scales: NDArray[np.int16],
        mins: NDArray[np.int16],
        d: NDArray[np.float32],
        dmin: NDArray[np.float32],
        x: NDArray[np.int8],
        xd: NDArray[np.float32],
        sums16: NDArray[np.int16],
        sums32: NDArray[np.int16],
    ) -> np.float32:
        acc, least = np.zeros(8, np.float32), np.zeros(4, np.float32)
        lanes = np.empty(8, np.int32)
        for b in range(d.size):
            lanes[:] = 0
            for g in range(groups * b, groups * b + groups):
                for lane in range(8):
                    total = np.int32(0)
                    for i in range(32 * g + 4 * lane, 32 * g + 4 * lane + 4):
                        total += np.int32(codes[i]) * np.int32(x[i])
                    if scales_in_group:
                        total *= np.int32(scales[2 * g + lane // 4])
                    lanes[lane] += total
            if offset:
                for lane in range(8):
                    k = 16 * b + 2 * lane
                    pair = np.int32(scales[k]) * sums16[k] + np.int32(scales[k + 1]) * sums16[k + 1]
                    lanes[lane] -= 32 * pair
            scale = xd[b] * d[b]
            for lane in range(8):
                acc[lane] = fma(scale, np.float32(lanes[lane]), acc[lane])
            if min_lanes or min_sum:
                scale, total = -(xd[b] * dmin[b]), np.int32(0)
                for lane in range(4):
                    k = 8 * b + 2 * lane
                    pair = np.int32(mins[k]) * sums32[k] + np.int32(mins[k + 1]) * sums32[k + 1]
                    total += pair
                    if min_lanes:
                        least[lane] = fma(scale, np.float32(pair), least[lane])
                if min_sum:
                    least[0] = fma(scale, np.float32(total), least[0])
        r0, r1, r2, r3 = acc[4] + acc[0], acc[5] + acc[1], acc[6] + acc[2], acc[7] + acc[3]
        result = (r0 + r2) + (r1 + r3)
        if min_lanes:
            result += (least[0] + least[2]) + (least[1] + least[3])
        if min_sum:
            result += least[0]
        return np.float32(result)

    return dot


class _Vectors:
    """Emits the vector instructions of one row dot; `b` is the LLVM IR builder."""

    I8, I16, I32, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()

    def __init__(self, builder: Any) -> None:  # noqa: ANN401
        self.b = builder

    def load(self, element: Any, lanes: int, base: Any, index: Any) -> Any:  # noqa: ANN401
        """`lanes` neighbouring elements, from element number `index` of an array."""
        address = self.b.bitcast(self.b.gep(base, [index]), ir.VectorType(element, lanes).as_pointer())
        value = self.b.load(address)
        value.align = element.width // 8 if hasattr(element, "width") else 4
        return value

    def splat(self, value: Any, lanes: int) -> Any:  # noqa: ANN401
        undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
        one = self.b.insert_element(undefined, value, ir.Constant(self.I32, 0))
        return self.b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(self.I32, lanes), [0] * lanes))

    def pick(self, first: Any, second: Any, lanes: list[int]) -> Any:  # noqa: ANN401
        return self.b.shuffle_vector(first, second, ir.Constant(ir.VectorType(self.I32, len(lanes)), lanes))

    def call(self, name: str, result: Any, *args: Any) -> Any:  # noqa: ANN401
        signature = ir.FunctionType(result, [arg.type for arg in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, signature, name), args)

    def pairs_u8_i8(self, codes: Any, x: Any) -> Any:  # noqa: ANN401
        """16 int16 sums of two neighbouring uint8 * int8 products; |sum| <= 32512 here, so nothing saturates."""
        return self.call("llvm.x86.avx2.pmadd.ub.sw", ir.VectorType(self.I16, 16), codes, x)

    def pairs_i16(self, a: Any, b: Any) -> Any:  # noqa: ANN401
        """int32 sums of two neighbouring int16 * int16 products: 8 of 16 lanes, or 4 of 8."""
        wide = a.type.count == 16
        name = "llvm.x86.avx2.pmadd.wd" if wide else "llvm.x86.sse2.pmadd.wd"
        return self.call(name, ir.VectorType(self.I32, 8 if wide else 4), a, b)

    def fma(self, a: Any, b: Any, c: Any) -> Any:  # noqa: ANN401
        """a*b + c in every float lane, rounded once."""
        return self.call(f"llvm.fma.v{c.type.count}f32", c.type, a, b, c)

    def to_float(self, lanes: Any) -> Any:  # noqa: ANN401
        return self.b.sitofp(lanes, ir.VectorType(self.F32, lanes.type.count))

    def halves_added(self, v: Any) -> Any:  # noqa: ANN401
        half = v.type.count // 2
        return self.b.fadd(self.pick(v, v, list(range(half, 2 * half))), self.pick(v, v, list(range(half))))

    def total(self, v: Any) -> Any:  # noqa: ANN401
        """Sum of 8 or 4 float lanes, upper half onto lower half until one is left (`hsum_float_8`)."""
        while v.type.count > 2:
            v = self.halves_added(v)
        first, second = (self.b.extract_element(v, ir.Constant(self.I32, i)) for i in (0, 1))
        return self.b.fadd(first, second)


def vector_dot(scheme: Scheme) -> Dot:
    """The row dot as AVX2 instructions."""

    @intrinsic
    def dot(_context, codes, scales, mins, d, dmin, x, xd, sums16, sums32):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        signature = types.float32(codes, scales, mins, d, dmin, x, xd, sums16, sums32)
        return signature, lambda cg, builder, sig, args: _emit_row(scheme, cg, builder, sig, args)

    result: Dot = dot
    return result


def _emit_row(scheme: Scheme, cg: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
    v = _Vectors(builder)
    arrays = [cg.make_array(kind)(cg, builder, arg) for kind, arg in zip(signature.args, args, strict=True)]
    codes, scales, mins, d, dmin, x, xd, sums16, sums32 = (array.data for array in arrays)
    eight, four = ir.VectorType(v.F32, 8), ir.VectorType(v.F32, 4)
    acc = cgutils.alloca_once_value(builder, ir.Constant(eight, [0.0] * 8))
    least = cgutils.alloca_once_value(builder, ir.Constant(four, [0.0] * 4))
    blocks = cgutils.unpack_tuple(builder, arrays[3].shape, 1)[0]
    i64 = blocks.type
    with cgutils.for_range(builder, blocks) as loop:
        block = loop.index
        at = lambda per_block, extra: builder.add(builder.mul(block, i64(per_block)), i64(extra))  # noqa: E731
        lanes = ir.Constant(ir.VectorType(v.I32, 8), [0] * 8)
        for g in range(scheme.groups):
            here = at(32 * scheme.groups, 32 * g)
            group = _emit_group(v, scheme, v.load(v.I8, 32, codes, here), v.load(v.I8, 32, x, here), scales, at, g)
            lanes = builder.add(lanes, group)
        if scheme.offset:
            pair = v.pairs_i16(v.load(v.I16, 16, sums16, at(16, 0)), v.load(v.I16, 16, scales, at(16, 0)))
            lanes = builder.sub(lanes, builder.shl(pair, ir.Constant(pair.type, [5] * 8)))
        x_scale = builder.load(builder.gep(xd, [block]))
        scale = builder.fmul(x_scale, builder.load(builder.gep(d, [block])))
        builder.store(v.fma(v.splat(scale, 8), v.to_float(lanes), builder.load(acc)), acc)
        if scheme.mins != "none":
            scale = builder.fneg(builder.fmul(x_scale, builder.load(builder.gep(dmin, [block]))))
            pair = v.pairs_i16(v.load(v.I16, 8, mins, at(8, 0)), v.load(v.I16, 8, sums32, at(8, 0)))
            if scheme.mins == "sum":  # all four lanes hold the same total
                pair = builder.add(pair, v.pick(pair, pair, [2, 3, 0, 1]))
                pair = builder.add(pair, v.pick(pair, pair, [1, 0, 3, 2]))
            builder.store(v.fma(v.splat(scale, 4), v.to_float(pair), builder.load(least)), least)
    result = v.total(builder.load(acc))
    if scheme.mins == "lanes":
        return builder.fadd(result, v.total(builder.load(least)))
    if scheme.mins == "sum":
        return builder.fadd(result, builder.extract_element(builder.load(least), ir.Constant(v.I32, 0)))
    return result


def _emit_group(v: _Vectors, scheme: Scheme, codes: Any, x: Any, scales: Any, at: Any, g: int) -> Any:  # noqa: ANN401
    """Eight int32 lane sums of one 32-element group, times its scales."""
    zero = ir.Constant(codes.type, [0] * 32)
    if scheme.signed:  # |code| * (x with the code's sign): the multiply wants one unsigned side
        negative = v.b.icmp_signed("<", codes, zero)
        codes, x = v.b.select(negative, v.b.neg(codes), codes), v.b.select(negative, v.b.neg(x), x)
    pairs = v.pairs_u8_i8(codes, x)
    if scheme.scales == 0:
        return v.pairs_i16(pairs, ir.Constant(pairs.type, [1] * 16))
    first = v.splat(v.b.load(v.b.gep(scales, [at(16, 2 * g)])), 8)
    second = first if scheme.scales == 1 else v.splat(v.b.load(v.b.gep(scales, [at(16, 2 * g + 1)])), 8)
    return v.pairs_i16(pairs, v.pick(first, second, list(range(16))))


row_dot = vector_dot if HAS_AVX2 else plain_dot
