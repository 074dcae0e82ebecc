"""What one tensor says of itself: one look at every value, and a few sums per token.

`moments` reduces a (tokens, channels) tensor to a row of sums for every token; the statistics of any set of tokens
follow from them (kernels/statistics.py). Sums run in float64 from the first channel to the last, so they have the same
bits on every machine and for any number of threads.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import helper, kernel
from kernels.machine.parallel import over_rows
from kernels.statistics import COL

_SHARE = 1 << 17  # elements that are worth a thread


@helper()
def _row(values: NDArray[np.floating], row: NDArray[np.float64]) -> None:
    """All columns of one row; what is not finite is counted and left out of the others."""
    nan = infinite = zero = finite = 0
    low, high, total, peak, at = np.inf, -np.inf, 0.0, -1.0, 0
    for i in range(values.size):
        x = np.float64(values[i])
        if np.isnan(x):
            nan += 1
        elif np.isinf(x):
            infinite += 1
        else:
            finite += 1
            zero += 1 if x == 0.0 else 0
            low, high, total = min(low, x), max(high, x), total + x
            if abs(x) > peak:
                peak, at = abs(x), i
    mean, centred = total / max(finite, 1), 0.0
    for i in range(values.size):
        x = np.float64(values[i])
        if np.isfinite(x):
            centred += (x - mean) * (x - mean)
    row[COL.finite], row[COL.nan], row[COL.inf], row[COL.zero] = finite, nan, infinite, zero
    row[COL.min], row[COL.max], row[COL.mean], row[COL.centred] = low, high, mean, centred
    row[COL.peak], row[COL.peak_channel] = peak, at


@kernel(
    "void(float32[:, ::1], float64[:, ::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], int64, int64)",
)
def _moments(values: NDArray[np.floating], out: NDArray[np.float64], start: int, stop: int) -> None:
    for r in range(start, stop):
        _row(values[r], out[r])


def moments(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sums per token of a float32 or float64 tensor (tokens, channels): float64 (tokens, len(COL))."""
    ready = np.require(values, requirements=("C", "W"))
    out = np.empty((len(ready), len(COL)))
    over_rows(lambda start, stop: _moments(ready, out, start, stop), len(ready), least=-(-_SHARE // ready.shape[1]))
    return out
