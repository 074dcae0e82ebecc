"""A difference of low rank: an adapter (LoRA) that only one of two copies has merged."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.numbers import numbers
from kernels.rows.reach import BLOCK
from workbench.bisect.weights.check import EVEN, row_chunks
from workbench.bisect.weights.question import Prediction, Question, Rows, spread
from workbench.bisect.weights.steps import Stored

Matrix = NDArray[np.float64]
_Parts = Callable[[], Iterator[tuple[slice, Matrix]]]  # consecutive rows of a matrix, anew at every call
SIGMAS = 4.0  # beyond which no fitted number is off by chance
_MOST = 128  # ranks that adapters have at most
_SPARE = 8  # columns that a random sketch has beyond the rank (Halko, Martinsson and Tropp 2011)
_FEWEST = 4  # values to every number that a low rank leaves free
_ALIKE = 0.5  # of the energy of all directions, in the means of blocks; 1/32 by chance
_STANDS_OUT = 1.1  # times the largest singular value of the same differences with any signs


def low_rank(q: Question) -> Iterator[Prediction]:
    """The right values plus the few directions of the difference that stand out of the rounding of both formats."""
    if q.side == "A" or q.is_vector or not np.isfinite(q.verdict.worst):
        return  # what A adds to B, B takes from A
    rows, columns = q.wrong.shape
    most = min(_MOST, rows * columns // (_FEWEST * (rows + columns)))
    some = spread(np.arange(rows), most + _SPARE)
    if _rank(np.linalg.svd(_difference(q, some), compute_uv=False), q, len(some) / rows) > most:
        return
    whole = partial(_differences, q)
    left, sizes, right = _directions(whole, columns, most)
    if sizes[0] <= _STANDS_OUT * _directions(partial(_any_signs, whole), columns, most)[1][0]:
        return
    rank = _rank(sizes, q)
    # A difference that is confined to some rows or columns has no more directions than those, whatever it is.
    confined = min(int(q.verdict.affected.any(axis=1).sum()), BLOCK * int(q.verdict.affected.any(axis=0).sum()))
    if not 0 < rank <= min(most, confined // _FEWEST) or _alike_in_blocks(right[:rank]):
        return
    share = float(np.square(sizes[:rank]).sum()) / _energy(q)
    words = f"{q.what} is off by a matrix of rank {rank}, which holds {share:.4%} of the difference"
    left, sizes, right = left[:, :rank], sizes[:rank], right[:rank]
    down, across = np.square(left), np.square(right)
    of_columns = sum(down[part].T @ _squares(q, np.arange(part.start, part.stop)) for part in row_chunks(q.wrong))

    def rows_of(chosen: Rows) -> Stored:
        """The errors of both formats reach every element through the directions that were fitted to them."""
        before = q.a(chosen)
        added = (left[chosen] * sizes) @ right
        values = (before.values + added).astype(np.float32)
        values = np.where(np.isfinite(before.values), values, before.values)
        fitted = SIGMAS * np.sqrt(down[chosen] @ of_columns + (_squares(q, chosen) @ across.T) @ across)
        largest = np.maximum(np.maximum(np.abs(before.values), np.abs(values)), np.abs(added))
        rounded = np.spacing(largest.astype(np.float32))  # whoever merges rounds the product and the sum
        width = before.width + fitted.astype(np.float32) + rounded
        return Stored(values, width, before.lowest, before.highest)

    yield Prediction("low_rank", f"{words}, as an adapter that only one side has merged", rows_of)


def _alike_in_blocks(right: Matrix) -> bool:
    """Whether directions are the same for all values of a block, as where a second rounding has moved its middle."""
    if right.shape[1] % BLOCK:
        return False
    means = right.reshape(len(right), -1, BLOCK).mean(axis=2)
    return bool(BLOCK * np.square(means).sum() > _ALIKE * np.square(right).sum())


def _rank(sizes: NDArray[Any], q: Question, share: float = 1.0) -> int:
    """Singular values beyond those of independent errors: at most the norms of a row and of a column (Latala 2005).

    share : of the rows, whose singular values they are.
    """
    largest = q.verdict.cost_of_rows.max() ** 0.5 + (share * q.verdict.cost.max()) ** 0.5
    return int((sizes > largest).sum())


def _squares(q: Question, rows: Rows) -> Matrix:
    """Mean squares of what both formats cost, element by element."""
    squares = sum(np.square(side.width, dtype=np.float64) for side in (q.a(rows), q.b(rows))) / EVEN
    return np.where(np.isfinite(squares), squares, 0)


def _directions(parts: _Parts, columns: int, most: int) -> tuple[Matrix, Matrix, Matrix]:
    """The largest singular vectors and values of a matrix, by a random sketch with one power iteration."""
    sketch = np.random.default_rng(0).standard_normal((columns, most + _SPARE))
    for _ in range(2):
        basis, _ = np.linalg.qr(np.concatenate([x @ sketch for _, x in parts()]))
        sketch = np.asarray(sum(x.T @ basis[part] for part, x in parts()))
    left, sizes, right = np.linalg.svd(sketch.T, full_matrices=False)
    return basis @ left, sizes, right


def _any_signs(parts: _Parts) -> Iterator[tuple[slice, Matrix]]:
    """The same differences with random signs, which have no direction in common (Hong et al. 2020).

    What a second rounding makes larger than the formats tell is as large in them.
    """
    rng = np.random.default_rng(1)
    return ((part, x * rng.choice((-1.0, 1.0), x.shape)) for part, x in parts())


def _difference(q: Question, rows: Rows) -> Matrix:
    """B - A in float64, 0 where both sides hold the same NaN or infinity."""
    return numbers(q.b(rows).values.astype(np.float64) - q.a(rows).values)


def _differences(q: Question) -> Iterator[tuple[slice, Matrix]]:
    return ((part, _difference(q, np.arange(part.start, part.stop))) for part in row_chunks(q.wrong))


def _energy(q: Question) -> float:
    return sum(float(np.square(difference).sum()) for _, difference in _differences(q))
