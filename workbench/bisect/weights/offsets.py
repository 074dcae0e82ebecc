"""A constant added: to a norm weight, or to every group of a row, as a misread zero point does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import FloatFormat
from store.conventions import is_norm
from workbench.bisect.weights.check import EVEN
from workbench.bisect.weights.grids import coarser_grids
from workbench.bisect.weights.low_rank import SIGMAS
from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.steps import Floats, Stored, half_ulp
from workbench.bisect.weights.tiles import Sums, Tile, spread_over, tile_sums

_GROUPS = (256, 128, 64, 32)  # values with one zero point, in the formats in use
_TWICE = 2
_FEW = 16  # rows that tell the steps
_BY_CHANCE = 2.0  # mean square of what is left of parts, in standard errors; it is less than 1 where all are alike
_ALIKE = 0.97  # times what runs along the rows leave, that runs down the columns must do better
_CONSTANT = 0.5  # of the energy of the difference, that constants must hold to be its cause


def norm_offset(q: Question) -> Iterator[Prediction]:
    """A norm weight stored as w - 1 and taken for w, or the other way."""
    if not is_norm(q.name):
        return
    row = np.zeros(1, dtype=np.int64)
    difference = q.b(row).values.astype(np.float64) - q.a(row).values
    if not np.isfinite(difference).all():
        return
    middle, mean = float(np.median(difference)), float(difference.mean())
    # The sums of large weights round in 16 bits, and the mean with them; most are small.
    whole: list[float] = [round(fitted) for fitted in (middle, mean) if abs(fitted - round(fitted)) < 1e-3]
    for offset in filter(None, dict.fromkeys(whole or [mean])):
        words = f"{q.what} is off by {offset:+.6g}, as if a norm stored as w{-offset:+.6g} were taken for w"
        yield Prediction("norm_offset", words, partial(_offset_rows, q, offset))


def _offset_rows(q: Question, offset: float, rows: Rows) -> Stored:
    """The right side's values plus an offset; a 1 that is added twice is rounded in between."""
    moved = _plus(q.a(rows), np.float32(offset))
    formats = [(weight.less_one or weight.type).format for weight in (q.source, q.wrong)]
    floats = [format for format in formats if isinstance(format, FloatFormat)]
    if abs(offset) != _TWICE or not floats:
        return moved
    between = moved.values - np.float32(offset / _TWICE)
    coarsest = min(floats, key=lambda format: format.mantissa)
    return replace(moved, width=moved.width + half_ulp(between, coarsest))


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
    along, down = ([_Run(tile, tile_sums(q, tile, _differences)) for tile in tiles] for tiles in _tiles(*q.wrong.shape))
    runs = [along, down] if _ALIKE * along[-1].left(q.sample) <= down[-1].left(q.sample) else [down, along]
    for run, shorter in (pair for some in runs for pair in zip(some, [*some[1:], None], strict=True)):
        held = np.square(run.offsets(q.sample)[0]).mean() > _CONSTANT * whole
        if held and (shorter is None or run.constant(q.sample, shorter)):
            words = f"every {run.tile.name} of {q.what} is off by a constant"
            yield Prediction("group_offset", words, partial(_moved, q, run), partial(_how_far, q, run))


def _tiles(rows: int, columns: int) -> Iterator[list[Tile]]:
    """Runs along the rows, and runs down the columns, the longest first."""
    yield [
        Tile(1, columns, "row"),
        *(Tile(1, size, f"group of {size} values of a row") for size in _parts_of(columns)),
    ]
    yield [
        Tile(rows, 1, "column"),
        *(Tile(size, 1, f"group of {size} values of a column") for size in _parts_of(rows)),
    ]


def _parts_of(count: int) -> Iterator[int]:
    return (size for size in _GROUPS if size < count and count % size == 0)


def _differences(a: Stored, b: Stored) -> tuple[NDArray[np.float64], ...]:
    """Differences, their squares, and mean squares of what both formats cost."""
    difference = b.values.astype(np.float64) - a.values
    squares = (np.square(side.width, dtype=np.float64) / EVEN for side in (a, b))
    return difference, np.square(difference), sum(squares, np.zeros(a.values.shape))


@dataclass(frozen=True, slots=True)
class _Run:
    """Runs of values that may be off by a constant of their own, and the sums over them."""

    tile: Tile
    sums: Callable[[Rows], Sums]

    def offsets(self, rows: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean difference of every run, and how far off it is for the errors of its values; both (rows, runs).

        The errors are those of the formats, or of a coarser rounding, which the scatter of the differences shows.
        """
        size = self.tile.height * self.tile.width
        mean, squares, cost = (x / size for x in self.sums(rows))
        return mean, np.sqrt(np.maximum(cost, squares - np.square(mean)) / size)

    def left(self, rows: Rows) -> float:
        """Mean square of what constants leave, which a constant of few values makes less."""
        size = self.tile.height * self.tile.width
        mean, squares, _ = (x / size for x in self.sums(rows))
        return float((squares - np.square(mean)).mean()) * size / max(size - 1, 1)

    def constant(self, rows: Rows, shorter: "_Run") -> bool:
        """Whether the constants of the parts of a run differ by no more than their errors."""
        own, (parts, errors) = self.offsets(rows)[0], shorter.offsets(rows)
        left = parts - np.repeat(own, parts.shape[1] // own.shape[1], axis=1)
        return bool(np.square(left / np.maximum(errors, 1e-30)).mean() <= _BY_CHANCE)


def _moved(q: Question, run: _Run, rows: Rows) -> Stored:
    by, error = (spread_over(run.tile, x) for x in run.offsets(rows))
    moved = _plus(q.a(rows), by)
    return replace(moved, width=moved.width + np.float32(SIGMAS) * error)


def _how_far(q: Question, run: _Run) -> str:
    """The offsets in steps of the grid that either side lies on, or beside the values."""
    rows = q.sample[:: max(1, len(q.sample) // _FEW)]
    by = run.offsets(rows)[0]
    for side, weight in ((q.a(rows), q.source), (q.b(rows), q.wrong)):
        ends = float(side.values.min()), float(side.values.max())
        for grid in coarser_grids(weight, rows, ends):
            step = 2 * grid.of(side, rows).width.reshape(len(rows), -1, run.tile.width).min(axis=2)
            off = np.median(by / np.where(step > 0, step, 1))
            if grid.cause == "requantized":
                return f" of its own, in the median {off:+.3g} of its steps of {grid.words}"
    rms, typical = (float(np.sqrt(np.square(x, dtype=np.float64).mean())) for x in (by, q.a(rows).values))
    return f" of its own, {rms / max(typical, 1e-30):.2g} times its values in the mean"
