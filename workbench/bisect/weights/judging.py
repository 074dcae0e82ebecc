"""Whether a mistake that was tried predicts the wrong side's tensor: within its format, or after a coarser rounding.

It is tried on a few rows first and on all of them only if it stands, so that a tensor of a large model costs little.
Where the wrong tensor lies on a coarser grid than its format (grids.py), a mistake may have that rounding on top: then
what is left must be spread over half a step as rounding spreads it, neither more nor much less.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from kernels.rows.reach import BLOCK
from workbench.bisect.weights.check import (
    LIMIT,
    ONCE,
    ROUNDED_ONCE,
    beyond,
    check,
    check_parts,
    excess_of,
    relative_rms,
    rounded_once,
    row_chunks,
)
from workbench.bisect.weights.grids import Grid, coarser_grids
from workbench.bisect.weights.question import AFFECTED, Prediction, Question, Rows, spread
from workbench.bisect.weights.slopes import heads_of
from workbench.bisect.weights.steps import Floats, Stored

_LEAST_SPREAD = 1 / 12  # mean square of what rounding leaves, in half steps: 1/3, less where many values are zero
_MOST = 1 << 22  # elements that are held against a grid; of a larger tensor some rows
_PART = 1 << 19  # of them at once
_FEW = 16  # affected rows that a grid is looked for in
_OF_THE_RANGE = 0.75  # of what a factor makes of a block's range, that a fit with importances takes back


@dataclass(frozen=True, slots=True)
class WeightCause:
    """A mistake that was tried.

    cause : slug. explanation : one sentence. residual : relative RMS left between prediction and tensor.
    explained : whether the residual is only rounding. rounded : whether it is that of a coarser grid than the format's.
    """

    cause: str
    explanation: str
    residual: float
    explained: bool
    rounded: bool = False


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges every mistake that is tried for one tensor."""

    question: Question

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """Coarser grids that the wrong tensor lies on where it is affected."""
        q = self.question
        if q.is_vector:
            return ()
        low, high = 0.0, 0.0
        for rows in row_chunks(q.wrong):
            values = Stored.of(q.wrong, rows).values
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        return tuple(coarser_grids(q.wrong, spread(q.affected_rows, _FEW), (low, high)))

    @cached_property
    def _looked_at(self) -> tuple[Rows, Stored, list[tuple[Grid, Stored, float]]]:
        """Affected rows of a first look, as stored and on every grid with the relative RMS that its steps allow."""
        rows = spread(self.question.affected_rows, AFFECTED)
        stored = self.question.b(rows)
        size = _rms(stored.values)
        coarse = [(grid, grid.of(stored, rows)) for grid in self.grids]
        return rows, stored, [(grid, on, 2 * LIMIT * _rms(on.width) / size) for grid, on in coarse]

    def judged(self, prediction: Prediction) -> WeightCause:
        """Say what a prediction leaves, and whether that is only rounding."""
        residual, explained = self._within_format(prediction)
        if explained:
            words = prediction.explanation + prediction.detail()
            return WeightCause(prediction.cause, words, residual, True)
        if self._only_rounded is None and (found := self._on_a_grid(prediction.rows, residual)) is not None:
            grid, left = found
            words = f"{prediction.explanation}{prediction.detail()}, and rounded to {grid.words}"
            return WeightCause(prediction.cause, words, left, True, rounded=True)
        return WeightCause(prediction.cause, prediction.explanation, residual, False)

    def rounding_alone(self) -> list[WeightCause]:
        """The coarser grid that the right values make the wrong tensor on."""
        q = self.question
        if self._only_rounded is not None:
            grid, left = self._only_rounded
            words = f"{q.what} is rounded to {grid.words}, more coarsely than {q.wrong.type.name} keeps"
            return [WeightCause(grid.cause, words, left, True)]
        if q.touched and q.verdict.explained:
            words = f"{q.what} is rounded otherwise than the tensors around it, within the steps of {q.wrong.type.name}"
            return [WeightCause("requantized", words, q.verdict.rel_rms, True)]
        return []

    @cached_property
    def _only_rounded(self) -> tuple[Grid, float] | None:
        """The coarser grid that explains the tensor with nothing else wrong; nothing else has it on top then."""
        return self._on_a_grid(self.question.a, self.question.verdict.rel_rms)

    def _within_format(self, prediction: Prediction) -> tuple[float, bool]:
        """Relative RMS that a prediction leaves, and whether the format explains it."""
        q = self.question
        picked, stored, _ = self._looked_at
        predicted = prediction.rows(picked)
        if beyond(predicted, stored):
            return relative_rms(predicted, stored), False
        first = check(predicted, stored)
        if not q.reproduces(first):
            return first.rel_rms, False
        heads = heads_of(q.name, q.config.head_dim)
        parts = [np.arange(part.start, part.stop) for part in row_chunks(q.wrong, heads)]
        whole = check_parts(lambda: ((prediction.rows(rows), q.b(rows)) for rows in parts), heads)
        explained = q.reproduces(whole) and (prediction.cause != "scaled" or self._rounded_once(prediction))
        return whole.rel_rms, explained

    def _rounded_once(self, prediction: Prediction) -> bool:
        """Whether values that factors have moved lie no further away than one rounding on each side takes them."""
        q, moved, off, ranges = self.question, 0, 0, list[NDArray[np.float64]]()
        for rows in np.array_split(q.all_rows, -(-q.all_rows.size * q.wrong.shape[-1] // _PART)):
            right, predicted, stored = q.a(rows), prediction.rows(rows), q.b(rows)
            here = predicted.values != right.values
            moved += int(here.sum())
            off += int((excess_of(predicted, stored)[here] > ONCE).sum())
            if stored.line:
                whole = here.reshape(-1, BLOCK).all(axis=1)
                sides = (x.values.reshape(-1, BLOCK)[whole] for x in (right, predicted, stored))
                ranges.append(np.stack([np.ptp(x, axis=1).astype(np.float64) for x in sides]))
        once = (
            not prediction.exact
            or stored.carried
            or predicted.carried
            or rounded_once(off, moved, fitted=bool(stored.fitted) or stored.line)
        )
        return once and (not ranges or _reach_moved(np.concatenate(ranges, axis=1)))

    def _on_a_grid(self, rows_of: Callable[[Rows], Stored], residual: float) -> tuple[Grid, float] | None:
        """The grid whose rounding explains what a mistake leaves, and its relative RMS over the tensor.

        residual : that of the first look; where it is beyond the steps of a grid, that need not be asked.
        """
        q = self.question
        picked, stored, grids = self._looked_at
        for grid, coarse, most in grids:
            if residual > most:
                continue
            predicted = rows_of(picked)
            if not check(predicted, coarse).explained or not _spread_by_rounding(predicted, coarse, stored):
                continue
            rows = spread(np.arange(len(q.wrong.rows)), max(1, _MOST // q.wrong.shape[-1]))
            parts = np.array_split(rows, -(-len(rows) * q.wrong.shape[-1] // _PART))
            whole = check_parts(partial(_beside, rows_of, q.b, grid, parts))
            if whole.explained:
                return grid, whole.rel_rms
        return None


def _reach_moved(ranges: NDArray[np.float64]) -> bool:
    """Whether the range of blocks is another one as well, of types that keep its ends.

    A second rounding moves what lies between them only. ranges : (right, predicted, wrong) of every block.
    """
    ranges = ranges[:, ranges[0] > 0]
    expected, found = (float(np.median(x / ranges[0])) - 1 if x.size else 0.0 for x in ranges[1:])
    return abs(found - expected) <= _OF_THE_RANGE * abs(expected)


def _spread_by_rounding(predicted: Stored, coarse: Stored, stored: Stored) -> bool:
    """Whether values on the grid lie from the prediction as far as rounding takes them, in the mean square."""
    on = coarse.width > stored.width
    for side in (predicted, coarse):
        if side.lowest is not None and side.highest is not None:
            on &= ~(side.lowest | side.highest)
    excess = excess_of(predicted, coarse)[on].astype(np.float64)
    return bool(excess.size and _LEAST_SPREAD <= np.square(excess).mean() <= ROUNDED_ONCE)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean())) or 1.0


def _beside(
    rows_of: Callable[[Rows], Stored], b: Callable[[Rows], Stored], grid: Grid, parts: list[Rows]
) -> Iterator[tuple[Stored, Stored]]:
    """What a mistake predicts beside the wrong tensor on a grid, some rows at a time."""
    return ((rows_of(part), grid.of(b(part), part)) for part in parts)
