"""By which factor a recorded norm is longer or shorter than it should be.

What is wrong about an epsilon, or a sum of squares, is alike in all channels that are normed together, while every
channel rounds by itself: taken together they tell the factor far better than any one of them.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.graph import At, Inputs
from kernels.kinds.norm import Norm
from kernels.precision import FLOAT32, Precision

# Of a factor, in units of float32, in which all engines take it: what it is rounded by; what a sum of squares in the
# order of the channels is off by, times the root of their number; what a root that is approximated is off by for all.
_ROUNDED, _SUMMED, _ALIKE = 0.5, 0.1, 0.125
_NEAR_ONE = 0.5  # of a coarser type: times a weight next to 1 all values are rounded the same way


def scaled_off(at: At, inputs: Inputs, y: NDArray[Any], right: NDArray[Any], kept: Precision) -> float:
    """How far the factors of a norm y are from those of the right one, in units of what rounding makes of them.

    The larger of two figures: the root mean square over all that is normed, and what another epsilon would have in
    common, which is the larger the smaller the numbers are.
    """
    assert isinstance(at.kind, Norm)
    rows = at.kind.rows(np.asarray(inputs["x"], dtype=np.float64))
    weight = at.kind.weight(at)
    found, wanted = (np.asarray(x, dtype=np.float64).reshape(rows.shape) for x in (y, right))
    bias, cancelled, rows = at.kind.bias(at), at.kind.cancelled(at, inputs["x"]), at.kind.centred(rows)
    found, wanted = found - bias, wanted - bias
    single = np.square(kept.unit * (np.abs(wanted) + np.abs(bias))) + np.square(kept.least * weight)
    single = single + np.square(FLOAT32.unit * cancelled)
    with np.errstate(all="ignore"):
        counts = np.where(single > 0, np.square(wanted) / single, 0.0)
        channels = counts.sum(axis=1)
        off = ((found - wanted) * np.where(single > 0, wanted / single, 0.0)).sum(axis=1) / channels
        known = (channels > 0) & np.isfinite(off)
    if not known.any():
        return 0.0
    off, each, rows = off[known], 1 / channels[known], rows[known]
    alike = (_NEAR_ONE * (kept.unit - FLOAT32.unit)) ** 2
    summed = (FLOAT32.unit * (_ROUNDED + _SUMMED * rows.shape[1] ** 0.5)) ** 2
    worst = float(np.sqrt((np.square(off) / (each + summed + alike)).mean()))
    # An epsilon that is larger by e makes the factor smaller by e times the slope. Weights that the engine rounds to
    # its own type, once for all tokens, make all factors err alike.
    slope = 0.5 / (np.square(rows).mean(axis=1) + at.kind.eps)
    spread = each + (FLOAT32.unit * _ROUNDED) ** 2
    energy, moved = float((slope**2 / spread).sum()), float((slope * off / spread).sum())
    left = float((np.square(off - moved / energy * slope) / spread).sum())
    scatter = max(1.0, left / max(len(off) - 1, 1))
    alike += float(each.mean()) + (FLOAT32.unit * _ALIKE) ** 2
    together = float((slope / spread).sum()) * alike**0.5
    return max(worst, abs(moved) / math.hypot(together, (energy * scatter) ** 0.5))
