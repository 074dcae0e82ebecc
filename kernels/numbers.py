"""Norms over arrays in which some values may be NaN or infinite."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SUMS = 32


def numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    """The values in float64, 0 where they are NaN or infinite."""
    return np.where(np.isfinite(values), values, 0.0).astype(np.float64, copy=False)


def norm(values: NDArray[Any]) -> float:
    """‖values‖ in float64 over those that are numbers."""
    from kernels.lengths import energies  # compiled, which who describes a model does not need

    rows = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
    return math.sqrt(energies(rows).sum())


def in_signed_sums(x: NDArray[Any]) -> NDArray[np.float64]:
    """At most 32 rows of about the same length in all as the rows of x, (rows, columns); x itself if it has no more.

    Neighbours are added up with random signs. Sums of rows at right angles, as rounding errors of tokens are, have the
    length of the rows but for a share of 1 / sqrt(rows * columns) or so; of equal rows it is off by an eighth, in either
    direction. So it is of whatever a matrix makes of the rows. Rows with NaN or infinite values count for nothing.
    """
    known = np.asarray(x, np.float64)
    if not (fine := np.isfinite(known).all(axis=1)).all():
        known = np.where(fine[:, None], known, 0.0)
    together = -(-len(known) // _SUMS)
    if together == 1:
        return known
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (len(known), 1))
    return np.asarray(np.add.reduceat(known * signs, np.arange(0, len(known), together)))
