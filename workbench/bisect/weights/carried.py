"""Copies whose quantizer carried the error of every value over to values that were still to be rounded (GPTQ).

A value then lies where the outputs of its layer want it, not within half a step of its source. What can be judged is
how such errors are spread. In simulated runs of the algorithm (2 to 8 bits, groups of 32 to 128 with and without order,
random Hessians, some with outliers of 30 times) a value was off by 14.2 steps at most, 32 neighbours by 4.5 in the root
mean square and a tensor by 0.87; the bounds below were set above that. No checkpoint of anybody else was measured.

Rows share the Hessian, so the same columns of all rows are off by about as much. In 40 more runs (256 rows each) 32 of
them were off by 2.8 times the median of all rows at most, and along their values by 6.3 times the spread that the
median tells. Were errors carried along two directions only, 6 times would be met once in 10^10.
"""

import numpy as np

from workbench.bisect.weights.steps import Flags, Floats, Stored

RUN = 64  # values whose mean error tells a zero point that is off
ONE_STEP = 4.0  # mean square of a tensor's errors in half steps, at most
_FAR, _BLOCK_RMS, _MEAN, _ALONG = 16.0, 5.0, 0.65, 6.0  # steps
_OF_OTHERS, _ALONG_OTHERS = 6.0, 12.0  # times what the same columns of other rows are off by, at most
_ROUNDED, _ROWS = 0.29, 32  # steps that rounding alone leaves; rows of which a median says something
_SPREAD = 0.6745  # the median of magnitudes over the spread, of a normal distribution
_MINORITY = 0.1  # of blocks beyond half a step, up to which a copy has been rounded to nearest, and something is wrong
_LEAST_LIKE = 0.2  # cosine of the angle between two copies of a run; 0.44 is the least found
_FEW_LEVELS = 0.6  # of the values of a run that differ, below which they are no source but values of codes


def may_be(share: float, a: Stored, b: Stored) -> bool:
    """Whether one side's errors may have been carried over, by the share of blocks that are beyond half a step.

    Floats on few levels are no source of it: they are what codes have become.
    """
    return share > _MINORITY and (_carried_from(a, b) or _carried_from(b, a))


def _carried_from(copy: Stored, source: Stored) -> bool:
    if not copy.carried:
        return False
    return source.lowest is not None or _distinct(source.values) > _FEW_LEVELS


def _distinct(values: Floats) -> float:
    """The share of values that differ from all others of their run, in the mean."""
    size = _run(values.shape[1])
    ordered = np.sort(values.reshape(-1, size)[:: max(1, values.size // size // 256)], axis=1)
    return float((np.diff(ordered, axis=1) != 0).mean())


def _run(columns: int) -> int:
    return next((size for size in (RUN, RUN // 2) if columns % size == 0), columns)


def beyond_carried(a: Stored, b: Stored, excess: Floats, inside: Flags, size: int, limit: float) -> Floats:
    """Of blocks (rows, columns / size), how far they are beyond what carried errors leave: `limit` is what they may.

    excess : distances in sums of both sides' half steps.
    """
    steps = np.where(inside, np.sign(b.values - a.values) * excess / 2, 0)
    rows, columns = steps.shape
    starts = np.arange(0, columns, size)
    with np.errstate(over="ignore"):
        off = np.sqrt(np.add.reduceat(np.square(steps), starts, axis=1) / size)
    found = np.maximum(np.maximum.reduceat(excess, starts, axis=1) / (2 * _FAR), off / _BLOCK_RMS)
    own = np.where(np.isfinite(a.values), a.values, 0) / np.maximum(2 * (a.width + b.width), np.float32(1e-30))
    if rows >= _ROWS:
        length = np.sqrt(np.maximum(np.add.reduceat(np.square(own), starts, axis=1), 1e-30))
        along = np.abs(np.add.reduceat(steps * own, starts, axis=1)) / length
        found = np.maximum(found, off / (_OF_OTHERS * np.maximum(np.median(off, axis=0), _ROUNDED)))
        found = np.maximum(found, along / (_ALONG_OTHERS * np.maximum(np.median(along, axis=0) / _SPREAD, _ROUNDED)))
    run = _run(columns)
    if run % size == 0:
        runs = steps.reshape(rows, -1, run)
        own = own.reshape(runs.shape)
        along = (runs * own).sum(axis=2) / np.sqrt(np.maximum(np.square(own).sum(axis=2), 1e-30))
        of_runs = np.maximum(np.abs(runs.mean(axis=2)) / _MEAN, np.abs(along) / _ALONG)
        of_runs[_unlike(a.values.reshape(runs.shape), b.values.reshape(runs.shape))] = np.inf
        found = np.maximum(found, np.repeat(of_runs, run // size, axis=1))
    return np.asarray(limit * found, np.float32)


def _unlike(x: Floats, y: Floats) -> Flags:
    """Runs (rows, runs) that are no two copies of one another."""
    product, of_x, of_y = (np.einsum("rcn,rcn->rc", p, q, dtype=np.float64) for p, q in ((x, y), (x, x), (y, y)))
    return np.asarray(product < _LEAST_LIKE * np.sqrt(of_x * of_y))
