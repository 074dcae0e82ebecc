"""Blocks of Q4_0 and Q5_0 whose scale was fitted to the rounded codes with importance weights.

ggml rounds to the nearest code of one scale, s, and stores another, d = sum(w x code) / sum(w code^2) (ggml-quants.c,
`make_qx_quants`). Two things hold whatever the weights w are: one s explains every code of the block, and d, being a
weighted mean of x / code, is neither below all of these nor above all. As a code other than 0 is off by half a step at
most, s lies between 2/3 d and 2 d.
"""

import numpy as np

from workbench.bisect.weights.line_fits import line_fits
from workbench.bisect.weights.steps import HALF_ROUNDING, Flags, Floats, Stored

_LEAST, _MOST = 2 / 3, 2.0
_HALF_ULP = np.float32(2.0**-11)


def with_fits(a: Stored, b: Stored, blocks: Floats, limit: float, size: int) -> Floats:
    """The worst excess of every block of `size` values, 0 where a fit of one side explains it after all."""
    row, block = np.nonzero(blocks > limit)
    if not len(row):
        return blocks
    one, other = (side.blocks(row, block, size) for side in (a, b))
    fits = np.zeros(len(row), dtype=bool)
    numbers = np.isfinite(one.values).all(axis=1) & np.isfinite(other.values).all(axis=1)
    for source, fitted in ((one, other), (other, one)):
        if fitted.fitted:
            fits |= _one_scale_explains(source, fitted, limit) & _is_mean_of_ratios(source, fitted, limit)
        if fitted.line:
            fits |= line_fits(source, fitted, limit)
    fits &= numbers
    result = blocks.copy()
    result[row[fits], block[fits]] = 0
    return result


def _half_step(fitted: Stored) -> tuple[Floats, Floats]:
    """Half a step of every value's block, and what storing the scale in half precision may move the value by."""
    stored = HALF_ROUNDING * np.float32(fitted.fitted // 2)
    return fitted.half_step - stored, np.asarray(stored + np.abs(fitted.values) * _HALF_ULP, dtype=np.float32)


def _one_scale_explains(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether |x - r v| <= width_x + r step / 2 has a solution r = s / d, row by row; cut values bind on one side."""
    half, _ = _half_step(fitted)
    with np.errstate(divide="ignore"):
        stored = HALF_ROUNDING / (2 * half.max(axis=1)) + _HALF_ULP  # of d, beside d
    at_least, at_most = _LEAST * (1 - stored), _MOST * (1 + stored)
    for sign in (1.0, -1.0):
        # r (sign v - step / 2) <= sign x + width_x, and it does not bind where the source may lie beyond sign v
        bound = sign * source.values.astype(np.float64) + limit * source.width
        bound[source.cut(sign)] = np.inf
        slope = sign * fitted.values.astype(np.float64) - limit * half
        free = (slope == 0) | fitted.cut(-sign)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = bound / slope
        at_most = np.minimum(at_most, np.where(~free & (slope > 0), ratio, np.inf).min(axis=1))
        at_least = np.maximum(at_least, np.where(~free & (slope < 0), ratio, -np.inf).max(axis=1))
    return np.asarray(at_least <= at_most)


def _is_mean_of_ratios(source: Stored, fitted: Stored, limit: float) -> Flags:
    """Whether some value was moved outward and some inward, or might have been, row by row."""
    up, coded = fitted.values > 0, fitted.values != 0
    outward = np.sign(fitted.values) * (fitted.values - source.values)
    half, stored = _half_step(fitted)
    slack = limit * source.width + np.float32(limit - 1) * half + stored
    further = np.where(up, source.cut(1), source.cut(-1))  # the source may lie further out, or further in
    nearer = np.where(up, source.cut(-1), source.cut(1))
    between = (coded & ((outward >= -slack) | nearer)).any(axis=1) & (coded & ((outward <= slack) | further)).any(
        axis=1
    )
    lost = (half == 0) & (
        np.abs(source.values) <= limit * (source.width + np.float32(_MOST) * stored)
    )  # d rounded to 0
    return np.asarray(between | lost.all(axis=1))
