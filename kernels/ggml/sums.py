"""Sums of weighted rows in the orders of order.py, a vector of columns at a time."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels.ggml.order import Order, Tree, leaves
from kernels.machine.vectors import F32, Vectors, array_intrinsic

LANES = 16  # columns of a vector
_ABREAST = 8  # chains that stand in registers together


def weighted_sum(order: Order) -> Callable[..., None]:
    """A kernel function of (count, a, at, rows, vectors, width, out): out = sum of a[at + i] * rows[i], i < count.

    For the first `vectors` * LANES columns of rows (count, width), all float32.
    """
    return array_intrinsic(7, types.void, lambda b, *values: _Sum(order, b, *values).emit())


class _Sum:
    """Emits the sums; pointers and counts are LLVM values."""

    def __init__(self, order: Order, b: Any, count: Any, a: Any, at: Any, rows: Any, *others: Any) -> None:  # noqa: ANN401
        self.order, self.b, self.v, self.i64 = order, b, Vectors(b), count.type
        self.count, self.a, self.at, self.rows = count, a, at, rows
        self.vectors, self.width, self.out = others
        self.kind = ir.VectorType(F32, LANES)

    def emit(self) -> None:
        """All vectors of columns, one after the other."""
        b = self.b
        steps = b.udiv(self.count, self.i64(self.order.chains))
        whole = b.mul(steps, self.i64(self.order.chains))
        with cgutils.for_range(b, self.vectors) as part:
            column = b.mul(part.index, self.i64(LANES))
            total = cgutils.alloca_once(b, self.kind)
            b.store(self._sum(self.order.tree(), steps, column), total)
            if self.order.vectors > 1:
                self._beyond(whole, column, total)
            self.v.store(b.load(total), self.out, column)

    def _sum(self, tree: Tree, steps: Any, column: Any) -> Any:  # noqa: ANN401
        """The sum of a part of the tree; few chains are run through together."""
        chains = leaves(tree)
        if not isinstance(tree, int) and len(chains) > _ABREAST:
            first, second = (self._sum(part, steps, column) for part in tree)
            return self.b.fadd(first, second)
        sums = self._chains(chains, steps, column)
        return self._folded(tree, sums)

    def _folded(self, tree: Tree, sums: dict[int, Any]) -> Any:  # noqa: ANN401
        if isinstance(tree, int):
            return sums[tree]
        first, second = (self._folded(part, sums) for part in tree)
        return self.b.fadd(first, second)

    def _chains(self, chains: list[int], steps: Any, column: Any) -> dict[int, Any]:  # noqa: ANN401
        b = self.b
        sums = {chain: cgutils.alloca_once(b, self.kind) for chain in chains}
        for place in sums.values():
            b.store(self.v.constant(F32, LANES, 0.0), place)
        with cgutils.for_range(b, steps) as step:
            first = b.mul(step.index, self.i64(self.order.chains))
            for chain, place in sums.items():
                a, row = self._pair(b.add(first, self.i64(chain)), column)
                b.store(self.v.fma(a, row, b.load(place)), place)
        return {chain: b.load(place) for chain, place in sums.items()}

    def _pair(self, row: Any, column: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """The factor of a row in every lane, and a vector of the row."""
        b = self.b
        a = self.v.splat(b.load(b.gep(self.a, [b.add(self.at, row)])), LANES)
        return a, self.v.load(F32, LANES, self.rows, b.add(b.mul(row, self.width), column))

    def _beyond(self, whole: Any, column: Any, total: Any) -> None:  # noqa: ANN401
        """What is beyond the chains: products are rounded where some of them are made at once, else fused."""
        b, count, i64 = self.b, self.count, self.i64
        at_once = b.add(whole, b.and_(b.sub(count, whole), i64(-self.order.at_once)))
        with cgutils.for_range(b, b.sub(at_once, whole)) as rest:
            a, row = self._pair(b.add(whole, rest.index), column)
            b.store(b.fadd(b.load(total), b.fmul(a, row)), total)
        with cgutils.for_range(b, b.sub(count, at_once)) as rest:
            a, row = self._pair(b.add(at_once, rest.index), column)
            b.store(self.v.fma(a, row, b.load(total)), total)
