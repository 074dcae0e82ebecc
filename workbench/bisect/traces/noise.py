"""How far two correct implementations of a stage may be apart, element by element, on the same recorded inputs.

Both round alike to 8 bits, for they have the same inputs; what is left is the rounding of their float operations. It
follows the magnitudes that were added up, not the result, and the angles and scores that exponentials and rotations
make large (kernels/kinds). Two engines stay within a few of these units; a mistake does not.
"""

import numpy as np

from kernels.graph import Array, At, Inputs, Values
from kernels.precision import Precision

_TINY = 1e-37  # so that exact zeros can be divided by it


def float_noise(at: At, inputs: Inputs, right: Array, kept: Precision) -> Values:
    """Size of the float rounding of every element of a stage's output, (tokens, channels).

    kept : how the engine keeps its numbers; sums are taken to be in float32 at least. Numbers that are too small for a
    relative rounding err by an absolute one, wherever one is kept on the way. inputs : what the stage reads, by role.
    right : the right output.
    """
    wide = {role: np.asarray(x, dtype=np.float64) for role, x in inputs.items()}
    wide = wide if at.kind.signed else {role: np.abs(x) for role, x in wide.items()}
    size = np.abs(np.asarray(right, dtype=np.float64))
    noise = at.kind.noise(at, wide, size, kept) + at.kind.either_way(at, inputs, kept)
    return np.asarray(noise + max(kept.least, _TINY))
