"""The statistics of one tensor, from the sums per token that `kernels.moments.moments` leaves.

Needs NumPy only: whoever shows or compares numbers loads no compiler. Definitions: docs/statistics.md.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Columns(NamedTuple):
    """Columns of the sums of a token. All but the counts of NaN and Inf are of its finite values."""

    finite: int = 0
    nan: int = 1
    inf: int = 2
    zero: int = 3  # of either sign
    min: int = 4
    max: int = 5
    mean: int = 6
    centred: int = 7  # sum of (x - mean)^2
    peak: int = 8  # largest |x|, -1 where no value is finite
    peak_channel: int = 9  # where it is first


COL = Columns()


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of the values of one stage over some tokens; None is not known, or not defined without a number.

    shape : (tokens, channels) of all values, which is the population of every figure.
    min, max, mean, std, rms : of the finite values; std is that of the population (divided by n, not n - 1).
    nan, inf, zero : how many values are NaN, infinite (of either sign) or zero (of either sign).
    worst_channel : the channel that holds the largest finite absolute value, at whichever token: where a massive
    activation is. Of several that hold it, that of the first token, and there the lowest.
    """

    shape: tuple[int, int] | None = None
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    rms: float | None = None
    nan: int | None = None
    inf: int | None = None
    zero: int | None = None
    worst_channel: int | None = None


def statistics(moments: NDArray[np.float64], channels: int) -> Statistics:
    """The statistics of the tokens whose sums are given, combined in float64 (Chan et al. 1979 for the spread)."""
    shape = len(moments), channels
    n, nan, inf, zero = (int(moments[:, column].sum()) for column in (COL.finite, COL.nan, COL.inf, COL.zero))
    if n == 0:
        return Statistics(shape, nan=nan, inf=inf, zero=0)
    p = moments[moments[:, COL.finite] > 0]
    counts, means = p[:, COL.finite], p[:, COL.mean]
    mean = float((counts * means).sum() / n)
    centred = float((p[:, COL.centred] + counts * (means - mean) ** 2).sum())
    top = int(p[:, COL.peak].argmax())
    return Statistics(
        shape,
        min=float(p[:, COL.min].min()),
        max=float(p[:, COL.max].max()),
        mean=_number(mean),
        std=_number((centred / n) ** 0.5),
        rms=_number((centred / n + mean * mean) ** 0.5),
        nan=nan,
        inf=inf,
        zero=zero,
        worst_channel=int(p[top, COL.peak_channel]),
    )


def _number(value: float) -> float | None:
    """The value, or None where sums of squares leave float64, which no float32 values can bring about."""
    return value if math.isfinite(value) else None
