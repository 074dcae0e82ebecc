"""Equal steps that hold all values of a run: how many of them, and with what odds against chance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.check import LIMIT
from workbench.bisect.weights.steps import Flags

Values = NDArray[np.float64]
Counts = tuple[float, ...]
Ends = tuple[float, float]
# What float32 arithmetic costs when codes become values, of the power of two below the largest value of a run.
ARITHMETIC = 2.0**-20
_COUNTS = tuple(range(1, 257))  # steps of a run: 8 bits at most, with any zero point, and one that is read as one more
_FEW = 12  # values that are looked at first
_REACHES = (16, 32, 64, 128, np.inf)  # codes that a guess of the step gets right, each time a better one
_AT_ONCE = 1 << 17  # values, of several runs and numbers of steps
_ROUNDS = 8  # of fitting a step
_AROUND = 0.25  # of a step, that a first guess is off at most


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
    """Levels found for runs (runs, values).

    step, steps, levels : of each run the step, how many of them are tried for, and how many the codes span; 0 where
    the values lie on none. surprise : minus the logarithm of the chance that a run fits.
    """

    step: Values
    steps: NDArray[np.int64]
    levels: NDArray[np.int64]
    surprise: Values

    @property
    def odds(self) -> float:
        """Logarithm of the odds against chance, which could also have chosen the runs that fit."""
        return float(self.surprise[self.steps > 0].sum()) - len(self.steps) * float(np.log(2))


def lattice(
    values: Values, width: Values, signed: bool, ends: Ends | None, arithmetic: float = ARITHMETIC, counts: Counts = ()
) -> Lattice:
    """The equal steps that hold every value of a run, and 0 too if `signed`.

    ends : smallest and largest value of what the runs are parts of, for one lattice of all. arithmetic : what making
    values of codes costs, of the power of two below the largest value. counts : how many steps are tried where that is
    known of other runs, the likeliest first; they count if they hold all values, however likely that is.
    """
    low, high = ends_of(values, ends)
    top = np.maximum(np.abs(low), np.abs(high))
    near = LIMIT * width + arithmetic * power_below(top)[:, None]
    # The most exact value: floats of few bits leave large ones uncertain by as much as a step.
    own = np.take_along_axis(values, near.argmin(axis=1)[:, None], axis=1)
    span, anchor = (top, np.zeros_like(own)) if signed else (high - low, own)
    tried = counts or _COUNTS
    step, surprise = np.zeros((2, len(values)))
    steps, levels = np.zeros((2, len(values)), np.int64)
    may = _may_fit(values - anchor, near, span, tried, signed) & _may_speak(near, width, span, tried)
    together = max(1, _AT_ONCE // values.size)
    for first in range(0, len(tried), together):
        some = np.asarray(tried[first : first + together])
        unfound = (span > 0) & (steps == 0)
        left, number = np.nonzero(unfound[:, None] & may[:, first : first + together])
        if not len(left):
            continue
        found, codes, fits = _fitted(values[left], near[left], anchor[left], span[left] / some[number], signed)
        # A stored value may itself lie on a lattice of twice its width, so that much more of a step is hit by chance.
        # Zero lies on every lattice.
        chance = np.log(np.where(values[left] == 0, 1, np.minimum(1, (2 * near[left] + width[left]) / found[:, None])))
        free = 1 if signed else 2  # numbers that were chosen so that as many values fit
        odds = -chance.sum(axis=1) * (1 - free / values.shape[1]) - np.log(len(tried))
        fits &= (odds > 0) | bool(counts)
        runs, likeliest = np.unique(left[fits], return_index=True)
        best = np.flatnonzero(fits)[likeliest]
        step[runs], steps[runs], surprise[runs] = found[best], some[number[best]], odds[best]
        levels[runs] = codes[best].max(axis=1) - codes[best].min(axis=1)
    return Lattice(step, steps, levels, surprise)


def _may_fit(off: Values, near: Values, span: Values, counts: Counts, signed: bool) -> Flags:
    """Whether a few values of every run lie on so many steps from the anchor that they are given from, (runs, counts).

    Each end may be off by what its own value may be, the steps by as much in proportion, and so may the anchor.
    """
    order = np.argsort(np.abs(off), axis=1)[:, np.linspace(0, off.shape[1] - 1, _FEW).astype(np.int64)]
    few, close = (np.take_along_axis(x, order, axis=1) for x in (off, near))
    size = np.where(span > 0, span, 1)[:, None]
    ends = near.max(axis=1, keepdims=True) * np.abs(few) / size
    slack = close + ends if signed else close + 2 * ends + near.min(axis=1, keepdims=True)
    may = np.ones((len(off), len(counts)), dtype=bool)
    for code, allowed in zip((few / size).T, (slack / size).T, strict=True):
        steps = code[:, None] * counts
        may &= np.abs(steps - np.round(steps)) <= allowed[:, None] * counts
    return may


def _may_speak(near: Values, width: Values, span: Values, counts: Counts) -> Flags:
    """Whether steps so small are still large enough beside what values are uncertain by, (runs, counts)."""
    hit = (2 * near + width).min(axis=1, keepdims=True)
    return np.asarray(hit * np.asarray(counts) < (1 + _AROUND) * span[:, None])


def ends_of(values: Values, ends: Ends | None) -> tuple[Values, Values]:
    """Smallest and largest value of every run, or those given."""
    if ends is None:
        return values.min(axis=1), values.max(axis=1)
    low, high = (np.full(len(values), end) for end in ends)
    return low, high


def power_below(values: Values) -> Values:
    """The powers of two that positive values lie above, 0 for 0."""
    return np.where(values > 0, np.ldexp(0.5, np.frexp(values)[1]), 0)


def likely_counts(found: Lattice) -> Counts:
    """How many steps other runs of a tensor may have, the commonest first: codes with an offset use more or fewer.

    Halves are other guesses of the same numbers, where floats of few bits leave the ends uncertain by as much.
    """
    counts, times = np.unique(found.steps[found.steps > 0], return_counts=True)
    known = [int(count) for count in counts[np.argsort(-times, kind="stable")]]
    others = [count for count in _COUNTS if known and min(known) / 2 <= count <= 2 * max(known)]
    return tuple(dict.fromkeys((*known, *others, *(count + 0.5 for count in others if count > _REACHES[0]))))


def _fitted(values: Values, near: Values, anchor: Values, step: Values, signed: bool) -> tuple[Values, Values, Flags]:
    """The step nearest to a first guess that holds the values of each run, their codes, and whether there is one.

    The codes next to the anchor are those of the first guess; a step that holds them gives those further away.
    """
    found, start, codes = step.copy(), anchor.copy(), np.zeros_like(values)
    left = np.arange(len(values))
    for reach in _REACHES:
        v, c = values[left], np.round((values[left] - start[left]) / found[left][:, None])
        close = np.where(np.abs(c) <= reach, near[left], np.inf)
        line = _step(v, close, c, found[left]) if signed else _step_and_start(v, close, c, found[left])
        found[left], start[left, 0], room = line
        codes[left] = c
        left = left[room >= 0]
    fits = np.zeros(len(values), dtype=bool)
    fits[left] = True
    return found, codes, fits


def _step(values: Values, near: Values, codes: Values, step: Values) -> tuple[Values, Values, Values]:
    """The step in the middle of those that hold all values, 0 for the value of code 0, and how much room is left."""
    with np.errstate(divide="ignore", invalid="ignore"):
        middle, reach = np.where(codes != 0, values / codes, step[:, None]), near / np.abs(codes)
    low, high = (middle - reach).max(axis=1), (middle + reach).min(axis=1)
    known = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(known, low, step), np.where(known, high, step)
    off = np.where(codes == 0, np.abs(values) - near, -np.inf).max(axis=1)
    return (low + high) / 2, np.zeros_like(step), np.where(off > 0, -off, high - low)


def _step_and_start(values: Values, near: Values, codes: Values, step: Values) -> tuple[Values, Values, Values]:
    """Step and value of code 0 that hold all values with the most room, and how much that is.

    For a given step the value of code 0 lies in an interval whose length is concave and piecewise linear in the step:
    its largest is found where the lines on either side of it meet (Kelley's cutting planes).
    """

    def look(at: Values) -> tuple[Values, ...]:
        left = values - at[:, None] * codes
        top, bottom = (left + near).argmin(axis=1), (left - near).argmax(axis=1)
        every = np.arange(len(at))
        high, low = (left + near)[every, top], (left - near)[every, bottom]
        return at, high - low, codes[every, bottom] - codes[every, top], (high + low) / 2

    below, above, point = look(step * (1 - _AROUND)), look(step * (1 + _AROUND)), look(step)
    first = best = point
    for _ in range(_ROUNDS):
        rising = point[2] >= 0
        below, above = _chosen(rising, point, below), _chosen(rising, above, point)
        turn = below[2] - above[2]
        with np.errstate(divide="ignore", invalid="ignore"):
            meet = (above[1] - below[1] + below[2] * below[0] - above[2] * above[0]) / turn
        point = look(np.where((turn > 0) & (meet > below[0]) & (meet < above[0]), meet, best[0]))
        best = _chosen(point[1] > best[1], point, best)
    best = _chosen(first[1] >= 0, first, best)
    return best[0], best[3], best[1]


def _chosen(flags: Flags, one: tuple[Values, ...], other: tuple[Values, ...]) -> tuple[Values, ...]:
    return tuple(np.where(flags, x, y) for x, y in zip(one, other, strict=True))
