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
    """Whether the signs of the residuals turn as often as those of a weighted least squares line, or might."""
    order = np.argsort(fitted.values, axis=1, kind="stable")
    v, step = np.take_along_axis(fitted.values, order, axis=1), 2 * fitted.width
    off = np.take_along_axis(fitted.values - source.values, order, axis=1)
    slack = np.take_along_axis(limit * source.width, order, axis=1)
    below = (off <= slack) | np.take_along_axis(source.cut(1), order, axis=1)  # the source is above, or might be
    above = (off >= -slack) | np.take_along_axis(source.cut(-1), order, axis=1)
    turns = np.ones(len(v), dtype=bool)
    for first, second in ((below, above), (above, below)):
        # a line that is nowhere below up to some code and nowhere above beyond it could be turned to come nearer
        until, beyond = ~np.logical_or.accumulate(first, axis=1), ~_from_the_end(second)
        between = np.concatenate([v[:, 1:] != v[:, :-1], np.ones((len(v), 1), dtype=bool)], axis=1)
        split = until & np.concatenate([beyond[:, 1:], np.ones((len(v), 1), dtype=bool)], axis=1)
        turns &= ~(split & between).any(axis=1) & ~beyond[:, 0]
    whole = np.abs(v / step - np.round(v / step)).max(axis=1) <= _WHOLE * (v[:, -1] > 0)
    held = (v[:, 0] >= 0) & whole
    return np.asarray(turns | (held & below.any(axis=1) & above.any(axis=1)))


def _from_the_end(flags: Flags) -> Flags:
    return np.asarray(np.logical_or.accumulate(flags[:, ::-1], axis=1)[:, ::-1])
