"""Rounding errors of the float operations of a stage, in units of 2^-24 of the norms involved; docs/bisect.md."""

import numpy as np

from kernels.graph import Array, At, Inputs
from kernels.numbers import norm

UNIT = 2.0**-24
_PER_OUTPUT, _PER_TERM = 4.0, 2.0
_OF_FLOAT64 = 2.0**-50


def rounding_error(at: At, x: Inputs, output: Array, cancels: bool = False) -> float:
    """‖error‖ of float operations. cancels : they add up what may cancel, and err by the size of the terms."""
    size = norm(output)
    if at.path.dtype == np.float64:
        return size * _OF_FLOAT64
    terms = sum(map(norm, x.values())) if cancels else 0.0
    return UNIT * (_PER_OUTPUT * size + _PER_TERM * terms)
