"""By how much recorded sums with a bias are shifted, which is alike for all tokens.

A bias is added to every token, whose values round by themselves: averaged over the tokens a shift shows that no token
shows, and taken along the bias of a tensor one that no channel shows.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.graph import At, Values

_ALIKE = 0.25  # of the rounding of a value: sums that hardly differ from token to token are rounded alike


def shifted_off(at: At, y: NDArray[Any], right: NDArray[Any], noise: Values) -> float:
    """How far the sums y are shifted from the right ones, in units of what rounding makes of their mean.

    The larger of two figures, both of the worst tensor: the root mean square over its channels, and along its bias.
    """
    with np.errstate(all="ignore"):
        off = (np.asarray(y, dtype=np.float64) - right).mean(axis=0)
        unit = np.sqrt(np.square(noise).mean(axis=0) * (1 / len(y) + _ALIKE**2))
        shifts = off / unit
    start, worst = 0, 0.0
    for bias in _biases(at):
        own = slice(start, start + bias.size)
        start += bias.size
        length = float(np.linalg.norm(bias / unit[own]))
        along = abs(float(shifts[own] @ (bias / unit[own]))) / length if length else 0.0
        found = max(float(np.sqrt(np.square(shifts[own]).mean())), along)
        worst = max(worst, found if np.isfinite(found) else 0.0)
    return worst


def _biases(at: At) -> list[Values]:
    """The biases of the stage; of a model that lacks them none."""
    if not all(name in at.model for name in at.stage.biases):
        return []
    return [bias.astype(np.float64) for bias in at.biases()]
