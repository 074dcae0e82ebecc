"""Equal steps that hold all values of a run: how many of them, and with what odds against chance."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.check import LIMIT
from workbench.bisect.weights.steps import Flags

Values = NDArray[np.float64]
Counts = tuple[int, ...]
Ends = tuple[float, float]
ARITHMETIC = 2.0**-21  # of the largest value of a run: what float32 arithmetic costs when codes become values
_LEVELS = (*range(1, 33), 63, 64, 127, 128, 254, 255)  # steps from 0 to the largest value: 2 to 8 bits
_SPANS = (*range(1, 32), 62, 63, 126, 127, 254, 255)  # steps from the smallest to the largest
_FEW = 12  # values that are looked at first
_ROUNDS, _HOPELESS = 6, 3.0  # of fitting a step; allowed errors after the first beyond which no other one helps


@dataclass(frozen=True, slots=True, eq=False)
class Lattice:
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


def lattice(values: Values, width: Values, signed: bool, ends: Ends | None, counts: Counts = ()) -> Lattice:
    """The equal steps that hold every value of a run, its largest (and smallest) among them.

    ends : smallest and largest value of what the runs are parts of, for one lattice of all. counts : how many steps
    are tried, the likeliest first; without them the fewest of those in use.
    """
    low, high = ends_of(values, ends)
    top = np.maximum(np.abs(low), np.abs(high))
    span, start = (top, np.zeros_like(top)) if signed else (high - low, low)
    near = LIMIT * width + ARITHMETIC * top[:, None]
    tried = counts or (_LEVELS if signed else _SPANS)
    step, steps, surprise = np.zeros(len(values)), np.zeros(len(values), np.int64), np.zeros(len(values))
    may = _may_fit(values, near, start, span, tried)
    unfound = span > 0
    for number, count in enumerate(tried):
        left = np.flatnonzero(unfound & may[:, number])
        if not len(left):
            continue
        found, fits = _fitted(values[left], near[left], start[left], span[left] / count, signed)
        # A stored value may itself lie on a lattice of twice its width, so that much more of a step is hit by chance.
        # Zero lies on every lattice.
        chance = np.log(np.where(values[left] == 0, 1, np.minimum(1, (2 * near[left] + width[left]) / found[:, None])))
        odds = -chance.sum(axis=1) * (1 - 2 / values.shape[1]) - np.log(len(tried))
        fits &= odds > 0
        step[left[fits]], steps[left[fits]], surprise[left[fits]] = found[fits], count, odds[fits]
        unfound[left[fits]] = False
    return Lattice(step, steps, surprise)


def _may_fit(values: Values, near: Values, start: Values, span: Values, counts: Counts) -> Flags:
    """Whether a few values of every run lie on so many steps between its ends, (runs, counts).

    Each end may be off by what its own value may be, and with it the steps in between.
    """
    few = np.linspace(0, values.shape[1] - 1, _FEW).astype(np.int64)
    slack = near[:, few] + 3 * near.max(axis=1, keepdims=True)
    codes = (values[:, few] - start[:, None]) / np.where(span > 0, span, 1)[:, None]
    may = np.ones((len(values), len(counts)), dtype=bool)
    for code, allowed in zip(codes.T, (slack / np.where(span > 0, span, 1)[:, None]).T, strict=True):
        steps = code[:, None] * counts
        may &= np.abs(steps - np.round(steps)) <= allowed[:, None] * counts
    return may


def ends_of(values: Values, ends: Ends | None) -> tuple[Values, Values]:
    """Smallest and largest value of every run, or those given."""
    if ends is None:
        return values.min(axis=1), values.max(axis=1)
    low, high = (np.full(len(values), end) for end in ends)
    return low, high


def likely_counts(found: Lattice, signed: bool) -> Counts:
    """How many steps other runs of a tensor may have, the commonest first: codes with an offset use more or fewer."""
    counts, times = np.unique(found.steps[found.steps > 0], return_counts=True)
    known = [int(count) for count in counts[np.argsort(-times, kind="stable")]]
    others = (count for count in (_LEVELS if signed else _SPANS) if known and min(known) / 2 <= count <= 2 * max(known))
    return tuple(dict.fromkeys((*known, *others)))


def _fitted(values: Values, near: Values, start: Values, step: Values, signed: bool) -> tuple[Values, Flags]:
    """The step that brings the codes of a first guess nearest to the values, and which runs then lie on its multiples.

    Equal codes share one rounding error, so that least squares lean to the commonest; what is off furthest counts more
    in every round (Lawson's algorithm for the smallest largest error).
    """
    codes = np.round((values - start[:, None]) / step[:, None])
    found, weights, left = step.copy(), 1 / np.square(near), np.arange(len(values))
    fits = np.zeros(len(values), dtype=bool)
    for done in range(_ROUNDS):
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
        left = left[(worst > 1) & ((worst < _HOPELESS) | (done > 0))]
        if not len(left):
            break
    return found, fits


def _mean(values: Values, weights: Values) -> Values:
    return np.asarray((weights * values).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True))
