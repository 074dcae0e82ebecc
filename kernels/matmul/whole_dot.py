"""Quantized rows times 8-bit activations whose integer products are added up before anything is rounded: one float sum.

So llama.cpp's CPU backend multiplies weights that it has rearranged in memory (ggml-cpu/arch/x86/repack.cpp), and in
tiles (ggml-cpu/tiled/tiled-kernel.cpp). Everything is laid out as in packed_dot.py; a sum stands in all four lanes
that its token has, and of a block

    sum = fma(d_weight * d_activation, float(products), sum)
    sum = fma(fma(-dmin_weight, float(mins), d_weight * float(products)), d_activation, sum)        of joint sums

What is taken off has a sum of its own where sums are not joint: even lanes hold the one and odd lanes the other, which
is subtracted in the end.

Rearranged types with blocks of 256 add up parts of a block only for tokens that are taken four at a time.
"""

from functools import reduce
from typing import Any

from numba import types
from numba.core import cgutils

from kernels.formats.format import Dot
from kernels.machine.vectors import F32, I32, array_intrinsic
from kernels.matmul.byte_products import HOST, Portable
from kernels.matmul.packed_dot import GROUPS, Added, Chunk


def whole_dots(dot: Dot, how: Portable = HOST) -> Any:  # noqa: ANN401
    """A kernel function with the parameters of `packed_dot.chunk_dots`; fours : tiles of tokens in whole fours."""
    return array_intrinsic(13, types.void, lambda builder, *values: _Whole(dot, how, builder, *values).emit())


class _Whole(Chunk):
    """Emits the products of one chunk."""

    def _over_tiles(self, codes: Any, signs: Any, scales: Any, mins: Any) -> None:  # noqa: ANN401
        """Those of whole fours, and the others in blocks."""
        if self.dot.whole >= self.dot.block:
            super()._over_tiles(codes, signs, scales, mins)
            return
        with cgutils.for_range(self.b, self.fours) as loop:
            self._of_one_tile(loop.index, codes, signs, scales, mins)
        self.dot = self.dot._replace(whole=self.dot.block)
        with cgutils.for_range(self.b, self.b.sub(self.tiles, self.fours)) as loop:
            self._of_one_tile(self.b.add(self.fours, loop.index), codes, signs, scales, mins)

    def _small_blocks(self, codes: list[list[Any]], xs: list[Any], tile: Any, acc: list[Any]) -> list[Any]:  # noqa: ANN401
        v, b, total = self.v, self.b, acc[0]
        for g in range(GROUPS):
            corrected = [self._of_row(I32, 4, self.scales, 2 * g + h, 2 * GROUPS) for h in (0, 1)]
            lanes = [self.how.signed(v, codes[g][h], xs[2 * g + h], corrected[h]) for h in (0, 1)]
            factor = b.fmul(self._of_tile(F32, self.xd, tile, g, GROUPS), self._factor(self.d, g, GROUPS))
            total = v.fma(factor, v.to_float(self._of_four(b.add(*lanes))), total)
        return [total]

    def _one_block(
        self,
        added: Added,
        mins: list[Any],
        sums: list[Any],
        tile: Any,  # noqa: ANN401
        acc: list[Any],
    ) -> list[Any]:
        v, b, dot, acc = self.v, self.b, self.dot, list(acc)
        xd, d = self._of_tile(F32, self.xd, tile, 0, 1), self._factor(self.d, 0, 1)
        least = [self.how.words(v, v.constant(I32, self.lanes, 0), *some) for some in zip(mins, sums, strict=True)]
        if dot.joint or dot.mins == "offset":
            return [self._joint(self._of_four(self._products(added, 0, GROUPS)), least, xd, d, acc[0])]
        parts = [self._products(added, first, dot.whole // 32) for first in range(0, GROUPS, dot.whole // 32)]
        factor = b.fmul(xd, self._interleaved(d, self._factor(self.dmin, 0, 1)))
        for total in self._beside(parts, least):
            acc[0] = v.fma(factor, v.to_float(total), acc[0])
        return acc

    def _products(self, added: Added, first: int, groups: int) -> Any:  # noqa: ANN401
        """Sums in lanes over both halves of some groups, in two chains."""
        lanes = [self.v.constant(I32, self.lanes, 0)] * 2
        for g in range(first, first + groups):
            for h in (0, 1):
                lanes[h] = added(lanes[h], g, h)
        return self.b.add(*lanes)

    def _beside(self, parts: list[Any], least: list[Any]) -> list[Any]:
        """The sum of every part in the even lanes, and what is taken off it in the odd ones.

        Lanes of `least` hold what is taken off in equal parts of a block, one after the other.
        """
        if len(parts) == 4 * len(least):
            sums = self._transposed(parts)
            both = [self.v.pick(sums, least[0], self._of_pairs(lanes)) for lanes in ((0, 1), (2, 3))]
            return [self.v.pick(one, one, self._lanes(lanes)) for one in both for lanes in ((0, 1, 0, 1), (2, 3, 2, 3))]
        each = len(least) // len(parts)
        off = [reduce(self.b.add, least[n : n + each]) for n in range(0, len(least), each)]
        return [self._interleaved(*map(self._of_four, pair)) for pair in zip(parts, off, strict=True)]

    def _transposed(self, parts: list[Any]) -> Any:  # noqa: ANN401
        """The sums of four lanes of each of four vectors, side by side."""
        add, two = self.b.add, [(0, 1), (2, 3)]
        first, second = (
            add(*(self.v.pick(one, other, self._lanes(lanes, apart=True)) for lanes in two))
            for one, other in (parts[:2], parts[2:])
        )
        return add(*(self.v.pick(first, second, self._lanes(lanes, apart=True)) for lanes in ((0, 2), (1, 3))))

    def _lanes(self, lanes: tuple[int, ...], apart: bool = False) -> list[int]:
        """Numbers of lanes for every token; apart : those of a first vector, and the same of a second one."""
        tokens = range(0, self.lanes, 4)
        each = (*lanes, *(self.lanes + lane for lane in lanes)) if apart else lanes
        return [token + lane for token in tokens for lane in each]

    def _of_pairs(self, lanes: tuple[int, ...]) -> list[int]:
        """The same in which every lane of the first vector is followed by that of the second."""
        return self._lanes(tuple(place for lane in lanes for place in (lane, self.lanes + lane)))

    def _interleaved(self, even: Any, odd: Any) -> Any:  # noqa: ANN401
        """The lanes of one vector and of another in turn, each in its place."""
        return self.v.pick(even, odd, [lane + lane % 2 * self.lanes for lane in range(self.lanes)])

    def _joint(self, total: Any, least: list[Any], xd: Any, d: Any, acc: Any) -> Any:  # noqa: ANN401
        v, b, dot = self.v, self.b, self.dot
        off = self._of_four(reduce(b.add, least)) if least else None
        if dot.mins == "eights" or (dot.signed and dot.mins == "one"):  # codes are moved by eighths
            d, total = self._factor(self.dmin, 0, 1), b.sub(v.shifted(total, -3), off)
        elif dot.mins == "offset":
            total = b.add(total, off)
        value = b.fmul(d, v.to_float(total))
        if dot.mins in ("first", "lanes", "one") and not dot.signed:
            value = v.fma(b.fneg(self._factor(self.dmin, 0, 1)), v.to_float(off), value)
        return v.fma(value, xd, acc)
