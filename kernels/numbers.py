"""Norms over arrays in which some values may be NaN or infinite."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """The values in float64, 0 where they are NaN or infinite."""
    return np.where(np.isfinite(values), values, 0.0).astype(np.float64, copy=False)


def norm(values: NDArray[Any]) -> float:
    """‖values‖ in float64 over those that are numbers."""
    return float(np.linalg.norm(numbers(values)))
