"""Quantized rows times 8-bit activations, in the exact summation order of llama.cpp's AVX2 kernels.

Every type reduces to the same scheme (ggml-cpu/arch/x86/quants.c, `ggml_vec_dot_*`): in a 32-element group, lane l of
eight owns bytes 4l..4l+3 and sums their integer products; group sums times group scales add up over a block; then

    acc[l] = fma(d_weight * d_activation, float(lane_sum[l]), acc[l])

All integer work is exact, so only this float order decides the bits. Where blocks take turns, each turn has lanes of
its own, which are added first of all in the end.

A vector holds half of the lanes of several tokens (a tile), so that whatever belongs to the row is the same for all of
them: 16 bytes of codes, repeated; one scale, repeated. 256 columns of a row (a chunk) stay in registers while all
tiles pass by; the sums of every row and tile wait in memory for the next chunk.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.formats.format import Dot
from kernels.machine.vectors import F32, I8, I16, I32, Vectors, array_intrinsic
from kernels.matmul.byte_products import HOST, Portable

CHUNK = 256  # columns: one block of the types that have blocks of 256, eight of the others
_GROUPS = 8  # of 32 columns, in a chunk
_BY_LANES = ("first", "offset")  # mins of which each lane has two, of 16 elements each

Pairs = Callable[[int, int], Any]  # int16 sums of two neighbouring products of a half of a group
Added = Callable[[Any, int, int], Any]  # int32 sums of four of them, times the scale, added to others


def sums_of(dot: Dot) -> int:
    """Vectors of sums that a row and a tile have: lanes 0-3 and 4-7 of every turn, and one or both of the mins."""
    return 2 * dot.turns + (2 if dot.mins == "eights" else 1)


def chunk_dots(dot: Dot, how: Portable = HOST) -> Any:  # noqa: ANN401
    """A kernel function of (i, c, tiles, codes, scales, mins, d, dmin, x, xd, sums, acc).

    It multiplies chunk c of one row with all tiles and adds to the row's sums. The row is number i of those that
    unpack.py left in codes ... dmin, one chunk of each. Of the activations (ggml.py `_pack`; t: token of a tile):
    x int8 (chunks, tiles, groups, halves, t, 16); xd float32 (chunks, tiles, blocks, t, 4), then, for mins "block", one
    float sum of every block and three zeros; sums int16 (chunks, tiles, halves or 1, t, 8). The sums: acc float32
    (rows, tiles, sums_of(dot), t, 4), zero before the first chunk.
    """
    return array_intrinsic(12, types.void, lambda builder, *values: _Chunk(dot, how, builder, *values).emit())


class _Chunk:
    """Emits the products of one chunk; pointers and counts are LLVM values."""

    def __init__(self, dot: Dot, how: Portable, builder: Any, i: Any, c: Any, tiles: Any, *pointers: Any) -> None:  # noqa: ANN401
        self.dot, self.how, self.v, self.b = dot, how, Vectors(builder), builder
        self.i, self.c, self.tiles = i, c, tiles
        self.codes, self.scales, self.mins, self.d, self.dmin, self.x, self.xd, self.sums, self.acc = pointers
        self.lanes = 4 * how.tokens

    def emit(self) -> None:
        """Everything that belongs to the row, then tile by tile."""
        b, dot, count = self.b, self.dot, sums_of(self.dot)
        codes = [[self._of_row(I8, 16, self.codes, 2 * g + h, CHUNK // 16) for h in (0, 1)] for g in range(_GROUPS)]
        scales = [] if dot.plain else [self._scale(n) for n in range(dot.scales * _GROUPS)]
        halves = 2 if dot.mins in _BY_LANES else 1
        mins = [self._of_row(I16, 8, self.mins, h, halves) for h in range(halves)] if dot.scales else []
        if dot.mins == "eights":
            mins = [self._mins_of_eights(n) for n in range(2 * _GROUPS)]
        signs = [[self._signs(half) for half in group] for group in codes] if dot.signed else []
        with cgutils.for_range(b, self.tiles) as loop:
            tile = b.add(b.mul(self.c, self.tiles), loop.index)
            xs = [self._of_tile(I8, self.x, tile, n, 2 * _GROUPS) for n in range(2 * _GROUPS)]
            place = b.add(b.mul(self.i, self.tiles), loop.index)
            acc = [self._of_tile(F32, self.acc, place, n, count) for n in range(count)]
            if dot.scales == 0:
                acc = self._small_blocks(codes, xs, tile, acc)
            else:
                sums = [self._of_tile(I16, self.sums, tile, h, halves) for h in range(halves)]
                added = self._plain(codes, xs) if dot.plain else self._scaled(codes, signs, scales, xs)
                if dot.mins == "eights":
                    sums = [self.how.pairs(self.v, self.v.constant(I8, x.type.count, 1), x) for x in xs]
                acc = self._one_block(added, mins, sums, tile, acc)
            for n, value in enumerate(acc):
                self.v.store(value, self.acc, self._at(place, count, n, self.lanes))

    def _at(self, first: Any, count: int, n: int, size: int) -> Any:  # noqa: ANN401
        """Index of item n of `count` items of `size` elements each."""
        i64 = first.type
        return self.b.add(self.b.mul(first, i64(count * size)), i64(n * size))

    def _of_row(self, element: Any, lanes: int, array: Any, n: int, count: int) -> Any:  # noqa: ANN401
        """16 bytes of the row, repeated for every token of a tile."""
        return self.v.repeated(self.v.load(element, lanes, array, self._at(self.i, count, n, lanes)), self.how.tokens)

    def _mins_of_eights(self, n: int) -> Any:  # noqa: ANN401
        """Of half a group: a min for every 8 of its 16 elements."""
        two = self.v.load(I16, 2, self.mins, self._at(self.i, 2 * _GROUPS, n, 2))
        return self.v.pick(two, two, [lane // 4 % 2 for lane in range(8 * self.how.tokens)])

    def _scale(self, n: int) -> Any:  # noqa: ANN401
        place = self._at(self.i, self.dot.scales * _GROUPS, n, 1)
        return self.v.as_lanes(self.v.splat(self.b.load(self.b.gep(self.scales, [place])), self.lanes), I16)

    def _factor(self, array: Any, block: int, count: int) -> Any:  # noqa: ANN401
        return self.v.splat(self.b.load(self.b.gep(array, [self._at(self.i, count, block, 1)])), self.lanes)

    def _of_tile(self, element: Any, array: Any, tile: Any, n: int, count: int) -> Any:  # noqa: ANN401
        lanes = self.lanes * 32 // (32 if element == F32 else element.width)
        return self.v.load(element, lanes, array, self._at(tile, count, n, lanes))

    def _plain(self, codes: list[list[Any]], xs: list[Any]) -> Added:
        return lambda start, g, h: self.how.fours(self.v, start, codes[g][h], xs[2 * g + h])

    def _scaled(self, codes: list[list[Any]], signs: Any, scales: list[Any], xs: list[Any]) -> Added:  # noqa: ANN401
        pairs = self._signed_pairs(signs, xs) if self.dot.signed else self._pairs(codes, xs)

        def added(start: Any, g: int, h: int) -> Any:  # noqa: ANN401
            scale = scales[g if self.dot.scales == 1 else 2 * g + h]
            return self.how.words(self.v, start, pairs(g, h), scale)

        return added

    def _pairs(self, codes: list[list[Any]], xs: list[Any]) -> Pairs:
        return lambda g, h: self.how.pairs(self.v, codes[g][h], xs[2 * g + h])

    def _signs(self, codes: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Magnitudes of codes, and where they are negative."""
        b, none = self.b, self.v.constant(I8, codes.type.count, 0)
        negative = b.icmp_signed("<", codes, none)
        return b.select(negative, b.sub(none, codes), codes), negative

    def _signed_pairs(self, signs: list[list[tuple[Any, Any]]], xs: list[Any]) -> Pairs:
        """|code| * (x with the code's sign)."""

        def pairs(g: int, h: int) -> Any:  # noqa: ANN401
            (size, negative), x = signs[g][h], xs[2 * g + h]
            turned = self.b.select(negative, self.b.sub(self.v.constant(I8, x.type.count, 0), x), x)
            return self.how.pairs(self.v, size, turned)

        return pairs

    def _one_block(
        self,
        added: Added,
        mins: list[Any],
        sums: list[Any],
        tile: Any,  # noqa: ANN401
        acc: list[Any],
    ) -> list[Any]:
        v, b, dot, acc = self.v, self.b, self.dot, list(acc)
        xd, found = self._of_tile(F32, self.xd, tile, 0, 1), []
        factor, zero = b.fmul(xd, self._factor(self.d, 0, 1)), v.constant(I32, self.lanes, 0)
        if dot.mins in ("first", "lanes", "one", "eights"):
            off = b.fneg(b.fmul(xd, self._factor(self.dmin, 0, 1)))
        for h in (0, 1):
            lanes = [self.how.words(v, zero, mins[h], sums[h]) if dot.mins == "offset" else zero, zero]
            if dot.mins == "first":
                acc[h] = v.fma(off, v.to_float(self.how.words(v, zero, mins[h], sums[h])), acc[h])
            for g in range(_GROUPS):  # in two chains, because each sum waits for the one before
                lanes[g % 2] = added(lanes[g % 2], g, h)
            found.append(v.fma(factor, v.to_float(b.add(*lanes)), acc[h]))
        if dot.mins == "eights":
            return [*found, *(v.fma(off, v.to_float(self._eights(h, mins, sums)), acc[2 + h]) for h in (0, 1))]
        if dot.mins not in ("lanes", "one"):
            return [*found, acc[2]]
        least = self.how.words(v, zero, mins[0], sums[0])
        if dot.mins == "one":
            least = self._first_of_four(least)
        return [*found, v.fma(off, v.to_float(least), acc[2])]

    def _eights(self, h: int, mins: list[Any], sums: list[Any]) -> Any:  # noqa: ANN401
        """What is taken off in the lanes of a half."""
        total = self.v.constant(I32, self.lanes, 0)
        for n in range(h, 2 * _GROUPS, 2):
            total = self.how.words(self.v, total, mins[n], sums[n])
        return total

    def _first_of_four(self, lanes: Any) -> Any:  # noqa: ANN401
        """The sum of every four lanes in the first of them, zeros in the others."""
        v, b, count = self.v, self.b, lanes.type.count
        for distance in (2, 1):
            lanes = b.add(lanes, v.pick(lanes, lanes, [n ^ distance for n in range(count)]))
        return b.and_(lanes, ir.Constant(lanes.type, [-1, 0, 0, 0] * (count // 4)))

    def _small_blocks(self, codes: list[list[Any]], xs: list[Any], tile: Any, acc: list[Any]) -> list[Any]:  # noqa: ANN401
        v, b, dot, acc = self.v, self.b, self.dot, list(acc)
        numbers, groups = 2 * _GROUPS if dot.mins == "block" else _GROUPS, dot.block // 32
        part: list[Any] = []
        for g in range(_GROUPS):
            x = self._of_tile(F32, self.xd, tile, g, numbers)
            corrected = [self._of_row(I32, 4, self.scales, 2 * g + h, 2 * _GROUPS) for h in (0, 1)]
            lanes = [self.how.signed(v, codes[g][h], xs[2 * g + h], corrected[h]) for h in (0, 1)]
            if dot.within == "one":
                lanes = [self._first_of_four(b.add(*lanes))]
            floats = [v.to_float(each) for each in lanes]
            if dot.within in ("lanes", "one"):
                start = g % groups == 0
                part = [b.fmul(x, each) if start else v.fma(x, each, part[h]) for h, each in enumerate(floats)]
                if g % groups == groups - 1:
                    d, first = self._factor(self.d, g // groups, _GROUPS // groups), 2 if dot.within == "one" else 0
                    for h, each in enumerate(part):
                        acc[first + h] = v.fma(d, each, acc[first + h])
                continue
            for h in (0, 1):
                halves = dot.within == "halves"
                d = self._factor(self.d, 2 * g + h, 2 * _GROUPS) if halves else self._factor(self.d, g, _GROUPS)
                place = g % dot.turns * 2 + h
                acc[place] = v.fma(b.fmul(x, d), floats[h], acc[place])
            if dot.mins == "block":
                beside = self._of_tile(F32, self.xd, tile, _GROUPS + g, numbers)
                acc[2] = v.fma(self._factor(self.dmin, g, _GROUPS), beside, acc[2])
        return acc


def corrections(how: Portable = HOST) -> Any:  # noqa: ANN401
    """A kernel function of (rows, codes, scales): what `how` wants to know of the codes of blocks of 32.

    It goes where the scales would be, which these types do not have: one int32 for four codes.
    """

    def body(b: Any, rows: Any, codes: Any, scales: Any) -> None:  # noqa: ANN401
        v, size = Vectors(b), 16 * how.tokens
        with cgutils.for_range(b, b.mul(rows, rows.type(CHUNK // size))) as loop:
            sums = how.correction(v, v.load(I8, size, codes, b.mul(loop.index, rows.type(size))))
            v.store(sums, scales, b.mul(loop.index, rows.type(size // 4)))

    return array_intrinsic(3, types.void, body)


def tile_results(dot: Dot, how: Portable = HOST) -> Any:  # noqa: ANN401
    """A kernel function of (at, acc, out, place, step): the products of a row with the tokens of a tile.

    They come from sums number `at` of acc and go to out[place], out[place + step] ...
    """

    def body(b: Any, at: Any, acc: Any, out: Any, place: Any, step: Any) -> None:  # noqa: ANN401
        v, lanes, i64 = Vectors(b), 4 * how.tokens, at.type
        first = b.mul(at, i64(sums_of(dot) * lanes))
        found = [v.load(F32, lanes, acc, b.add(first, i64(n * lanes))) for n in range(sums_of(dot))]
        products, least = found[: 2 * dot.turns], found[2 * dot.turns :]
        low, high = (reduce(b.fadd, products[half::2]) for half in (0, 1))
        sums = b.fadd(_four_added(v, b.fadd(low, high)), _four_added(v, reduce(b.fadd, least)))
        for t in range(how.tokens):
            value = b.extract_element(sums, ir.Constant(I32, 4 * t))
            b.store(value, b.gep(out, [b.add(place, b.mul(step, i64(t)))]))

    return array_intrinsic(5, types.void, body)


def _four_added(v: Vectors, lanes: Any) -> Any:  # noqa: ANN401
    """(l0 + l2) + (l1 + l3) in each of four lanes."""
    for distance in (2, 1):
        lanes = v.b.fadd(lanes, v.pick(lanes, lanes, [n ^ distance for n in range(lanes.type.count)]))
    return lanes
