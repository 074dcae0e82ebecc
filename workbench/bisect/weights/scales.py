"""Whether the scales of blocks can be a quantizer's, where single values do not tell.

The source of a value at an end of the codes may lie anywhere beyond it, and of a point of a grid hardly more than the
sign is certain. But whatever the importance weights are, a scale of IQ2 and IQ3 is a weighted mean of source over code,
so it is no larger than the largest of these; where there are only the codes -1, 0 and 1 it is the largest magnitude of
its block, and where there are only signs it is the mean. Nothing holds a scale from below but this: most values of a
block are not far beyond it.
"""

import numpy as np

from workbench.bisect.weights.steps import HALF_ROUNDING, Flags, Floats, Stored

_BEYOND = 2.0  # times a stored value, and half a step, that most sources are not beyond: 1.6 times is the most found
_WHOLE_STEP = np.float32(3**0.5)  # half a step costs a third of its square
_EXACT = 2.0**-11 + 1e-4  # of a mean: half precision, and the order of a sum


def misscaled(a: Stored, b: Stored, size: int, limit: float) -> Flags:
    """Blocks (rows, columns / size) of which one side's scale is none that its quantizer makes of the other side."""
    found = np.zeros((len(a.values), -(-a.values.shape[1] // size)), dtype=bool)
    for source, side in ((a, b), (b, a)):
        if side.mean:
            found |= _in_blocks(_is_not_the_mean(source, side, limit), side.mean, size)
        elif side.shared or side.flips is not None:
            run = 256 if side.flips is not None else size
            if side.values.shape[1] % run == 0:
                found |= _in_blocks(_is_far_short(source, side, run), run, size)
        if side.reached is not None:
            found |= _in_blocks(_is_too_large(source, side, side.reached, limit), side.shared, size)
    return found


def cost_of(side: Stored, source: Stored, right: Flags) -> Floats:
    """Half a step; of signs and points of grids, whose sources may lie anywhere beyond them, the distance if larger.

    right : of all values, whether their block is a copy, so that its distances are those of a quantizer.
    """
    width = side.width
    if side.mean or side.flips is not None:
        with np.errstate(invalid="ignore"):
            far = _WHOLE_STEP * np.abs(side.values - source.values)
            width = np.where(right, np.maximum(width, far), width)
    return np.require(width, np.float32, ["C", "W"])


def _in_blocks(flags: Flags, run: int, size: int) -> Flags:
    """Flags of runs as flags of blocks of `size` values."""
    if run >= size:
        return np.repeat(flags, run // size, axis=1)
    return np.asarray(flags.reshape(len(flags), -1, size // run).any(axis=2))


def _outward(source: Stored, side: Stored) -> tuple[Floats, Flags]:
    """How far a source lies in the direction of its stored value, and whether it may lie anywhere further."""
    up = side.values > 0
    return np.sign(side.values) * source.values, np.where(up, source.cut(1), source.cut(-1))


def _is_too_large(source: Stored, side: Stored, reached: Floats, limit: float) -> Flags:
    """Whether no source of a run reaches as far as the largest must."""
    out, cut = _outward(source, side)
    with np.errstate(invalid="ignore"):
        short = (out + source.width) * np.float32(limit) < reached
    enough = ~short | cut | ~np.isfinite(out)
    return np.asarray(~enough.reshape(len(enough), -1, side.shared).any(axis=2))


def _is_far_short(source: Stored, side: Stored, run: int) -> Flags:
    """Whether all codes of a run that are not 0 are at an end, and the sources of most of them far beyond."""
    out, _ = _outward(source, side)
    coded = side.values != 0
    with np.errstate(invalid="ignore", over="ignore"):
        far = coded & (out - source.width > np.float32(_BEYOND) * np.abs(side.values) + side.width)
    within = coded & ~side.cut(1) & ~side.cut(-1)
    coded, far, within = (flags.reshape(len(flags), -1, run) for flags in (coded, far, within))
    count = coded.sum(axis=2)
    return np.asarray(~within.any(axis=2) & (2 * count >= run) & (2 * far.sum(axis=2) > count))


def _is_not_the_mean(source: Stored, side: Stored, limit: float) -> Flags:
    """Whether the magnitude of a run is not the mean of its sources' magnitudes."""
    size, width = np.abs(source.values), np.float32(limit) * source.width
    with np.errstate(invalid="ignore"):
        low = np.maximum(size - width, 0)
        high = np.where(source.cut(1) | source.cut(-1), np.float32(np.inf), size + width)
    runs = (len(size), -1, side.mean)
    least, most = (x.reshape(runs).mean(axis=2, dtype=np.float64) for x in (low, high))
    stored = np.abs(side.values).reshape(runs)[:, :, 0]
    slack = stored * _EXACT + HALF_ROUNDING
    return np.asarray((stored < least - slack) | (stored > most + slack))
