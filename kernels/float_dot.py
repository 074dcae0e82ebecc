"""Products of float rows and tokens, some of both at a time, in a fixed order of sums.

A product is summed in `lanes` parallel fma chains, the chains are added up as `fold` says, and the elements beyond the
last full vector follow one by one. The order does not depend on how many rows and tokens are taken together, nor on
the processor. Taking several of both keeps the multipliers busy: every loaded vector is used more than once. A row is
worked through chunk by chunk, so that what is used again is still in the nearest cache; in between the chains wait in
memory.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.vectors import F32, I32, Vectors, array_intrinsic

F64 = ir.DoubleType()

CHUNK = 512  # columns
GROUP = 16  # rows that go through the tokens together
_ROWS, _TOKENS = 4, 4  # of which the chains stand in registers together


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


def group_dot(scheme: Scheme) -> Callable[..., None]:
    """A kernel function of (tokens, vectors, rows, w, x, column, n, acc).

    It adds the products of `vectors` vectors of each of the first `rows` rows of w (GROUP, CHUNK) with all tokens of x
    (tokens, n), from its `column` on, to the chains of acc (tokens, GROUP, lanes); scheme.element is the type of all
    three. Chains of rows up to the next multiple of 4 change too.
    """

    def body(b: Any, tokens: Any, *rest: Any) -> None:  # noqa: ANN401
        i64, v = tokens.type, Vectors(b)
        with cgutils.for_range(b, b.udiv(tokens, i64(_TOKENS))) as tile:
            _emit(scheme, _TOKENS, v, b.mul(tile.index, i64(_TOKENS)), *rest)
        left = b.urem(tokens, i64(_TOKENS))
        for count in range(1, _TOKENS):
            with b.if_then(b.icmp_signed("==", left, i64(count))):
                _emit(scheme, count, v, b.sub(tokens, left), *rest)

    return array_intrinsic(8, types.void, body)


def _emit(
    scheme: Scheme,
    tokens: int,
    v: Vectors,
    t: Any,  # noqa: ANN401
    vectors: Any,  # noqa: ANN401
    rows: Any,  # noqa: ANN401
    w: Any,  # noqa: ANN401
    x: Any,  # noqa: ANN401
    column: Any,  # noqa: ANN401
    n: Any,  # noqa: ANN401
    acc: Any,  # noqa: ANN401
) -> None:
    b, i64, element, lanes = v.b, n.type, scheme.element, scheme.lanes
    all_tokens = [b.add(t, i64(j)) for j in range(tokens)]
    x_rows = [b.gep(x, [b.add(b.mul(token, n), column)]) for token in all_tokens]
    with cgutils.for_range(b, b.udiv(b.add(rows, i64(_ROWS - 1)), i64(_ROWS))) as tile:
        first = b.mul(tile.index, i64(_ROWS))
        w_rows = [b.gep(w, [b.mul(b.add(first, i64(i)), i64(CHUNK))]) for i in range(_ROWS)]
        places = [
            [b.mul(b.add(b.mul(token, i64(GROUP)), b.add(first, i64(i))), i64(lanes)) for token in all_tokens]
            for i in range(_ROWS)
        ]
        sums = [[cgutils.alloca_once(b, ir.VectorType(element, lanes)) for _ in row] for row in places]
        for row, chains in zip(places, sums, strict=True):
            for at, chain in zip(row, chains, strict=True):
                b.store(v.load(element, lanes, acc, at), chain)
        with cgutils.for_range(b, vectors) as loop:
            at = b.mul(loop.index, i64(lanes))
            ws = [v.load(element, lanes, row, at) for row in w_rows]
            for j, row in enumerate(x_rows):
                value = v.load(element, lanes, row, at)
                for i in range(_ROWS):
                    b.store(v.fma(value, ws[i], b.load(sums[i][j])), sums[i][j])
        for row, chains in zip(places, sums, strict=True):
            for at, chain in zip(row, chains, strict=True):
                v.store(b.load(chain), acc, at)


def folded(scheme: Scheme) -> Callable[..., Any]:
    """A kernel function of (acc, at): the sum of a row's and a token's chains, which begin at acc[at]."""
    result = {F32: types.float32, F64: types.float64}[scheme.element]

    def body(b: Any, acc: Any, at: Any) -> Any:  # noqa: ANN401
        v = Vectors(b)
        return _folded(v, scheme, v.load(scheme.element, scheme.lanes, acc, at))

    return array_intrinsic(2, result, body)


def _folded(v: Vectors, scheme: Scheme, lanes: Any) -> Any:  # noqa: ANN401
    if scheme.fold == "halves":
        return v.total(lanes)
    half = lanes.type.count // 2
    lanes = v.b.fadd(v.pick(lanes, lanes, list(range(half))), v.pick(lanes, lanes, list(range(half, 2 * half))))
    while lanes.type.count > 2:
        pairs = range(0, lanes.type.count, 2)
        lanes = v.b.fadd(v.pick(lanes, lanes, list(pairs)), v.pick(lanes, lanes, [i + 1 for i in pairs]))
    first, second = (v.b.extract_element(lanes, ir.Constant(I32, i)) for i in (0, 1))
    return v.b.fadd(first, second)


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
