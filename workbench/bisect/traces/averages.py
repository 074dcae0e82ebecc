"""Stages judged a second time, by what a mistake would have in common where rounding has nothing in common.

Rounding moves every element by itself; a rotary table moves all heads of a token alike, an epsilon all channels, a
bias all tokens. Averages over these are known far better than any element.
"""

from typing import Any

from numpy.typing import NDArray

from kernels.graph import At, Inputs, Values
from kernels.kinds.bias import Bias
from kernels.kinds.norm import Norm
from kernels.kinds.rotate import Rotate
from kernels.precision import Precision
from workbench.bisect.traces.angles import turned_off
from workbench.bisect.traces.scales import scaled_off
from workbench.bisect.traces.shifts import shifted_off


def averaged_off(at: At, inputs: Inputs, y: NDArray[Any], right: NDArray[Any], noise: Values, kept: Precision) -> float:
    """How far averages of a stage y are from those of the right one, in units of what rounding makes of them.

    0 for kinds of which nothing is averaged. inputs : what the stage reads, by role. noise : of every element. kept :
    how the engine keeps its numbers.
    """
    if isinstance(at.kind, Rotate):
        return turned_off(at, y, right, kept)
    if isinstance(at.kind, Norm):
        return scaled_off(at, inputs, y, right, kept)
    return shifted_off(at, y, right, noise) if isinstance(at.kind, Bias) else 0.0
