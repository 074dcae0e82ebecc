"""A constant added: to a norm weight, or to every group of a row, as a misread zero point does."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.check import EVEN
from workbench.bisect.weights.grids import coarser_grids
from workbench.bisect.weights.low_rank import SIGMAS
from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.steps import Floats, Stored
from workbench.bisect.weights.tiles import Sums, Tile, spread_over, tile_sums

_GROUPS = (256, 128, 64, 32)  # values with one zero point, in the formats in use
_FEW = 16  # rows that tell the steps
_Offsets = Callable[[Rows], tuple[NDArray[np.float64], NDArray[np.float64]]]
_CONSTANT = 0.5  # of the energy of the difference, that constants must hold to be its cause


def norm_offset(q: Question) -> Iterator[Prediction]:
    """A norm weight stored as w - 1 and taken for w, or the other way."""
    if not q.name.endswith("norm.weight"):
        return
    row = np.zeros(1, dtype=np.int64)
    fitted = float((q.b(row).values.astype(np.float64) - q.a(row).values).mean())
    if not np.isfinite(fitted):
        return
    offset = round(fitted) if abs(fitted - round(fitted)) < 1e-3 else fitted
    if offset:
        words = f"{q.what} is off by {offset:+.6g}, as if a norm stored as w{-offset:+.6g} were taken for w"
        yield Prediction("norm_offset", words, lambda rows: _plus(q.a(rows), np.float32(offset)))


def _plus(stored: Stored, offset: Floats | np.float32) -> Stored:
    values = stored.values + offset
    ulp = np.spacing(np.maximum(np.abs(values), np.abs(stored.values)))
    return replace(stored, values=values, width=stored.width + ulp, fitted=0, top=0)


def group_offset(q: Question) -> Iterator[Prediction]:
    """Every group of a row, or of a column, off by a constant of its own."""
    if q.is_vector or not q.verdict.affected.mean() > 0.5:
        return
    a, b = q.a(q.sample), q.b(q.sample)
    whole = np.square(b.values.astype(np.float64) - a.values).mean()
    for tile in _tiles(*q.wrong.shape):
        offsets = partial(_offsets, tile, tile_sums(q, tile, _differences))
        if np.square(offsets(q.sample)[0]).mean() > _CONSTANT * whole:
            words = f"every {tile.name} of {q.what} is off by a constant"
            yield Prediction(
                "group_offset", words, partial(_moved, q, tile, offsets), partial(_how_far, q, tile, offsets)
            )


def _tiles(rows: int, columns: int) -> Iterator[Tile]:
    yield Tile(1, columns, "row")
    yield from (Tile(1, size, f"group of {size} values of a row") for size in _parts_of(columns))
    yield Tile(rows, 1, "column")
    yield from (Tile(size, 1, f"group of {size} values of a column") for size in _parts_of(rows))


def _parts_of(count: int) -> Iterator[int]:
    return (size for size in _GROUPS if size < count and count % size == 0)


def _differences(a: Stored, b: Stored) -> tuple[NDArray[np.float64], ...]:
    """Differences, their squares, and mean squares of what both formats cost."""
    difference = b.values.astype(np.float64) - a.values
    squares = (np.square(side.width, dtype=np.float64) / EVEN for side in (a, b))
    return difference, np.square(difference), sum(squares, np.zeros(a.values.shape))


def _offsets(tile: Tile, sums: Callable[[Rows], Sums], rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean difference of every group, and how far off it is for the errors of its values; both (rows, groups).

    The errors are those of the formats, or of a coarser rounding before, which the scatter of the differences shows.
    """
    size = tile.height * tile.width
    mean, squares, cost = (x / size for x in sums(rows))
    return mean, np.sqrt(np.maximum(cost, squares - np.square(mean)) / size)


def _moved(q: Question, tile: Tile, offsets: _Offsets, rows: Rows) -> Stored:
    by, error = (spread_over(tile, x) for x in offsets(rows))
    moved = _plus(q.a(rows), by)
    return replace(moved, width=moved.width + np.float32(SIGMAS) * error)


def _how_far(q: Question, tile: Tile, offsets: _Offsets) -> str:
    """The offsets in steps of the grid that either side lies on, or beside the values."""
    rows = q.sample[:: max(1, len(q.sample) // _FEW)]
    by = offsets(rows)[0]
    for side, weight in ((q.a(rows), q.source), (q.b(rows), q.wrong)):
        ends = float(side.values.min()), float(side.values.max())
        for grid in coarser_grids(weight, rows, ends):
            step = 2 * grid.of(side, rows).width.reshape(len(rows), -1, tile.width).min(axis=2)
            off = np.median(by / np.where(step > 0, step, 1))
            if grid.cause == "requantized":
                return f" of its own, in the median {off:+.3g} of its steps of {grid.words}"
    rms, typical = (float(np.sqrt(np.square(x, dtype=np.float64).mean())) for x in (by, q.a(rows).values))
    return f" of its own, {rms / max(typical, 1e-30):.2g} times its values in the mean"
