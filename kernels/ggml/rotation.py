"""Rotary embedding as llama.cpp's CPU backend computes it, bit for bit (ggml-cpu/ops.cpp `ggml_rope_cache_init`)."""

import numpy as np
from numpy.typing import NDArray

from kernels.c_library import cosf, sinf
from kernels.kinds.rotate import Rotation
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.operations import fma
from kernels.machine.parallel import by_token
from kernels.ops import power

Floats = NDArray[np.float32]


def angles(positions: NDArray[np.int64], rotation: Rotation) -> Floats:
    """Angles (tokens, pairs that turn): theta^(-2/d) is multiplied in again and again, so errors grow with the pair."""
    exponents = np.array([-2], dtype=np.float32) / np.float32(rotation.width)
    (step,) = power(np.float32(rotation.theta), exponents)
    factors = np.full((len(positions), rotation.width // 2), step, dtype=np.float32)
    factors[:, 0] = positions
    turned = np.multiply.accumulate(factors, axis=1)
    if rotation.factors is not None:
        turned = turned / np.array(rotation.factors, dtype=np.float32)
    return np.asarray(turned, dtype=np.float32)


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
    out, magnitude = lent((len(x), stop - start), np.float32), np.float32(rotation.magnitude)
    by_token(lambda t: _rotate(x[t], start, turned[t], magnitude, step, apart, rotation.head_dim, out[t]), out.shape)
    return out
