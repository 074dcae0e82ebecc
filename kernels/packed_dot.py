"""One quantized row times one token of 8-bit codes, in the exact summation order of llama.cpp's AVX2 kernels.

Every type reduces to the same scheme (ggml-cpu/arch/x86/quants.c, `ggml_vec_dot_*`): in a 32-element group, lane l of
eight owns bytes 4l..4l+3 and sums their integer products; group sums times group scales add up over a block; then

    acc[l] = fma(d_weight * d_activation, float(lane_sum[l]), acc[l])

All integer work is exact, so only this float order decides the bits. `dot_*` run it as AVX2 vector instructions where
the processor has them and as plain loops with the same bits elsewhere.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.compiler import helper
from kernels.machine import fma
from kernels.tiles import over_tokens
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

# A kernel function of (t, blocks, codes, scales, mins, d, dmin, x, xd, sums16, sums32, out, columns, r): multiplies the
# row that unpack.py left in codes ... dmin with tokens t, t+1, ... and writes to out (all tokens, columns) at column r.
# Of all tokens: codes x int8 (tokens, n), scales xd float32 (tokens, blocks), sums of 16 and of 32 codes int16.
# Tokens are told by number and not as slices, because a slice costs Numba an atomic reference count.
Dot = Callable[..., None]


def plain_dot(scheme: Scheme, tokens: int) -> Dot:
    """The dots of one row with `tokens` tokens as plain loops."""
    dot = _plain_row(scheme)

    @helper(of=(scheme, tokens))
    def dots(t, blocks, codes, scales, mins, d, dmin, x, xd, sums16, sums32, out, columns, r):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, ARG001
        for token in range(t, t + tokens):
            out[token, r] = dot(blocks, codes, scales, mins, d, dmin, x, xd, sums16, sums32, token)

    return dots


def _plain_row(scheme: Scheme) -> Callable[..., np.float32]:
    groups, scales_in_group, offset = scheme.groups, scheme.scales, scheme.offset
    min_lanes, min_sum = scheme.mins == "lanes", scheme.mins == "sum"

    @helper(of=scheme)
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


def vector_dot(scheme: Scheme, tokens: int) -> Dot:
    """The dots of one row with `tokens` tokens as AVX2 instructions."""
    return array_intrinsic(14, types.void, lambda builder, *values: _Tile(scheme, tokens, builder, *values).emit())


class _Token(NamedTuple):
    """Pointers to one token's activations, and the places of its running sums."""

    x: Any
    xd: Any
    sums16: Any
    sums32: Any
    acc: Any
    least: Any


class _Tile:
    """Emits the dots of one row with a few tokens; pointers and counts are LLVM values."""

    def __init__(self, scheme: Scheme, tokens: int, builder: Any, t: Any, blocks: Any, *pointers: Any) -> None:  # noqa: ANN401
        self.scheme, self.v, self.b, self.t, self.blocks = scheme, Vectors(builder), builder, t, blocks
        self.codes, self.scales, self.mins, self.d, self.dmin = pointers[:5]
        self.out, self.columns, self.r = pointers[9:]
        self.tokens = [self._token(i, *pointers[5:9]) for i in range(tokens)]

    def _token(self, i: int, x: Any, xd: Any, sums16: Any, sums32: Any) -> _Token:  # noqa: ANN401
        b, groups = self.b, self.scheme.groups
        before = b.mul(b.add(self.t, self.t.type(i)), self.blocks)  # blocks of the tokens before this one

        def of_token(pointer: Any, per_block: int) -> Any:  # noqa: ANN401
            return b.gep(pointer, [b.mul(before, before.type(per_block))])

        return _Token(
            of_token(x, 32 * groups),
            of_token(xd, 1),
            of_token(sums16, 2 * groups),
            of_token(sums32, groups),
            cgutils.alloca_once_value(b, self.v.constant(F32, 8, 0.0)),
            cgutils.alloca_once_value(b, self.v.constant(F32, 4, 0.0)),
        )

    def emit(self) -> None:
        """The whole row, then the results."""
        v, b = self.v, self.b
        with cgutils.for_range(b, self.blocks) as loop:
            d, dmin = (b.load(b.gep(self.d, [loop.index])), None)
            if self.scheme.mins != "none":
                dmin = b.load(b.gep(self.dmin, [loop.index]))
            for token, lanes in zip(self.tokens, self._lanes(loop.index), strict=True):
                x_scale = b.load(b.gep(token.xd, [loop.index]))
                scale = v.splat(b.fmul(x_scale, d), 8)
                b.store(v.fma(scale, v.to_float(lanes), b.load(token.acc)), token.acc)
                if dmin is not None:
                    scale = v.splat(b.fneg(b.fmul(x_scale, dmin)), 4)
                    least = v.to_float(self._mins(loop.index, token))
                    b.store(v.fma(scale, least, b.load(token.least)), token.least)
        for i, token in enumerate(self.tokens):
            place = b.add(b.mul(self.columns, b.add(self.t, self.t.type(i))), self.r)
            b.store(self._result(token), b.gep(self.out, [place]))

    def _result(self, token: _Token) -> Any:  # noqa: ANN401
        v, b = self.v, self.b
        result = v.total(b.load(token.acc))
        if self.scheme.mins == "lanes":
            return b.fadd(result, v.total(b.load(token.least)))
        if self.scheme.mins == "sum":
            return b.fadd(result, b.extract_element(b.load(token.least), ir.Constant(I32, 0)))
        return result

    def _at(self, block: Any, per_block: int, extra: int = 0) -> Any:  # noqa: ANN401
        return self.b.add(self.b.mul(block, block.type(per_block)), block.type(extra))

    def _lanes(self, block: Any) -> list[Any]:  # noqa: ANN401
        """Eight int32 lane sums of a block, per token."""
        v, b, groups = self.v, self.b, self.scheme.groups
        lanes = [v.constant(I32, 8, 0)] * len(self.tokens)
        for g in range(groups):
            here = self._at(block, 32 * groups, 32 * g)
            codes, scale = v.load(I8, 32, self.codes, here), self._scale(block, g)
            for i, token in enumerate(self.tokens):
                x = v.load(I8, 32, token.x, here)
                if self.scheme.signed:  # |code| * (x with the code's sign): the multiply wants one unsigned side
                    pairs = v.pairs_u8_i8(v.with_sign(codes, codes), v.with_sign(x, codes))
                else:
                    pairs = v.pairs_u8_i8(codes, x)
                lanes[i] = b.add(lanes[i], v.pairs_i16(pairs, scale))  # pairs <= 2 * 128 * 127: nothing saturates
        if self.scheme.offset:
            here = self._at(block, 16)
            scale = v.load(I16, 16, self.scales, here)
            for i, token in enumerate(self.tokens):
                pair = v.pairs_i16(v.load(I16, 16, token.sums16, here), scale)
                lanes[i] = b.sub(lanes[i], v.shifted(pair, -5))
        return lanes

    def _scale(self, block: Any, g: int) -> Any:  # noqa: ANN401
        """The integer scale of every int16 lane of a group."""
        v, b, scales = self.v, self.b, self.scheme.scales
        if scales == 0:
            return v.constant(I16, 16, 1)
        at = [self._at(block, scales * self.scheme.groups, scales * g + i) for i in range(scales)]
        parts = [v.splat(b.load(b.gep(self.scales, [place])), 8) for place in at]
        return v.joined(parts[0], parts[-1])

    def _mins(self, block: Any, token: _Token) -> Any:  # noqa: ANN401
        """Four int32 sums of mins times activation sums; in the "sum" scheme all four hold their total."""
        v, b, here = self.v, self.b, self._at(block, 8)
        pair = v.pairs_i16(v.load(I16, 8, self.mins, here), v.load(I16, 8, token.sums32, here))
        if self.scheme.mins == "sum":
            pair = b.add(pair, v.pick(pair, pair, [2, 3, 0, 1]))
            pair = b.add(pair, v.pick(pair, pair, [1, 0, 3, 2]))
        return pair


def row_dots(scheme: Scheme) -> Dot:
    """A kernel function of (tokens, blocks, codes ...) that multiplies one row with all tokens."""
    make = vector_dot if HAS_AVX2 else plain_dot
    return over_tokens(partial(make, scheme))
