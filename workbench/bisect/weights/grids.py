"""Grids coarser than the format that a tensor is stored in, recognised by the values themselves.

Values that were rounded more coarsely before they were stored lie on few levels: equal steps over a run of values that
has a step (and an offset) of its own, or floats with fewer bits. A grid counts only if chance does not put so many
values on it; whether the other side lies within half a step, is asked of every mistake (judging.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import FloatFormat
from kernels.weight import TensorType
from workbench.bisect.weights.check import LIMIT
from workbench.bisect.weights.roundings import name_of_bits, rounded, trailing_zeros
from workbench.bisect.weights.steps import FITTED_SCALE, Flags, Floats, Stored

Values = NDArray[np.float64]
Ends = tuple[float, float]
_RUNS = (256, 128, 64, 32, 16)  # values with one step, in the formats in use
_LEVELS = (*range(1, 33), 63, 64, 127, 128)  # steps from 0 to the largest value: 2 to 8 bits, with a sign
_SPANS = (*range(1, 32), 63, 254, 255)  # steps from the smallest to the largest
_CERTAIN = 30.0  # natural logarithm of the odds against chance
_BETTER = 1.02  # times the odds that another kind of run must have
_FIRST_LOOK = 512  # values
_ROUNDS, _HOPELESS = 6, 3.0  # of fitting a step; allowed errors beyond which no further round helps
_ARITHMETIC = 2.0**-21  # of the largest value of a run: what float32 arithmetic costs when codes become values
_HALF_BITS = 10  # of mantissa in half precision, the finest of the floats with fewer bits
_FITTED_RUN, _FITTED_STEPS = 32, 16  # of blocks like those of Q4_0 and Q5_0, whose scale is fitted after the codes
_FLOAT8 = ((3, -6, 448.0, "FP8 E4M3"), (2, -14, 57344.0, "FP8 E5M2"))  # mantissa bits, least exponent, largest


@dataclass(frozen=True, slots=True)
class Grid:
    """A coarser rounding. cause : the mistake that it is where nothing else is wrong. words : "8 bits per row".

    of : rows as stored to the same values with the steps of the grid, wherever they lie on it.
    """

    cause: str
    words: str
    of: Callable[[Stored], Stored]


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    """Levels found for runs (runs, values): step and number of steps of each; 0 where they lie on none.

    surprise : minus the logarithm of the chance that a run fits.
    """

    step: Values
    steps: NDArray[np.int64]
    surprise: Values

    @property
    def odds(self) -> float:
        """Logarithm of the odds against chance, which could also have chosen the runs that fit."""
        return float(self.surprise[self.steps > 0].sum()) - len(self.steps) * float(np.log(2))


def coarser_grids(stored: Stored, type: TensorType, ends: Ends) -> Iterator[Grid]:
    """The grids that some rows of a tensor lie on: floats with fewer bits, or equal steps in runs as long as can be.

    ends : smallest and largest value of the whole tensor, for grids with one step for all of it.
    """
    if np.isfinite(stored.values).all() and stored.values.any():
        yield from _fewer_bits(stored, type)
        yield from _scaled_floats(stored, ends)
        yield from _equal_steps(stored, ends)


def _equal_steps(stored: Stored, ends: Ends) -> Iterator[Grid]:
    """The runs that speak most against chance; a sign says less than an offset and counts where both are as good."""
    columns = stored.values.shape[1]
    best: tuple[float, int, bool, _Fit] | None = None
    for run in (0, columns, *(run for run in _RUNS if run < columns and columns % run == 0)):
        for signed in (True, False):
            if _fit(*_first_look(stored, run), signed, ends if run == 0 else None).odds < _CERTAIN:
                continue
            found = _fit(*_runs(stored, run), signed, ends if run == 0 else None)
            if found.odds > max(_CERTAIN, 0.0 if best is None else _BETTER * best[0]):
                best = found.odds, run, signed, found
    if best is None:
        return
    _, run, signed, found = best
    per = {0: "tensor", columns: "row"}.get(run, f"{run} values")
    words = f"{_bits(int(found.steps.max()), signed)} per {per}{'' if signed else ', with an offset'}"
    counts = _between(found.steps, signed)
    yield Grid("requantized", words, partial(_on_equal_steps, run=run, signed=signed, ends=ends, counts=counts))


def _runs(stored: Stored, run: int) -> tuple[Values, Values]:
    """Values and widths, a run in every row; run 0 takes all as one."""
    return tuple(x.reshape(-1, run or x.size).astype(np.float64) for x in (stored.values, stored.width))  # type: ignore[return-value]


def _first_look(stored: Stored, run: int) -> tuple[Values, Values]:
    values, width = _runs(stored, run)
    picked = np.unique(np.linspace(0, len(values) - 1, max(2, _FIRST_LOOK // values.shape[1])).astype(np.int64))
    part = slice(None, None, max(1, values.shape[1] // _FIRST_LOOK) if run == 0 else 1)
    return values[picked][:, part], width[picked][:, part]


def _bits(steps: int, signed: bool) -> str:
    count = 1 + int(np.ceil(np.log2(steps))) if signed else int(np.ceil(np.log2(steps + 1)))
    return f"{count} bits" if count > 1 else "1 bit"


def _between(steps: NDArray[np.int64], signed: bool) -> tuple[int, ...]:
    """The numbers of steps that other runs of the tensor may have."""
    least, most = steps[steps > 0].min(), steps.max()
    return tuple(count for count in (_LEVELS if signed else _SPANS) if least <= count <= most)


def _fit(values: Values, width: Values, signed: bool, ends: Ends | None, counts: tuple[int, ...] = ()) -> _Fit:
    """The fewest equal steps that hold every value of a run, its largest (and smallest) among them."""
    low, high = (values.min(axis=1), values.max(axis=1)) if ends is None else (np.array([end]) for end in ends)
    top = np.maximum(np.abs(low), np.abs(high))
    span, start = (top, np.zeros_like(top)) if signed else (high - low, low)
    near = LIMIT * width + _ARITHMETIC * top[:, None]
    counts = counts or (_LEVELS if signed else _SPANS)
    step, steps, surprise = np.zeros(len(values)), np.zeros(len(values), np.int64), np.zeros(len(values))
    left = np.flatnonzero(span > 0)
    for count in counts:
        found, fits = _fitted(values[left], near[left], start[left], span[left] / count, signed)
        # A stored value may itself lie on a lattice of twice its width, so that much more of a step is hit by chance.
        chance = np.log(np.minimum(1, (2 * near[left] + width[left]) / found[:, None]))
        odds = -chance.sum(axis=1) * (1 - 2 / values.shape[1]) - np.log(len(counts))
        fits &= odds > 0
        step[left[fits]], steps[left[fits]], surprise[left[fits]] = found[fits], count, odds[fits]
        left = left[~fits]
        if not len(left):
            break
    return _Fit(step, steps, surprise)


def _fitted(values: Values, near: Values, start: Values, step: Values, signed: bool) -> tuple[Values, Flags]:
    """The step that brings the codes of a first guess nearest to the values, and which runs then lie on its multiples.

    Equal codes share one rounding error, so that least squares lean to the commonest; what is off furthest counts more
    in every round (Lawson's algorithm for the smallest largest error).
    """
    codes = np.round((values - start[:, None]) / step[:, None])
    found, weights, left = step.copy(), 1 / np.square(near), np.arange(len(values))
    fits = np.zeros(len(values), dtype=bool)
    for _ in range(_ROUNDS):
        c, v, w = codes[left], values[left], weights[left]
        mean_code, mean = (0.0, 0.0) if signed else (_mean(c, w), _mean(v, w))
        centred = c - mean_code
        energy = (w * np.square(centred)).sum(axis=1)
        product = (w * centred * (v - mean)).sum(axis=1)
        found[left] = np.maximum(
            np.where(energy > 0, product / np.where(energy > 0, energy, 1), step[left]), step[left] / 2
        )
        off = np.abs(v - mean - found[left][:, None] * centred) / near[left]
        worst = off.max(axis=1)
        fits[left[worst <= 1]] = True
        weights[left] *= off + 0.01
        left = left[(worst > 1) & (worst < _HOPELESS)]
        if not len(left):
            break
    return found, fits


def _mean(values: Values, weights: Values) -> Values:
    return np.asarray((weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True))


def _on_equal_steps(stored: Stored, run: int, signed: bool, ends: Ends, counts: tuple[int, ...]) -> Stored:
    values, width = _runs(stored, run)
    found = _fit(values, width, signed, ends if run == 0 else None, counts)
    half = found.step[:, None] / 2
    low, high = (values.min(axis=1), values.max(axis=1)) if run else (np.array([end]) for end in ends)
    lowest, highest = values <= low[:, None] + half, values >= high[:, None] - half
    on = found.steps[:, None] > 0
    fit = on & (found.steps[:, None] <= _FITTED_STEPS) & signed & (run == _FITTED_RUN)
    wider = width + half + np.where(fit, np.abs(values) * float(FITTED_SCALE), 0)
    shape = stored.values.shape
    parts = (lowest & on).reshape(shape), (highest & on).reshape(shape)
    return Stored(
        stored.values,
        wider.reshape(shape).astype(np.float32),
        *parts,
        max(stored.fitted, _FITTED_STEPS * int(fit.any())),
    )


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


def _on_fewer_bits(stored: Stored, kept: int, smallest: int, largest: float) -> Stored:
    power = np.maximum(np.frexp(np.abs(stored.values))[1] - 1, smallest)
    half = np.ldexp(np.float32(0.5), power - kept).astype(np.float32)
    on = (stored.values.view(np.uint32) & np.uint32((1 << (23 - kept)) - 1)) == 0
    ends = stored.values <= -largest, stored.values >= largest
    return Stored(stored.values, np.where(on, np.maximum(half, stored.width), stored.width), *ends, stored.fitted)


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
    near = LIMIT * width + _ARITHMETIC * top
    fits = (np.abs(values - level * scale) <= near).all(axis=1, keepdims=True) & (top > 0)
    odds = -np.log(np.minimum(1, near / half)).sum(axis=1, keepdims=True) - np.log(2)
    return np.where(fits & (odds > 0), half, 0), float((odds * fits).sum()) - len(values) * float(np.log(2))


def _on_scaled_floats(stored: Stored, run: int, ends: Ends, kept: int, smallest: int, largest: float) -> Stored:
    half, _ = _float_fit(*_runs(stored, run), ends if run == 0 else None, kept, smallest, largest)
    width = half.reshape(stored.width.shape).astype(np.float32) + stored.width
    return Stored(stored.values, width, stored.lowest, stored.highest, stored.fitted)
