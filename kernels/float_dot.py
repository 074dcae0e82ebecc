"""Dot products of a few float rows with a few tokens at a time, in a fixed order of sums.

A product is summed in `lanes` parallel fma chains, the chains are added up as `fold` says, and the elements beyond the
last full vector follow one by one. The order does not depend on how many rows and tokens are taken together, nor on
the processor. Taking several of both keeps the multipliers busy: every loaded vector is used more than once.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.vectors import F32, I32, Vectors, array_intrinsic

F64 = ir.DoubleType()


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


def tile_dot(scheme: Scheme, rows: int, tokens: int) -> Callable[..., None]:
    """A kernel function of (t, n, w, x, out, columns, r).

    It writes the products of the first `rows` rows of w (rows, n) with tokens t, t+1, ... of x (all tokens, n) to
    out (all tokens, columns) at columns r, r+1, ...; scheme.element is the type of all three arrays.
    """
    return array_intrinsic(7, types.void, lambda builder, *values: _emit(scheme, rows, tokens, builder, *values))


def _emit(
    scheme: Scheme,
    rows: int,
    tokens: int,
    b: Any,  # noqa: ANN401
    t: Any,  # noqa: ANN401
    n: Any,  # noqa: ANN401
    w: Any,  # noqa: ANN401
    x: Any,  # noqa: ANN401
    out: Any,  # noqa: ANN401
    columns: Any,  # noqa: ANN401
    r: Any,  # noqa: ANN401
) -> None:
    v, i64 = Vectors(b), n.type
    w_rows = [b.gep(w, [b.mul(n, i64(i))]) for i in range(rows)]
    x_rows = [b.gep(x, [b.mul(n, b.add(t, i64(i)))]) for i in range(tokens)]
    zero = v.constant(scheme.element, scheme.lanes, 0.0)
    sums = [[cgutils.alloca_once_value(b, zero) for _ in range(tokens)] for _ in range(rows)]
    vectors = b.udiv(n, i64(scheme.lanes))
    with cgutils.for_range(b, vectors) as loop:
        at = b.mul(loop.index, i64(scheme.lanes))
        ws = [v.load(scheme.element, scheme.lanes, row, at) for row in w_rows]
        for j, row in enumerate(x_rows):
            value = v.load(scheme.element, scheme.lanes, row, at)
            for i in range(rows):
                b.store(v.fma(value, ws[i], b.load(sums[i][j])), sums[i][j])
    totals = [[cgutils.alloca_once_value(b, _folded(v, scheme, b.load(s))) for s in of_row] for of_row in sums]
    with cgutils.for_range(b, b.urem(n, i64(scheme.lanes))) as loop:
        at = b.add(b.mul(vectors, i64(scheme.lanes)), loop.index)
        for i in range(rows):
            for j in range(tokens):
                product = b.fmul(b.load(b.gep(x_rows[j], [at])), b.load(b.gep(w_rows[i], [at])))
                b.store(b.fadd(b.load(totals[i][j]), product), totals[i][j])
    for i in range(rows):
        for j in range(tokens):
            place = b.add(b.mul(columns, b.add(t, i64(j))), b.add(r, i64(i)))
            b.store(b.load(totals[i][j]), b.gep(out, [place]))


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
