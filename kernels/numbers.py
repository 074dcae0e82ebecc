"""Norms over arrays in which some values may be NaN or infinite."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """The values in float64, 0 where they are NaN or infinite."""
    return np.where(np.isfinite(values), values, 0.0).astype(np.float64, copy=False)


def norm(values: NDArray[Any]) -> float:
    """‖values‖ in float64 over those that are numbers."""
    from kernels.lengths import energies  # compiled, which who describes a model does not need

    rows = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    return math.sqrt(energies(rows).sum())
