"""Blocks whose scale and least value were both fitted to the rounded codes with importance weights.

ggml rounds to the nearest codes of one scale and one least value, and stores those of the weighted least squares
line through source over code (ggml-quants.c, `make_qkx3_quants`). Two things hold whatever the weights are: one line
explains every code of the block, and the stored line leaves residuals that no other line could all make smaller. So in
the order of codes their sign turns twice at least; once is enough for a line that was held at 0.
"""

import numpy as np

from workbench.bisect.weights.steps import Flags, Floats, Stored

_LEAST, _MOST = 0.5, 16.0  # the step of the codes over the stored one, which few values of large importance decide
_ROUNDS = 40  # of a search that leaves 0.618 of the range each time
_GOLDEN = (5**0.5 - 1) / 2
_WHOLE = 1e-2  # of a step, from a multiple of it


def line_fits(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether the fit of a line explains each block; both sides hold one block in every row."""
    return np.asarray(_one_line_explains(source, fitted, limit) & _is_least_squares(source, fitted, limit))


def _one_line_explains(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether |x - offset - ratio v| <= width_x + ratio half a step has a solution; cut values bind on one side.

    For a given ratio the offset lies in an interval whose length is concave in the ratio, so that its largest is found
    by a golden section search.
    """
    x, v = source.values.astype(np.float64), fitted.values.astype(np.float64)
    own, half = limit * source.width.astype(np.float64), limit * fitted.width.astype(np.float64)
    no_top = source.cut(1) | fitted.cut(-1)  # the source may lie further up, or the code was raised to the lowest
    no_bottom = source.cut(-1) | fitted.cut(1)

    def room(ratio: Floats) -> Floats:
        left = x - ratio[:, None] * v
        reach = own + ratio[:, None] * half
        top = np.where(no_top, np.inf, left + reach).min(axis=1)
        return np.asarray(top - np.where(no_bottom, -np.inf, left - reach).max(axis=1))

    low, high = np.full(len(x), _LEAST), np.full(len(x), _MOST)
    for _ in range(_ROUNDS):
        first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        rising = room(first) < room(second)
        low, high = np.where(rising, first, low), np.where(rising, high, second)
    return np.asarray(room((low + high) / 2) >= 0)


def _is_least_squares(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether no other line could come nearer to every value, so far as the signs of the residuals are known."""
    off, v = fitted.values - source.values, fitted.values
    half = _half_step(fitted)
    slack = limit * source.width + np.float32(limit - 1) * half + (fitted.width - half)
    below = (off <= slack) | source.cut(1)  # the source is above, or might be
    above = (off >= -slack) | source.cut(-1)
    turns = ~(_one_turn(v, below, above) | _one_turn(v, above, below))
    steps = v / (2 * fitted.width)
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
