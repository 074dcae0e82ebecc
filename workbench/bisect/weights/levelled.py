"""Sub-blocks of Q4_K and Q5_K that importance weights have made all one value, though their sources are far apart.

ggml fits x = scale x code - minimum by weighted least squares (ggml-quants.c, `make_qkx3_quants`), and a scale below
half a unit of its super-block becomes 0. A weighted slope is a mean of the slopes between two values of unlike codes.
So whatever the weights are, a scale can be that small only if two neighbours among the values are no further apart than
it, and the minimum is where they are. The two must outweigh all others, whose codes grow with their values: how much
more important their channels are at least follows from the values, and that is taken for possible up to a limit.
"""

import numpy as np

from workbench.bisect.weights.steps import Flags, Floats, Stored

_MOST_IMPORTANT = 1e4  # times the others in the mean


def levelled(a: Stored, b: Stored, blocks: Floats, limit: float, size: int) -> Flags:
    """Blocks (rows, blocks) of `size` values that are worse than `limit`, but may be levelled on one side."""
    found = np.zeros(blocks.shape, dtype=bool)
    row, block = np.nonzero(blocks > limit)
    one, other = (side.blocks(row, block, size) for side in (a, b))
    for source, level in ((one, other), (other, one)):
        if level.top:
            found[row, block] |= _has_no_step(level) & _has_neighbours(source, level, limit)
    return found


def _has_no_step(level: Stored) -> Flags:
    """Whether all values of a block are one, which is not an end of a range."""
    ends = np.zeros(level.values.shape, dtype=bool)
    if level.lowest is not None and level.highest is not None:
        ends = level.lowest | level.highest
    return np.asarray((level.values == level.values[:, :1]).all(axis=1) & ~ends.any(axis=1))


def _has_neighbours(source: Stored, level: Stored, limit: float) -> Flags:
    """Whether two values, one after the other in size, may have held the fit at the level against all others."""
    order = np.argsort(source.values, axis=1)
    values, width = (np.take_along_axis(x, order, axis=1).astype(np.float64) for x in (source.values, source.width))
    reach, at = level.width.max(axis=1, keepdims=True), level.values[:, :1]
    near = np.abs(values - at) <= limit * (reach + width)
    gap, slack = np.diff(values, axis=1), width[:, 1:] + width[:, :-1]
    pair = near[:, 1:] & near[:, :-1] & (gap <= limit * (reach / level.top + slack))
    with np.errstate(divide="ignore", invalid="ignore"):
        pull = np.square(values - at).sum(axis=1) * level.top / (values[:, -1] - values[:, 0])  # of unweighted ones
        needed = 2 * pull * level.top / reach[:, 0]
    return np.asarray(pair.any(axis=1) & (needed <= _MOST_IMPORTANT))
