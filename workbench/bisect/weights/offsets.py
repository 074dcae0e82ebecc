"""A constant added: to a norm weight, or to every group of a row, as a misread zero point does."""

from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.check import EVEN
from workbench.bisect.weights.grids import coarser_grids
from workbench.bisect.weights.low_rank import SIGMAS
from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.steps import Floats, Stored

_GROUPS = (256, 128, 64, 32)  # values with one zero point, in the formats in use
_FEW = 16  # rows that tell the steps
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
    return Stored(values, stored.width + ulp, stored.lowest, stored.highest)


def group_offset(q: Question) -> Iterator[Prediction]:
    """Every group of a row off by a constant of its own."""
    if q.side == "A" or q.is_vector or not q.verdict.affected.mean() > 0.5:
        return  # what A adds to B, B takes from A
    columns = q.wrong.shape[1]
    a, b = q.a(q.sample), q.b(q.sample)
    whole = np.square(b.values.astype(np.float64) - a.values).mean()
    for size in (columns, *(size for size in _GROUPS if size < columns and columns % size == 0)):
        if not np.square(_offsets(a, b, size)).mean() > _CONSTANT * whole:
            continue
        words = (
            f"every {'row' if size == columns else f'group of {size} values of a row'} of {q.what} is off by a constant"
        )
        yield Prediction("group_offset", words, partial(_with_offsets, q, size), partial(_how_far, q, size))


def _with_offsets(q: Question, size: int, rows: Rows) -> Stored:
    a, b = q.a(rows), q.b(rows)
    moved = _plus(a, np.repeat(_offsets(a, b, size), size, axis=1).astype(np.float32))
    squares = (np.square(a.width, dtype=np.float64) + np.square(b.width, dtype=np.float64)).reshape(len(rows), -1, size)
    fitted = SIGMAS * np.sqrt(squares.mean(axis=2) / EVEN / size)  # a mean over the errors of a group has one itself
    width = moved.width + np.repeat(fitted, size, axis=1).astype(np.float32)
    return Stored(moved.values, width, moved.lowest, moved.highest)


def _offsets(a: Stored, b: Stored, size: int) -> NDArray[np.float64]:
    """Mean difference of every group, (rows, groups)."""
    difference = b.values.astype(np.float64) - a.values
    return np.asarray(difference.reshape(len(difference), -1, size).mean(axis=2))


def _how_far(q: Question, size: int) -> str:
    """The offsets in steps of the grid that either side lies on, or beside the values."""
    rows = q.sample[:: max(1, len(q.sample) // _FEW)]
    a, b = q.a(rows), q.b(rows)
    offsets = _offsets(a, b, size)
    for side, weight in ((a, q.source), (b, q.wrong)):
        ends = float(side.values.min()), float(side.values.max())
        for grid in coarser_grids(side, weight.type, ends):
            step = 2 * grid.of(side).width.reshape(len(rows), -1, size).min(axis=2)
            off = np.median(offsets / np.where(step > 0, step, 1))
            if grid.cause == "requantized":
                return f" of its own, in the median {off:+.3g} of its steps of {grid.words}"
    rms, typical = np.sqrt(np.square(offsets).mean()), np.sqrt(np.square(a.values, dtype=np.float64).mean())
    return f" of its own, {rms / max(typical, 1e-30):.2g} times its values in the mean"
