"""Blocks whose scale and least value were both fitted to the rounded codes with importance weights.

ggml rounds to the nearest codes of one scale and one least value, and stores those of the weighted least squares
line through source over code (ggml-quants.c, `make_qkx3_quants`). Two things hold whatever the weights are: one line
explains every code of the block, and the stored line leaves residuals that no other line could all make smaller. So in
the order of codes their sign turns twice at least; once is enough for a line that was held at 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.bisect.weights.steps import Flags, Floats, Stored

Doubles = NDArray[np.float64]

_LEAST, _MOST = 0.5, 16.0  # the step of the codes over the stored one, which few values of large importance decide
_ROUNDS = 64  # as many linear functions as a block has values on both sides
_WHOLE = 1e-2  # of a step, from a multiple of it


def line_fits(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether the fit of a line explains each block; both sides hold one block in every row."""
    return np.asarray(_one_line_explains(source, fitted, limit) & _is_least_squares(source, fitted, limit))


def _one_line_explains(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether |x - offset - ratio v| <= width_x + ratio half a step has a solution; cut values bind on one side.

    For a given ratio the offset lies in an interval whose length is the least of linear functions of the ratio. Its
    largest is looked for where the two of them that hold at both ends meet: no length is larger than there.
    """
    lengths = _Lengths.of(source, fitted, limit)
    explained = np.zeros(len(source.values), dtype=bool)
    left, right = (lengths.at(np.full(len(explained), ratio)) for ratio in (_LEAST, _MOST))
    rows = np.arange(len(explained))
    for _ in range(_ROUNDS):
        explained[rows[np.maximum(left[1], right[1]) >= 0]] = True
        # Beyond an end at which the length grows outward, or at one of which nothing is larger, none is larger.
        still = (np.maximum(left[1], right[1]) < 0) & (left[2] > 0) & (right[2] < 0)
        met, most = _meeting(left, right)
        still &= (most >= 0) & (met > left[0]) & (met < right[0])
        if not still.any():
            break
        rows, lengths = rows[still], lengths.some(still)
        left, right = (tuple(part[still] for part in end) for end in (left, right))
        found = lengths.at(met[still])
        rising = found[2] > 0
        left = tuple(np.where(rising, new, old) for new, old in zip(found, left, strict=True))
        right = tuple(np.where(rising, old, new) for new, old in zip(found, right, strict=True))
        explained[rows[found[1] >= 0]] = True
    return explained


_End = tuple[Doubles, ...]  # ratio, length and its slope, of every block


def _meeting(left: _End, right: _End) -> tuple[Doubles, Doubles]:
    """Where the lines through two ends meet, and their value there."""
    with np.errstate(divide="ignore", invalid="ignore"):
        met = (right[1] - left[1] + left[2] * left[0] - right[2] * right[0]) / (left[2] - right[2])
    return met, left[1] + left[2] * (met - left[0])


@dataclass(frozen=True)
class _Lengths:
    """The offsets for a ratio r lie between the largest of `low` + r `down` and the least of `high` + r `up`."""

    high: Doubles
    up: Doubles
    low: Doubles
    down: Doubles

    @classmethod
    def of(cls, source: Stored, fitted: Stored, limit: float) -> "_Lengths":
        x, v = source.values.astype(np.float64), fitted.values.astype(np.float64)
        own, half = limit * source.width.astype(np.float64), limit * fitted.width.astype(np.float64)
        no_top = source.cut(1) | fitted.cut(-1)  # the source may lie further up, or the code was raised to the lowest
        no_bottom = source.cut(-1) | fitted.cut(1)
        return cls(np.where(no_top, np.inf, x + own), half - v, np.where(no_bottom, -np.inf, x - own), -half - v)

    def at(self, ratio: Doubles) -> _End:
        """The length at a ratio, and how it changes with it."""
        tops, bottoms = self.high + ratio[:, None] * self.up, self.low + ratio[:, None] * self.down
        top, bottom = tops.argmin(axis=1)[:, None], bottoms.argmax(axis=1)[:, None]
        length = np.take_along_axis(tops, top, axis=1) - np.take_along_axis(bottoms, bottom, axis=1)
        slope = np.take_along_axis(self.up, top, axis=1) - np.take_along_axis(self.down, bottom, axis=1)
        return ratio, length[:, 0], slope[:, 0]

    def some(self, rows: Flags) -> "_Lengths":
        """Those of some blocks."""
        return _Lengths(*(part[rows] for part in (self.high, self.up, self.low, self.down)))


def _is_least_squares(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether no other line could come nearer to every value, so far as the signs of the residuals are known."""
    off, v = fitted.values - source.values, fitted.values
    half = _half_step(fitted)
    slack = limit * source.width + np.float32(limit - 1) * half + (fitted.width - half)
    below = (off <= slack) | source.cut(1)  # the source is above, or might be
    above = (off >= -slack) | source.cut(-1)
    turns = ~(_one_turn(v, below, above) | _one_turn(v, above, below))
    steps = v / (2 * half)
    held = (v >= 0).all(axis=1) & (v > 0).any(axis=1) & (np.abs(steps - np.round(steps)) <= _WHOLE).all(axis=1)
    coded = v != 0
    return np.asarray(turns | (held & (coded & below).any(axis=1) & (coded & above).any(axis=1)))


def _half_step(fitted: Stored) -> Floats:
    """Half the distance of neighbouring codes; what is left of the width is what rounding the line has moved it by."""
    gaps = np.diff(np.sort(fitted.values, axis=1), axis=1)
    half = np.where(gaps > 0, gaps, np.inf).min(axis=1, keepdims=True, initial=np.inf) / 2
    return np.asarray(np.minimum(half, fitted.width), dtype=np.float32)


def _one_turn(v: Floats, first: Flags, second: Flags) -> Flags:
    """Whether there is a code with no residual of the first sign below it and none of the second above it.

    A line that is turned about that code comes nearer to all other values. Where all have one code only the level
    counts, which must have both signs.
    """
    order = np.argsort(v, axis=1)
    ordered = np.take_along_axis(v, order, axis=1)
    new = np.concatenate([np.ones((len(v), 1), dtype=bool), ordered[:, 1:] != ordered[:, :-1]], axis=1)
    code = new.cumsum(axis=1) - 1
    rows = np.broadcast_to(np.arange(len(v))[:, None], v.shape)
    signs = np.zeros((2, *v.shape), dtype=bool)
    for flags, sign in zip((first, second), signs, strict=True):
        np.logical_or.at(sign, (rows, code), np.take_along_axis(flags, order, axis=1))
    none = np.zeros((len(v), 1), dtype=bool)
    left = np.concatenate([none, np.logical_or.accumulate(signs[0], axis=1)[:, :-1]], axis=1)
    right = np.concatenate([np.logical_or.accumulate(signs[1][:, ::-1], axis=1)[:, ::-1][:, 1:], none], axis=1)
    several = code[:, -1:] > 0
    there = np.arange(v.shape[1]) <= code[:, -1:]
    return np.asarray(np.where(several[:, 0], (~left & ~right & there).any(axis=1), ~signs[0].any(axis=1)))
