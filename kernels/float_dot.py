"""Products of float rows and tokens, some of both at a time, in a fixed order of sums.

A product is summed in `lanes` parallel fma chains, the chains are added up as `fold` says, and the elements beyond the
last full vector follow one by one. The order does not depend on how many rows and tokens are taken together, nor on
the processor. Taking several of both keeps the multipliers busy: every loaded vector is used more than once. A row is
worked through chunk by chunk, so that what is used again is still in the nearest cache; in between the chains wait in
memory.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.vectors import F32, I32, Vectors, array_intrinsic, emit_prefetch

F64 = ir.DoubleType()

CHUNK = 512  # columns
STRIDE = CHUNK + 16  # between rows in memory, so that they do not compete for the same places of the cache
GROUP = 8  # rows that go through the tokens together
# Tokens and rows of which the chains stand in registers together: as many as the processor has room for.
TILE, _ROWS = (6, 4) if llvm.get_host_cpu_features().get("avx512f") else (3, 2)


class Scheme(NamedTuple):
    """The order of sums.

    fold : "halves" adds the upper half of the lanes to the lower until one is left; "pairs" does so once and then adds
        neighbours (APR's order).
    """

    element: Any
    lanes: int
    fold: Literal["halves", "pairs"]


FLOAT32 = Scheme(F32, 16, "halves")
FLOAT64 = Scheme(F64, 8, "halves")
APR = Scheme(F32, 8, "pairs")


FULL = 16  # 32-bit words of a vector of FLOAT32 and FLOAT64; APR's have half as many


def _moved(words: int) -> Callable[..., None]:
    """A kernel function of (count, x, start, out, to): vectors of x one after another to every TILE-th place of out."""

    def body(b: Any, count: Any, x: Any, start: Any, out: Any, to: Any) -> None:  # noqa: ANN401
        v, i64 = Vectors(b), count.type
        with cgutils.for_range(b, count) as loop:
            vector = v.load(I32, words, x, b.add(start, b.mul(loop.index, i64(words))))
            v.store(vector, out, b.add(to, b.mul(loop.index, i64(words * TILE))))

    return array_intrinsic(5, types.void, body)


move_full, move_half = _moved(FULL), _moved(FULL // 2)


def group_dot(scheme: Scheme) -> Callable[..., None]:
    """A kernel function of (tokens, vectors, rows, w, x, first, acc, raw, start, size, apart).

    It adds the products of `vectors` vectors of each of the first `rows` rows of w (GROUP, STRIDE) with all tokens to
    the chains of acc (tiles, GROUP / _ROWS, TILE, _ROWS, lanes); scheme.element is the type of all arrays. The vectors
    of the tokens begin at x[first]: x is (tiles, vectors, TILE, lanes) from there on. Chains of rows up to the next
    multiple of _ROWS change too. Meanwhile it asks for the bytes that will be wanted next: `size` of every row for
    every tile, rows `apart` from each other, from raw[start] on.
    """

    def body(b: Any, tokens: Any, *rest: Any) -> None:  # noqa: ANN401
        i64, v = tokens.type, Vectors(b)
        with cgutils.for_range(b, b.udiv(tokens, i64(TILE))) as tile:
            _emit(scheme, TILE, v, b.mul(tile.index, i64(TILE)), *rest)
        left = b.urem(tokens, i64(TILE))
        for count in (4, 2, 1):  # code for every number that may be left would take long to compile
            with b.if_then(b.icmp_unsigned(">=", left, i64(count))):
                _emit(scheme, count, v, b.sub(tokens, left), *rest)
            left = b.urem(left, i64(count))

    return array_intrinsic(11, types.void, body)


def _emit(
    scheme: Scheme,
    tokens: int,
    v: Vectors,
    token: Any,  # noqa: ANN401
    vectors: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    w: Any,  # noqa: ANN401
    x: Any,  # noqa: ANN401
    first: Any,  # noqa: ANN401
    acc: Any,  # noqa: ANN401
    raw: Any,  # noqa: ANN401
    start: Any,  # noqa: ANN401
    size: Any,  # noqa: ANN401
    apart: Any,  # noqa: ANN401
) -> None:
    """All rows with so many tokens of a tile, from `token` on."""
    b, i64, element, lanes = v.b, token.type, scheme.element, scheme.lanes
    number, inside = b.udiv(token, i64(TILE)), b.urem(token, i64(TILE))
    pairs = [(i, j) for j in range(tokens) for i in range(_ROWS)]
    tile = b.add(first, b.mul(number, b.mul(vectors, i64(TILE * lanes))))
    tile = b.gep(x, [b.add(tile, b.mul(inside, i64(lanes)))])
    chains_of_tile = b.add(b.mul(number, i64(GROUP * TILE)), b.mul(inside, i64(_ROWS)))
    chains_of_tile = b.gep(acc, [b.mul(chains_of_tile, i64(lanes))])
    with cgutils.for_range(b, b.udiv(b.add(rows, i64(_ROWS - 1)), i64(_ROWS))) as loop:
        row = b.mul(loop.index, i64(_ROWS))
        w_rows = b.gep(w, [b.mul(row, i64(STRIDE))])
        chains = b.gep(chains_of_tile, [b.mul(row, i64(TILE * lanes))])
        for i in range(_ROWS):
            ahead = b.add(start, b.mul(apart, b.add(row, i64(i))))
            emit_prefetch(b, raw, b.add(ahead, b.mul(size, number)), size)
        # constant distances from few pointers, which need no registers
        places = {(i, j): i64((j * _ROWS + i) * lanes) for i, j in pairs}
        sums = {pair: cgutils.alloca_once(b, ir.VectorType(element, lanes)) for pair in pairs}
        for pair in pairs:
            b.store(v.load(element, lanes, chains, places[pair]), sums[pair])
        with cgutils.for_range(b, vectors) as step:
            at = b.mul(step.index, i64(lanes))
            ws, xs = b.gep(w_rows, [at]), b.gep(tile, [b.mul(at, i64(TILE))])
            loaded = [v.load(element, lanes, ws, i64(i * STRIDE)) for i in range(_ROWS)]
            values = [v.load(element, lanes, xs, i64(j * lanes)) for j in range(tokens)]
            for i, j in pairs:
                b.store(v.fma(values[j], loaded[i], b.load(sums[i, j])), sums[i, j])
        for pair in pairs:
            v.store(b.load(sums[pair]), chains, places[pair])


def folded(scheme: Scheme) -> Callable[..., None]:
    """A kernel function of (acc, token, out, place): the sums of all chains of GROUP rows and a token.

    The chains are in acc as `group_dot` leaves them; the sums go to out[place], out[place + 1] ...
    """

    def body(b: Any, acc: Any, token: Any, out: Any, place: Any) -> None:  # noqa: ANN401
        v, i64 = Vectors(b), token.type
        tile, inside = b.udiv(token, i64(TILE)), b.urem(token, i64(TILE))
        first = b.add(b.mul(tile, i64(GROUP * TILE)), b.mul(inside, i64(_ROWS)))
        for row in range(0, GROUP, _ROWS):
            at = b.mul(b.add(first, i64(row * TILE)), i64(scheme.lanes))
            chains = v.load(scheme.element, _ROWS * scheme.lanes, acc, at)
            v.store(_folded(v, scheme, chains), out, b.add(place, i64(row)))

    return array_intrinsic(4, types.void, body)


def _folded(v: Vectors, scheme: Scheme, chains: Any) -> Any:  # noqa: ANN401
    """The sums of _ROWS rows, whose lanes lie one row after another."""
    lanes = scheme.lanes
    while lanes > 1:
        half = lanes // 2
        if scheme.fold == "halves" or lanes == scheme.lanes:
            first = [row * lanes + i for row in range(_ROWS) for i in range(half)]
            second = [i + half for i in first]
        else:
            first = [row * lanes + 2 * i for row in range(_ROWS) for i in range(half)]
            second = [i + 1 for i in first]
        chains, lanes = v.b.fadd(v.pick(chains, chains, first), v.pick(chains, chains, second)), half
    return chains


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
