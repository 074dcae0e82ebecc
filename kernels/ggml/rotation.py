"""Rotary embedding as llama.cpp's CPU backend computes it, bit for bit (ggml-cpu/ops.cpp `ggml_rope_cache_init`)."""

import math

import numpy as np
from numpy.typing import NDArray

from kernels.c_library import cosf, sinf
from kernels.kinds.rotate import Rotation, yarn_factors
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.operations import fma
from kernels.machine.parallel import by_token
from kernels.ops import power

_NEAR = 1e-6  # of the magnitude that YaRN has where nothing else is said

Floats = NDArray[np.float32]


def angles(positions: NDArray[np.int64], rotation: Rotation) -> Floats:
    """Angles (tokens, pairs that turn): theta^(-2/d) is multiplied in again and again, so errors grow with the pair."""
    exponents = np.array([-2], dtype=np.float32) / np.float32(rotation.width)
    (step,) = power(np.float32(rotation.theta), exponents)
    factors = np.full((len(positions), rotation.width // 2), step, dtype=np.float32)
    factors[:, 0] = positions
    turned = np.multiply.accumulate(factors, axis=1)
    if rotation.factors is None:
        return turned
    if _is_blended(rotation):
        return _blended(turned, *rotation.ramp or ())
    if len(set(rotation.factors)) == 1:  # a scale of positions, which is kept as what they are multiplied by
        return turned * (np.float32(1) / np.float32(rotation.factors[0]))
    return np.asarray(turned / np.array(rotation.factors, dtype=np.float32))


def _is_blended(rotation: Rotation) -> bool:
    """Whether the divisors are still those that YaRN made."""
    made = None if rotation.ramp is None else yarn_factors(*rotation.ramp, pairs=rotation.width // 2)
    return made is not None and made == rotation.factors


def _blended(turned: Floats, factor: float, low: float, width: float) -> Floats:
    """Angles of YaRN: `turned` of pairs from low on, and those by the factor from low + width on (`rope_yarn`)."""
    one, least = np.float32(1), np.float32(0.001)
    along = (np.arange(turned.shape[1], dtype=np.float32) - np.float32(low)) / max(least, np.float32(width))
    kept = one - np.minimum(one, np.maximum(np.float32(0), along))
    # products of two float32 are exact in float64
    shortened = (turned * (one / np.float32(factor))).astype(np.float64) * (one - kept)
    return np.asarray(shortened + np.float64(turned * kept), dtype=np.float32)


def _magnitude(rotation: Rotation) -> np.float32:
    """What turned channels are multiplied by: YaRN's is divided out, and put in again (llama-context.cpp)."""
    if not _is_blended(rotation) or rotation.ramp is None or rotation.ramp[0] <= 1:
        return np.float32(rotation.magnitude)
    one, tenth, log = np.float32(1), np.float32(0.1), np.float32(math.log(rotation.ramp[0]))
    whole = one + tenth * log
    usual = abs(rotation.magnitude - whole) < _NEAR
    left = (whole if usual else np.float32(rotation.magnitude)) * (one / whole)
    return np.float32(left * np.float32(1 + np.float64(tenth) * np.float64(log)))


@kernel("void(float32[:, ::1], int64, float32[:, ::1], float32, int64, int64, int64, float32[:, ::1])")
def _rotate(
    x: Floats, column: int, angle: Floats, magnitude: np.float32, step: int, apart: int, head: int, out: Floats
) -> None:
    pairs = angle.shape[1]
    cos, sin = np.empty(pairs, np.float32), np.empty(pairs, np.float32)
    for t in range(x.shape[0]):
        for i in range(pairs):
            cos[i], sin[i] = cosf(angle[t, i]) * magnitude, sinf(angle[t, i]) * magnitude
        for first in range(0, out.shape[1], head):
            for i in range(pairs):
                low = first + step * i
                a, b = x[t, column + low], x[t, column + low + apart]
                out[t, low] = fma(a, cos[i], -(b * sin[i]))
                out[t, low + apart] = fma(a, sin[i], b * cos[i])
            for i in range(first + 2 * pairs, first + head):
                out[t, i] = x[t, column + i]


def rotate(x: Floats, positions: NDArray[np.int64], rotation: Rotation, columns: slice) -> Floats:
    """Heads in some columns of x (tokens, channels), turned by the tokens' positions."""
    start, stop, _ = columns.indices(x.shape[1])
    turned, neox = angles(positions, rotation), rotation.pairs == "neox"
    step, apart = (1, rotation.width // 2) if neox else (2, 1)
    out, magnitude = lent((len(x), stop - start), np.float32), _magnitude(rotation)
    by_token(lambda t: _rotate(x[t], start, turned[t], magnitude, step, apart, rotation.head_dim, out[t]), out.shape)
    return out
