"""Norms over arrays in which some values may be NaN or infinite."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SUMS = 16


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

    The longest 16 stay as they are, the others are added up to 16 sums with random signs. Sums of rows at right angles,
    as rounding errors of tokens nearly are, have the length of the rows; of equal rows it is off by a sixth or so, in
    either direction. So it is of whatever a matrix makes of the rows. Rows that are not all numbers count for nothing.
    """
    known = np.asarray(x, np.float64)
    lost = ~np.isfinite(known).all(axis=1, keepdims=True)
    if np.any(lost):
        known = np.where(lost, 0.0, known)
    if len(known) <= 2 * _SUMS:
        return known
    order = np.argsort(-np.einsum("ij,ij->i", known, known), kind="stable")
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (len(known), 1))
    alone, others, sums = order[:_SUMS], order[_SUMS:], np.zeros((_SUMS, known.shape[1]))
    for start in range(0, len(others), _SUMS):
        some = others[start : start + _SUMS]
        sums[: len(some)] += signs[some] * known[some]
    return np.concatenate([known[alone], sums])
