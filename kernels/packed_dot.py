"""One quantized row times one token of 8-bit codes, in the exact summation order of llama.cpp's AVX2 kernels.

Every type reduces to the same scheme (ggml-cpu/arch/x86/quants.c, `ggml_vec_dot_*`): in a 32-element group, lane l of
eight owns bytes 4l..4l+3 and sums their integer products; group sums times group scales add up over a block; then

    acc[l] = fma(d_weight * d_activation, float(lane_sum[l]), acc[l])

All integer work is exact, so only this float order decides the bits. `dot_*` run it as AVX2 vector instructions where
the processor has them and as plain loops with the same bits elsewhere.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.compiler import helper
from kernels.machine import fma
from kernels.vectors import F32, HAS_AVX2, I8, I16, I32, Vectors, array_intrinsic


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

# Number of blocks; codes, scales, mins, d, dmin of the row as unpack.py leaves them; then of all tokens: codes int8
# (tokens, n), d float32 (tokens, blocks), sums of 16 and of 32 codes int16 (tokens, n/16), (tokens, n/32); which token.
# Tokens are told by number and not as slices, because a slice costs Numba an atomic reference count.
Dot = Callable[..., np.float32]


def plain_dot(scheme: Scheme) -> Dot:
    """The row dot as plain loops."""
    groups, scales_in_group, offset = scheme.groups, scheme.scales, scheme.offset
    min_lanes, min_sum = scheme.mins == "lanes", scheme.mins == "sum"

    @helper()
    def dot(
        blocks: int,
        codes: NDArray[np.int8],
        scales: NDArray[np.int16],
        mins: NDArray[np.int16],
        d: NDArray[np.float32],
        dmin: NDArray[np.float32],
        x: NDArray[np.int8],
        xd: NDArray[np.float32],
        sums16: NDArray[np.int16],
        sums32: NDArray[np.int16],
        t: int,
    ) -> np.float32:
        acc, least = np.zeros(8, np.float32), np.zeros(4, np.float32)
        lanes = np.empty(8, np.int32)
        for b in range(blocks):
            lanes[:] = 0
            for g in range(groups * b, groups * b + groups):
                for lane in range(8):
                    total = np.int32(0)
                    for i in range(32 * g + 4 * lane, 32 * g + 4 * lane + 4):
                        total += np.int32(codes[i]) * np.int32(x[t, i])
                    if scales_in_group:
                        total *= np.int32(scales[scales_in_group * g + (lane // 4 if scales_in_group == 2 else 0)])
                    lanes[lane] += total
            if offset:
                for lane in range(8):
                    k = 16 * b + 2 * lane
                    pair = np.int32(scales[k]) * sums16[t, k] + np.int32(scales[k + 1]) * sums16[t, k + 1]
                    lanes[lane] -= 32 * pair
            scale = xd[t, b] * d[b]
            for lane in range(8):
                acc[lane] = fma(scale, np.float32(lanes[lane]), acc[lane])
            if min_lanes or min_sum:
                scale, total = -(xd[t, b] * dmin[b]), np.int32(0)
                for lane in range(4):
                    k = 8 * b + 2 * lane
                    pair = np.int32(mins[k]) * sums32[t, k] + np.int32(mins[k + 1]) * sums32[t, k + 1]
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


def vector_dot(scheme: Scheme) -> Dot:
    """The row dot as AVX2 instructions."""
    return array_intrinsic(11, types.float32, lambda builder, *values: _Row(scheme, builder, *values).emit())


class _Row:
    """Emits one row dot; pointers and counts are LLVM values."""

    def __init__(
        self,
        scheme: Scheme,
        builder: Any,  # noqa: ANN401
        blocks: Any,  # noqa: ANN401
        codes: Any,  # noqa: ANN401
        scales: Any,  # noqa: ANN401
        mins: Any,  # noqa: ANN401
        d: Any,  # noqa: ANN401
        dmin: Any,  # noqa: ANN401
        x: Any,  # noqa: ANN401
        xd: Any,  # noqa: ANN401
        sums16: Any,  # noqa: ANN401
        sums32: Any,  # noqa: ANN401
        token: Any,  # noqa: ANN401
    ) -> None:
        self.scheme, self.v, self.b, self.blocks = scheme, Vectors(builder), builder, blocks
        self.codes, self.scales, self.mins, self.d, self.dmin = codes, scales, mins, d, dmin
        before = builder.mul(token, blocks)  # blocks of the tokens before this one

        def of_token(pointer: Any, per_block: int) -> Any:  # noqa: ANN401
            return builder.gep(pointer, [builder.mul(before, before.type(per_block))])

        groups = scheme.groups
        self.x, self.xd = of_token(x, 32 * groups), of_token(xd, 1)
        self.sums16, self.sums32 = of_token(sums16, 2 * groups), of_token(sums32, groups)

    def emit(self) -> Any:  # noqa: ANN401
        """The float32 result."""
        v, b, scheme = self.v, self.b, self.scheme
        acc = cgutils.alloca_once_value(b, v.constant(F32, 8, 0.0))
        least = cgutils.alloca_once_value(b, v.constant(F32, 4, 0.0))
        with cgutils.for_range(b, self.blocks) as loop:
            x_scale = b.load(b.gep(self.xd, [loop.index]))
            scale = b.fmul(x_scale, b.load(b.gep(self.d, [loop.index])))
            lanes = v.to_float(self._lanes(loop.index))
            b.store(v.fma(v.splat(scale, 8), lanes, b.load(acc)), acc)
            if scheme.mins != "none":
                scale = b.fneg(b.fmul(x_scale, b.load(b.gep(self.dmin, [loop.index]))))
                b.store(v.fma(v.splat(scale, 4), v.to_float(self._mins(loop.index)), b.load(least)), least)
        result = v.total(b.load(acc))
        if scheme.mins == "lanes":
            return b.fadd(result, v.total(b.load(least)))
        if scheme.mins == "sum":
            return b.fadd(result, b.extract_element(b.load(least), ir.Constant(I32, 0)))
        return result

    def _at(self, block: Any, per_block: int, extra: int = 0) -> Any:  # noqa: ANN401
        return self.b.add(self.b.mul(block, block.type(per_block)), block.type(extra))

    def _lanes(self, block: Any) -> Any:  # noqa: ANN401
        """Eight int32 lane sums of a block."""
        v, b, groups = self.v, self.b, self.scheme.groups
        lanes = v.constant(I32, 8, 0)
        for g in range(groups):
            here = self._at(block, 32 * groups, 32 * g)
            lanes = b.add(lanes, self._group(block, g, v.load(I8, 32, self.codes, here), v.load(I8, 32, self.x, here)))
        if self.scheme.offset:
            here = self._at(block, 16)
            pair = v.pairs_i16(v.load(I16, 16, self.sums16, here), v.load(I16, 16, self.scales, here))
            lanes = b.sub(lanes, v.shifted(pair, -5))
        return lanes

    def _group(self, block: Any, g: int, codes: Any, x: Any) -> Any:  # noqa: ANN401
        """Eight int32 lane sums of one 32-element group, times its scales."""
        v, b, scales = self.v, self.b, self.scheme.scales
        if self.scheme.signed:  # |code| * (x with the code's sign): the multiply wants one unsigned side
            negative = b.icmp_signed("<", codes, v.constant(I8, 32, 0))
            codes, x = b.select(negative, b.neg(codes), codes), b.select(negative, b.neg(x), x)
        pairs = v.pairs_u8_i8(codes, x)  # at most 2 * 128 * 127, so nothing saturates
        if scales == 0:
            return v.pairs_i16(pairs, v.constant(I16, 16, 1))
        per_block = scales * self.scheme.groups
        parts = [
            v.splat(b.load(b.gep(self.scales, [self._at(block, per_block, scales * g + i)])), 8) for i in range(scales)
        ]
        return v.pairs_i16(pairs, v.joined(parts[0], parts[-1]))

    def _mins(self, block: Any) -> Any:  # noqa: ANN401
        """Four int32 sums of mins times activation sums; in the "sum" scheme all four hold their total."""
        v, b = self.v, self.b
        pair = v.pairs_i16(
            v.load(I16, 8, self.mins, self._at(block, 8)), v.load(I16, 8, self.sums32, self._at(block, 8))
        )
        if self.scheme.mins == "sum":
            pair = b.add(pair, v.pick(pair, pair, [2, 3, 0, 1]))
            pair = b.add(pair, v.pick(pair, pair, [1, 0, 3, 2]))
        return pair


row_dot = vector_dot if HAS_AVX2 else plain_dot
