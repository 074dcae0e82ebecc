"""Products of float rows and tokens, some of both at a time, in a fixed order of sums.

A product is summed in parallel fma chains, element k in chain k % chains. At the end the upper half of the chains is
added to the lower until few are left, then neighbours are added until one is left, and the elements beyond the last
multiple of the chains follow one by one. The order depends neither on how many rows and tokens are taken together nor
on the processor.

A vector holds the chains of a few tokens. Several rows and vectors are taken together, so that every loaded value is
used more than once and the multipliers stay busy. A row is worked through chunk by chunk, so that what is used again
is still in the nearest cache; in between the chains wait in memory. Few chains make that cheap.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.machine import target
from kernels.machine.memory import LINE
from kernels.machine.vectors import F32, F64, I32, Vectors, array_intrinsic

CHUNK = 512  # columns
STRIDE = CHUNK + 16  # between rows in memory, so that they do not compete for the same places of the cache
_WIDE = target.has("avx512f")
_VECTOR = 64 if _WIDE else 32  # bytes
# Rows and vectors of tokens of which the chains stand in registers together: as many as the processor has room for.
ROWS, _VECTORS = (12, 2) if _WIDE else (4, 3)


class Scheme(NamedTuple):
    """The order of sums: in which type, in how many chains, and of how many on neighbours are added.

    beyond : how products of what is beyond the chains are added: "each" rounded by itself, in "fours" of which those
    that are left are fused, or "double" in float64. groups : so many shares of the chains are added up by themselves
    before. paired : a chain takes two neighbours at once, the second of them first.
    """

    element: Any
    chains: int
    neighbours: int = 2
    beyond: str = "each"
    groups: int = 1
    paired: bool = False

    @property
    def unit(self) -> int:
        """Columns of which every chain has as many."""
        return self.chains * (2 if self.paired else 1)

    @property
    def vectors(self) -> int:
        """Vectors of tokens that are taken together; chains that fill some vectors leave no room for more."""
        return 1 if self.chains * 4 > _VECTOR else _VECTORS

    @property
    def together(self) -> int:
        """Tokens whose chains share a vector."""
        return max(1, _VECTOR // (4 if self.element == F32 else 8) // self.chains)

    @property
    def tile(self) -> int:
        """Tokens that go through the rows together."""
        return self.vectors * self.together

    def places(self, tokens: int) -> int:
        """Tokens of all tiles, when the last one is filled up."""
        return -(-tokens // self.tile) * self.tile


FLOAT32 = Scheme(F32, 4)
FLOAT64 = Scheme(F64, 4)
APR = Scheme(F32, 8, 4)


def _emit_move(b: Any, x: Any, start: Any, out: Any, to: Any) -> None:  # noqa: ANN401
    v = Vectors(b)
    v.store(v.load(I32, MOVED, x, start), out, to)


MOVED = 4  # 32-bit words; the chains of a token are a multiple in every scheme
# A kernel function of (x, start, out, to): a few words of x from x[start] on, to out[to] and on.
move = array_intrinsic(4, types.void, _emit_move)


def group_dot(scheme: Scheme) -> Callable[..., None]:
    """A kernel function of (tiles, columns, w, x, first, acc, raw, start, size).

    It adds the products of the first `columns` columns of w (ROWS, STRIDE), a multiple of the chains, with all tokens
    to the chains of acc (tiles, ROWS, tokens of a tile, chains); scheme.element is the type of all arrays. From
    x[first] on x is (tiles, columns / chains, tokens of a tile, chains). Meanwhile it asks for the bytes that will be
    wanted next: `size` for every tile, from raw[start] on.
    """
    element, chains, width = scheme.element, scheme.chains, scheme.tile * scheme.chains
    lanes = scheme.together * chains
    pairs = [(i, j) for i in range(ROWS) for j in range(scheme.vectors)]

    def one(v: Vectors, columns: Any, w: Any, x: Any, acc: Any, raw: Any, size: Any) -> None:  # noqa: ANN401
        """All rows with the tokens of one tile."""
        b, i64 = v.b, columns.type
        # constant distances from one pointer, which need no registers
        places = {(i, j): i64(i * width + j * lanes) for i, j in pairs}
        sums = {pair: cgutils.alloca_once(b, ir.VectorType(element, lanes)) for pair in pairs}
        for pair in pairs:
            b.store(v.load(element, lanes, acc, places[pair]), sums[pair])
        steps = b.udiv(columns, i64(chains))
        each = b.udiv(size, steps)  # one after another: whatever jumps disturbs how the processor reads x ahead
        with cgutils.for_range(b, steps) as loop:
            for line in range(2):
                v.ask(raw, b.add(b.mul(loop.index, each), i64(line * LINE)))
            ws, xs = b.gep(w, [b.mul(loop.index, i64(chains))]), b.gep(x, [b.mul(loop.index, i64(width))])
            values = [v.load(element, lanes, xs, i64(j * lanes)) for j in range(scheme.vectors)]
            for i in range(ROWS):
                row = v.repeated(v.load(element, chains, ws, i64(i * STRIDE)), scheme.together)
                for j in range(scheme.vectors):
                    b.store(v.fma(values[j], row, b.load(sums[i, j])), sums[i, j])
        for pair in pairs:
            v.store(b.load(sums[pair]), acc, places[pair])

    def body(b: Any, tiles: Any, columns: Any, w: Any, x: Any, first: Any, acc: Any, *wanted: Any) -> None:  # noqa: ANN401
        """The loop over tiles; parameters, shapes and types as `group_dot` says."""
        (raw, start, size), i64 = wanted, tiles.type
        with cgutils.for_range(b, tiles) as tile:
            tokens = b.gep(x, [b.add(first, b.mul(tile.index, b.mul(columns, i64(scheme.tile))))])
            chains_of_tile = b.gep(acc, [b.mul(tile.index, i64(ROWS * width))])
            ahead = b.gep(raw, [b.add(start, b.mul(size, tile.index))])
            one(Vectors(b), columns, w, tokens, chains_of_tile, ahead, size)

    return array_intrinsic(9, types.void, body)


def folded(scheme: Scheme) -> Callable[..., None]:
    """A kernel function of (acc, vector, out, place, apart): the sums of all chains of a vector of tokens.

    The chains are in acc as `group_dot` leaves them. The ROWS sums of the first token go to out[place] and on, those of
    the next one to out[place + apart] and on.
    """
    element, chains, width = scheme.element, scheme.chains, scheme.tile * scheme.chains
    lanes, together = scheme.together * chains, 4

    def body(b: Any, acc: Any, vector: Any, out: Any, place: Any, apart: Any) -> None:  # noqa: ANN401
        """Four rows at a time; parameters, shapes and types as `folded` says."""
        v, i64 = Vectors(b), vector.type
        tile, inside = b.udiv(vector, i64(scheme.vectors)), b.urem(vector, i64(scheme.vectors))
        first = b.add(b.mul(tile, i64(ROWS * width)), b.mul(inside, i64(lanes)))
        for row in range(0, ROWS, together):
            rows = [v.load(element, lanes, acc, b.add(first, i64((row + i) * width))) for i in range(together)]
            sums = _folded(v, rows, scheme)
            for token in range(scheme.together):
                mine = v.pick(sums, sums, list(range(token * together, (token + 1) * together)))
                v.store(mine, out, b.add(b.add(place, i64(row)), b.mul(apart, i64(token))))

    return array_intrinsic(5, types.void, body)


def _folded(v: Vectors, rows: list[Any], scheme: Scheme) -> Any:  # noqa: ANN401
    """The sums of the chains of rows (tokens, chains), as (tokens, rows)."""
    chains, tokens = scheme.chains, rows[0].type.count // scheme.chains
    while chains > 1:
        lower, apart = list(range(0, chains, 2)), 1
        if chains > scheme.neighbours:
            size = chains // scheme.groups if chains > scheme.groups else chains
            lower, apart = [i for i in range(chains) if i % size < size // 2], size // 2
        pairs = list(zip(rows[::2], rows[1::2], strict=True)) if len(rows) > 1 else [(rows[0], rows[0])]
        count = rows[0].type.count
        sources, size = range(0, count * min(len(rows), 2), count), count // tokens
        firsts = [source + token for token in range(0, count, size) for source in sources]
        places = [first + row + i for first in firsts for row in range(0, size, chains) for i in lower]
        others = [i + apart for i in places]
        rows = [v.b.fadd(v.pick(a, b, places), v.pick(a, b, others)) for a, b in pairs]
        chains //= 2
    return rows[0]


LANES = 16


def _emit_weighted_sum(b: Any, count: Any, a: Any, at: Any, rows: Any, vectors: Any, width: Any, out: Any) -> None:  # noqa: ANN401
    v, element, i64 = Vectors(b), out.type.pointee, count.type
    with cgutils.for_range(b, vectors) as part:
        column = b.mul(part.index, i64(LANES))
        total = cgutils.alloca_once_value(b, v.constant(element, LANES, 0.0))
        b.store(v.constant(element, LANES, 0.0), total)
        with cgutils.for_range(b, count) as row:
            weight = v.splat(b.load(b.gep(a, [b.add(at, row.index)])), LANES)
            values = v.load(element, LANES, rows, b.add(b.mul(row.index, width), column))
            b.store(v.fma(weight, values, b.load(total)), total)
        v.store(b.load(total), out, column)


# A kernel function of (count, a, at, rows, vectors, width, out): out = sum of a[at + i] * rows[i] over i < count, in
# this order, for the first `vectors` * LANES columns of rows (count, width).
weighted_sum = array_intrinsic(7, types.void, _emit_weighted_sum)


def _emit_sum_of_squares(b: Any, x: Any, start: Any, count: Any) -> Any:  # noqa: ANN401
    v, element, i64 = Vectors(b), x.type.pointee, count.type
    total = cgutils.alloca_once_value(b, v.constant(F64, LANES, 0.0))

    def squares(at: Any, lanes: int) -> Any:  # noqa: ANN401
        values = v.load(element, lanes, x, b.add(start, at))
        values = values if element == F64 else b.fpext(values, ir.VectorType(F64, lanes))
        return b.fmul(values, values)

    whole = b.and_(count, i64(-LANES))
    with cgutils.for_range(b, b.udiv(count, i64(LANES))) as part:
        b.store(b.fadd(b.load(total), squares(b.mul(part.index, i64(LANES)), LANES)), total)
    result = cgutils.alloca_once_value(b, v.total(b.load(total)))
    with cgutils.for_range(b, b.sub(count, whole)) as rest:
        square = v.first(squares(b.add(whole, rest.index), 1))
        b.store(b.fadd(b.load(result), square), result)
    return b.load(result)


# A kernel function of (x, start, count): float64 sum of squares of x[start:start + count], element k in chain
# k % LANES, the upper half of the chains added to the lower until one is left, then the rest one by one.
sum_of_squares = array_intrinsic(3, types.float64, _emit_sum_of_squares)
