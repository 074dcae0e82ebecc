"""Grids coarser than the format that a tensor is stored in, recognised by the values themselves.

Values that were rounded more coarsely before they were stored lie on few levels: equal steps over a run of values that
has a step (and an offset) of its own, or floats with fewer bits. A grid counts only if chance does not put so many
values on it; whether the other side lies within half a step, is asked of every mistake (judging.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import FloatFormat
from kernels.weight import TensorType, Weight
from workbench.bisect.weights.check import LIMIT, row_chunks
from workbench.bisect.weights.lattices import (
    ARITHMETIC,
    Ends,
    Lattice,
    Values,
    ends_of,
    lattice,
    likely_counts,
    power_below,
)
from workbench.bisect.weights.question import Rows, spread
from workbench.bisect.weights.roundings import name_of_bits, rounded, trailing_zeros
from workbench.bisect.weights.steps import FITTED_SCALE, Floats, Stored

_RUNS = (256, 128, 64, 32, 16)  # values with one step, in the formats in use
_CERTAIN = 30.0  # natural logarithm of the odds against chance
_BETTER = 1.02  # times the odds that steps with an offset must have
_MORE = 0.1  # of the runs
_SHORTER = 1.25  # times the odds that shorter runs must have: parts of runs that lie on steps lie on them too
_FIRST_LOOK = 512  # values
_ALL_BUT_FEW = 0.9  # of the runs
_HALF_BITS = 10  # of mantissa in half precision, the finest of the floats with fewer bits
_LARGEST = 1 << 24  # elements of a tensor that is looked at down its columns
_FEW_COLUMNS = 16
_TWO_PRODUCTS = 2.0  # roundings of a number below the largest value: two, of numbers up to twice as large
_Ways = tuple[tuple[bool, float], ...]
_FITTED_RUN, _FITTED_STEPS = 32, 16  # of blocks like those of Q4_0 and Q5_0, whose scale is fitted after the codes
_FLOAT8 = ((3, -6, 448.0, "FP8 E4M3"), (2, -14, 57344.0, "FP8 E5M2"))  # mantissa bits, least exponent, largest


@dataclass(frozen=True, slots=True)
class Grid:
    """A coarser rounding. cause : the mistake that it is where nothing else is wrong. words : "8 bits per row".

    of : rows as stored, and which they are, to the same values with the steps of the grid, wherever they lie on it.
    """

    cause: str
    words: str
    of: Callable[[Stored, Rows], Stored]


def coarser_grids(weight: Weight, rows: Rows, ends: Ends) -> Iterator[Grid]:
    """The grids that some rows of a tensor lie on: floats with fewer bits, or equal steps in runs as long as can be.

    ends : smallest and largest value of the whole tensor, for grids with one step for all of it.
    """
    stored = Stored.of(weight, rows)
    if np.isfinite(stored.values).all() and stored.values.any():
        yield from _fewer_bits(stored, weight.type)
        yield from _scaled_floats(stored, ends)
        yield from _equal_steps(weight, stored, ends)


def _equal_steps(weight: Weight, stored: Stored, ends: Ends) -> Iterator[Grid]:
    """Equal steps in runs along the rows or else down the columns, the fewest first."""
    columns = stored.values.shape[1]
    runs = (0, columns, *(run for run in _RUNS if run < columns and columns % run == 0))
    found = [best for ways in _ways(weight.type) if (best := _likeliest(stored, runs, ends, ways)) is not None]
    for best in sorted(found, key=lambda best: best.bits):
        per = {0: "tensor", columns: "row"}.get(best.run, f"{best.run} values")
        yield Grid("requantized", f"{best.bits} per {per}{best.offset}", partial(_along, best, ends))
    if not found:
        yield from _down(weight)


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Runs of values that lie on lattices; run : their length, 0 for one that is the whole tensor.

    arithmetic : what making values of codes has cost, of the power of two below the largest value of a run.
    """

    run: int
    signed: bool
    arithmetic: float
    found: Lattice

    @property
    def share(self) -> float:
        """Share of the runs that lie on their steps."""
        return float((self.found.steps > 0).mean())

    @property
    def bits(self) -> str:
        """Bits of a code in all but a few runs, whose ends a float of few bits may leave a step too far apart."""
        levels = self.found.levels[self.found.steps > 0]
        count = int(np.ceil(np.log2(np.quantile(levels, _ALL_BUT_FEW, method="lower") + 1)))
        return f"{count} bits" if count > 1 else "1 bit"

    @property
    def offset(self) -> str:
        """The offset in words."""
        return "" if self.signed else ", with an offset"

    def again(self, values: Values, width: Values, ends: Ends | None) -> Lattice:
        """The lattices of other runs of the tensor."""
        return lattice(values, width, self.signed, ends, self.arithmetic, likely_counts(self.found))

    def cost(self, values: Values) -> Values:
        """How far arithmetic coarser than float32 may have moved the values of each run from the steps."""
        cost = power_below(np.abs(values).max(axis=1)) * self.arithmetic
        return cost if self.arithmetic > ARITHMETIC else np.zeros_like(cost)

    def better_than(self, other: "_Runs | None") -> bool:
        """Whether more of its runs lie on their steps, or those that do speak more against chance.

        Of one length, fewer bits are better where both say as much.
        """
        if other is None or self.share > other.share + _MORE:
            return self.found.odds > _CERTAIN
        if self.share < other.share - _MORE:
            return False
        more = _SHORTER
        if self.run == other.run:
            more = 1 / _BETTER if self.bits < other.bits else _BETTER
        return self.found.odds > max(_CERTAIN, more * other.found.odds)


def _ways(type: TensorType) -> Iterator[_Ways]:
    """How codes may have become values: whether 0 has a code, and what the arithmetic has cost.

    Codes times a scale plus an offset may have been computed in the stored type, which costs more than float32, and
    most where the product of the code and that of the zero point are rounded before one is taken from the other.
    """
    signed, offset = (True, ARITHMETIC), (False, ARITHMETIC)
    if isinstance(type.format, FloatFormat) and type.format.mantissa <= _HALF_BITS:
        rounding = 2.0 ** -(type.format.mantissa + 1)
        yield signed, offset, (False, rounding)
        yield ((False, _TWO_PRODUCTS * rounding),)
    else:
        yield signed, offset


def _likeliest(stored: Stored, runs: tuple[int, ...], ends: Ends | None, ways: _Ways) -> _Runs | None:
    """The runs that speak most against chance; a sign says less than an offset and counts where both are as good.

    A first look at a part of them must promise enough for all.
    """
    best: _Runs | None = None
    for run, (signed, arithmetic) in product(runs, ways):
        of_all = ends if run == 0 else None
        first = _first_look(stored, run)
        if lattice(*first, signed, of_all, arithmetic).odds * stored.values.size >= _CERTAIN * first[0].size:
            found = _Runs(run, signed, arithmetic, lattice(*_runs(stored, run), signed, of_all, arithmetic))
            best = found if found.better_than(best) else best
    return best


def _runs(stored: Stored, run: int) -> tuple[Values, Values]:
    """Values and widths, a run in every row; run 0 takes all as one."""
    return tuple(x.reshape(-1, run or x.size).astype(np.float64) for x in (stored.values, stored.width))  # type: ignore[return-value]


def _first_look(stored: Stored, run: int) -> tuple[Values, Values]:
    values, width = _runs(stored, run)
    picked = np.unique(np.linspace(0, len(values) - 1, max(2, _FIRST_LOOK // values.shape[1])).astype(np.int64))
    part = slice(None, None, max(1, values.shape[1] // _FIRST_LOOK) if run == 0 else 1)
    return values[picked][:, part], width[picked][:, part]


def _along(best: _Runs, ends: Ends, stored: Stored, rows: Rows) -> Stored:
    """The steps of runs along the given rows."""
    del rows
    values, width = _runs(stored, best.run)
    of_all = ends if best.run == 0 else None
    found = best.again(values, width, of_all)
    few = best.signed and best.run == _FITTED_RUN
    fitted = np.where(few & (found.steps <= _FITTED_STEPS), found.step > 0, 0)
    parts = (found.step, *ends_of(values, of_all), fitted, best.cost(values))
    spread = (np.broadcast_to(x[:, None], values.shape).reshape(stored.values.shape) for x in parts)
    return _on_steps(stored, *spread)


def _on_steps(stored: Stored, step: Values, low: Values, high: Values, fitted: NDArray[Any], cost: Values) -> Stored:
    """Stored values with half a step more, and cut off at the ends of the steps; all arrays are (rows, columns)."""
    on, half = step > 0, step / 2
    lowest, highest = (stored.values <= low + half) & on, (stored.values >= high - half) & on
    wider = (
        stored.width + half + np.where(on, cost, 0) + np.where(fitted, np.abs(stored.values) * float(FITTED_SCALE), 0)
    )
    return replace(
        stored,
        width=wider.astype(np.float32),
        lowest=lowest if stored.lowest is None else lowest | stored.lowest,
        highest=highest if stored.highest is None else highest | stored.highest,
        fitted=max(stored.fitted, _FITTED_STEPS * int(np.any(fitted))),
    )


def _down(weight: Weight) -> Iterator[Grid]:
    """Equal steps in runs down the columns, found in a few of them."""
    rows, columns = weight.shape
    if rows * columns > _LARGEST:
        return
    few = spread(np.arange(columns), _FEW_COLUMNS)
    parts = [Stored.of(weight, part).moved(lambda x: x[:, few].T) for part in row_chunks(weight)]
    values, width = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("values", "width"))
    down = (rows, *(run for run in _RUNS if run < rows and rows % run == 0))
    found = [best for ways in _ways(weight.type) if (best := _likeliest(Stored(values, width), down, None, ways))]
    for best in sorted(found, key=lambda best: best.bits):
        per = "column" if best.run == rows else f"{best.run} values of a column"
        yield Grid("requantized", f"{best.bits} per {per}{best.offset}", _Down(weight, best).of)


class _Down:
    """The steps of runs down the columns of a tensor."""

    def __init__(self, weight: Weight, best: _Runs) -> None:
        self._weight, self._best = weight, best

    def of(self, stored: Stored, rows: Rows) -> Stored:
        """Some rows as they lie on the steps."""
        step, low, high, cost = (table[rows // self._best.run] for table in self._tables)
        return _on_steps(stored, step, low, high, np.zeros_like(step), cost)

    @cached_property
    def _tables(self) -> tuple[Values, ...]:
        """Step, smallest and largest value, cost of the arithmetic, of every run, (runs down, columns)."""
        run, columns = self._best.run, self._weight.shape[1]
        parts = []
        for start in range(0, self._weight.shape[0], run):
            stored = Stored.of(self._weight, slice(start, start + run)).moved(np.transpose)
            values, width = (x.astype(np.float64) for x in (stored.values, stored.width))
            parts.append((self._best.again(values, width, None).step, *ends_of(values, None), self._best.cost(values)))
        return tuple(np.concatenate(x).reshape(-1, columns) for x in zip(*parts, strict=True))


def _fewer_bits(stored: Stored, type: TensorType) -> Iterator[Grid]:
    """Floats whose last bits are all zero."""
    format = type.format
    if isinstance(format, FloatFormat):
        kept = 23 - trailing_zeros(int(np.bitwise_or.reduce(stored.values.view(np.uint32), axis=None)))
        if 0 < kept <= min(format.mantissa - 1, _HALF_BITS):
            smallest, largest = _range(stored.values, kept)
            of = partial(_on_fewer_bits, kept=kept, smallest=smallest, largest=largest)
            yield Grid("dtype_truncated", name_of_bits(kept), of)


def _range(values: Floats, kept: int) -> tuple[int, float]:
    """Least exponent with all bits and largest value, of an 8-bit float where all values are such."""
    for bits, least, largest, _ in _FLOAT8:
        if kept == bits and np.abs(values).max() <= largest and not (values % np.float32(2.0 ** (least - bits))).any():
            return least, largest
    return -126, np.inf


def _on_fewer_bits(stored: Stored, rows: Rows, kept: int, smallest: int, largest: float) -> Stored:
    del rows
    power = np.maximum(np.frexp(np.abs(stored.values))[1] - 1, smallest)
    half = np.ldexp(np.float32(0.5), power - kept).astype(np.float32)
    on = (stored.values.view(np.uint32) & np.uint32((1 << (23 - kept)) - 1)) == 0
    ends = stored.values <= -largest, stored.values >= largest
    width = np.where(on, np.maximum(half, stored.width), stored.width)
    return replace(stored, width=width, lowest=ends[0], highest=ends[1])


def _scaled_floats(stored: Stored, ends: Ends) -> Iterator[Grid]:
    """8-bit floats times a factor that makes the largest value of a tensor or of a row the largest of the format."""
    for kept, smallest, largest, name in _FLOAT8:
        for run in (0, stored.values.shape[1]):
            of = partial(_on_scaled_floats, run=run, ends=ends, kept=kept, smallest=smallest, largest=largest)
            _, odds = _float_fit(*_runs(stored, run), ends if run == 0 else None, kept, smallest, largest)
            if odds >= _CERTAIN:
                yield Grid("dtype_truncated", f"{name} with a scale per {'row' if run else 'tensor'}", of)
                return


def _float_fit(
    values: Values, width: Values, ends: Ends | None, kept: int, smallest: int, largest: float
) -> tuple[Values, float]:
    """Half a step of every value (0 where its run is off the grid), and the odds against chance."""
    top = np.abs(values).max(axis=1, keepdims=True) if ends is None else np.full((1, 1), max(map(abs, ends)))
    scale = np.where(top > 0, top, 1) / largest
    level = rounded((values / scale).astype(np.float32), kept, smallest).astype(np.float64)
    half = np.ldexp(0.5, np.maximum(np.frexp(np.abs(level))[1] - 1, smallest) - kept) * scale
    near = LIMIT * width + ARITHMETIC * top
    fits = (np.abs(values - level * scale) <= near).all(axis=1, keepdims=True) & (top > 0)
    odds = -np.log(np.minimum(1, near / half)).sum(axis=1, keepdims=True) - np.log(2)
    return np.where(fits & (odds > 0), half, 0), float((odds * fits).sum()) - len(values) * float(np.log(2))


def _on_scaled_floats(
    stored: Stored, rows: Rows, run: int, ends: Ends, kept: int, smallest: int, largest: float
) -> Stored:
    del rows
    half, _ = _float_fit(*_runs(stored, run), ends if run == 0 else None, kept, smallest, largest)
    width = half.reshape(stored.width.shape).astype(np.float32) + stored.width
    return replace(stored, width=width)
