"""How much of a recorded trace has every bit of what our operations make of its own inputs."""

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array
from kernels.stages import Site
from workbench.bisect.traces.stages import Checked
from workbench.bisect.verdict import Bits


class BitCount:
    """Counts the stages that are identical and keeps the place of the first value that is not."""

    def __init__(self) -> None:
        self._identical = self._checked = 0
        self._first: tuple[Site, int, int] | None = None

    def see(self, stage: Checked) -> None:
        """Take note of a stage, in execution order."""
        unlike = unlike_bits(stage.y, stage.right.astype(stage.y.dtype, copy=False))
        self._checked += 1
        self._identical += not unlike.any()
        if self._first is None and unlike.any():
            row, channel = (int(place) for place in np.argwhere(unlike)[0])
            self._first = stage.site, int(stage.rows[row]), channel

    def found(self) -> Bits:
        """What was counted."""
        return Bits(self._identical, self._checked, *(self._first or (None, None, None)))


def unlike_bits(y: Array, other: Array) -> NDArray[np.bool_]:
    """Which values of two arrays of one type and shape differ. NaN is NaN whatever its bits; 0 and -0 differ."""
    y, other = np.ascontiguousarray(y), np.ascontiguousarray(other)
    bits = np.dtype(f"u{y.dtype.itemsize}")
    return np.asarray((y.view(bits) != other.view(bits)) & ~(np.isnan(y) & np.isnan(other)))
