"""What the angles of a recorded rotation say of its settings: frequencies, base, and where the positions begin."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kernels import ops
from kernels.kinds.rotate import Rotation
from kernels.precision import FLOAT32, Precision
from workbench.bisect.mistakes.mistake import least_squares
from workbench.bisect.traces.angles import Pairs, Values, phases

BASES = (1e3, 1e4, 1e5, 5e5, 1e6, 1e7)
_RELATIVE = 4 * FLOAT32.unit  # rounding of a frequency, which more tokens do not average out
_SURE = 8.0  # spreads within which a round number is taken for the number that was found
_HALVES = 2  # positions are looked for in steps of a half: one is where an engine begins to count


@dataclass(frozen=True, eq=False)
class Fit:
    """Frequencies of all pairs (radians per position), the position of the first token, and how the angles err.

    direction : 1, or -1 where everything turns the other way. known : pairs whose frequency tells something.
    """

    frequencies: Values
    spread: Values
    start: float
    direction: int
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, x: Values, y: Values, rotation: Rotation, kept: Precision) -> "Fit | None":
        """The frequencies by which x became y, if x was turned at all; None if the angles grow with nothing."""
        turns = phases(x, y, rotation)
        if len(turns) < 3 or not np.isfinite(turns).all():
            return None
        slopes, offsets = _lines(turns)
        direction = -1 if float(slopes.sum()) < 0 else 1
        start = _start(slopes, offsets, np.abs(turns).sum(axis=0), 2 * len(turns))
        found = _through(turns, start, slopes) * direction
        times = np.arange(len(turns)) + start
        spread = 2 * max(kept.unit, FLOAT32.unit) / np.sqrt(np.square(times).sum()) + _RELATIVE * np.abs(found)
        return cls(found, spread, start, direction, (found > 4 * spread) & np.isfinite(found))

    def base(self, rotation: Rotation, own_scale: bool) -> tuple[float, float] | None:
        """The base, and how many times too fast all pairs turn, that the frequencies come closest to.

        own_scale : take the fastest pair to turn by 1 per position; the second figure is 1 then.
        """
        factors = np.array(rotation.factors or (1.0,) * (rotation.width // 2))
        exponents = np.arange(0, rotation.width, 2)[self.known] / rotation.width
        logs = np.log(self.frequencies[self.known] * factors[self.known])
        weights = np.square(self.frequencies[self.known] / self.spread[self.known])
        columns = -exponents[:, None] if own_scale else np.stack([-exponents, np.ones_like(exponents)], axis=1)
        square = (columns * weights[:, None]).T @ columns
        inverse = least_squares(square, np.eye(len(square)))
        if inverse is None or not np.allclose(inverse @ square, np.eye(len(square)), atol=1e-6):
            return None
        found = inverse @ ((columns * weights[:, None]).T @ logs)
        sure = _SURE * np.sqrt(np.diag(inverse))
        if abs(found[0]) > 50:
            return None
        values = np.exp(found)
        base = _round_number(float(values[0]), float(values[0] * sure[0]), (rotation.theta, *BASES))
        return base, 1.0 if own_scale else _round_number(float(values[1]), float(values[1] * sure[1]), (1.0,))

    @property
    def first(self) -> float:
        """Position that the first token is counted as: a whole or half number."""
        return round(self.start * _HALVES) / _HALVES


def _round_number(value: float, spread: float, likely: tuple[float, ...] = ()) -> float:
    """The likely number, or the one of fewest digits, within a spread of what was found; also one over a number."""
    for number in likely:
        if abs(number - value) <= spread:
            return number
    for digits in range(1, 8):
        for number in (float(f"{value:.{digits}g}"), 1 / float(f"{1 / value:.{digits}g}")):
            if abs(number - value) <= spread:
                return number
    return value


def _lines(turns: Pairs) -> tuple[Values, Values]:
    """Angle per token and angle of the first token of every pair: from neighbours first, then from ever wider steps."""
    times = np.arange(len(turns))[:, None]
    slopes = np.angle((turns[1:] * turns[:-1].conj()).sum(axis=0))
    step = 2
    while step < len(turns):
        ahead = (turns[step:] * turns[:-step].conj()).sum(axis=0) * np.exp(-1j * step * slopes)
        slopes = slopes + np.angle(ahead) / step
        step *= 2
    level = turns * np.exp(-1j * times * slopes)
    middle = np.angle(level.sum(axis=0))
    left, weights = np.angle(level * np.exp(-1j * middle)), np.abs(turns)
    total = np.maximum(weights.sum(axis=0), 1e-300)
    mean = (weights * times).sum(axis=0) / total
    varied = np.maximum((weights * np.square(times - mean)).sum(axis=0), 1e-300)
    more = (weights * (times - mean) * left).sum(axis=0) / varied
    return slopes + more, middle + (weights * left).sum(axis=0) / total - more * mean


def _start(slopes: Values, offsets: Values, weights: Values, reach: int) -> float:
    """The position whose angles the first token has, looked for up to `reach` to either side."""
    places = np.arange(-reach * _HALVES, reach * _HALVES + 1) / _HALVES
    places = places[np.argsort(np.abs(places), kind="stable")]
    likeness = (weights * np.cos(offsets - places[:, None] * slopes)).sum(axis=1)
    best = likeness.max()
    return float(places[np.flatnonzero(likeness >= best - 1e-9 * abs(best))[0]])


def _through(turns: Pairs, start: float, slopes: Values) -> Values:
    """Angle per position of every pair, if the first token stands at `start`: least squares over all tokens."""
    times = np.arange(len(turns))[:, None] + start
    left, weights = np.angle(turns * np.exp(-1j * times * slopes)), np.abs(turns)
    return np.asarray(
        slopes + (weights * times * left).sum(axis=0) / np.maximum((weights * np.square(times)).sum(axis=0), 1e-300)
    )


def found_positions(turns: Pairs, rotation: Rotation) -> Values | None:
    """The position that every token was rotated by, in quarters: coarse from a slow pair, refined by faster ones.

    A pair is slow enough if it does not turn once over twice as many positions as there are tokens.
    """
    frequencies = ops.rope_angles_f64(np.ones(1, dtype=np.int64), rotation)[0]
    angles = np.angle(turns)
    order = np.argsort(frequencies)
    slow = np.flatnonzero(frequencies[order] * 4 * len(turns) <= 2 * np.pi)
    first = int(slow[-1]) if len(slow) else 0
    found = angles[:, order[first]] / frequencies[order[first]]
    for pair in order[first + 1 :]:
        around = np.round((found * frequencies[pair] - angles[:, pair]) / (2 * np.pi))
        found = (angles[:, pair] + 2 * np.pi * around) / frequencies[pair]
    quarters = np.round(found * 4) / 4
    return quarters if np.isfinite(quarters).all() else None


def with_other_pairs(rotation: Rotation) -> Rotation:
    """The rotation in which the other channels of a head rotate together."""
    return replace(rotation, pairs="norm" if rotation.pairs == "neox" else "neox")
