"""Layer norms, compiled: in float64 but for what comes out, and by llama.cpp's rule."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.parallel import by_token

Real = TypeVar("Real", np.float32, np.float64)


@kernel(
    "void(float32[:, ::1], float32[::1], float32[::1], float64, float32[:, ::1])",
    "void(float64[:, ::1], float64[::1], float64[::1], float64, float64[:, ::1])",
)
def _layer_norm(x: NDArray[Real], w: NDArray[Real], b: NDArray[Real], eps: float, out: NDArray[Real]) -> None:
    n = x.shape[1]
    for t in range(x.shape[0]):
        total = 0.0
        for i in range(n):
            total += x[t, i]
        mean, energy = total / n, 0.0
        for i in range(n):
            energy += (x[t, i] - mean) ** 2
        scale = 1.0 / np.sqrt(energy / n + eps)
        for i in range(n):
            out[t, i] = x.dtype.type((x[t, i] - mean) * scale) * w[i] + b[i]


def layer_norm(x: NDArray[Real], weight: NDArray[Real], bias: NDArray[Real], eps: float) -> NDArray[Real]:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis, in float64 up to the weight."""
    out = lent(x.shape, x.dtype.type)
    by_token(lambda t: _layer_norm(x[t], weight, bias, eps, out[t]), x.shape)
    return out


@kernel("void(float32[:, ::1], float32[::1], float32[::1], float32, float32[:, ::1])")
def _layer_norm_ggml(
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    b: NDArray[np.float32],
    eps: np.float32,
    out: NDArray[np.float32],
) -> None:
    n, square = x.shape[1], np.empty(8, np.float32)
    for t in range(x.shape[0]):
        total = 0.0
        for i in range(n):
            total += np.float64(x[t, i])
        mean, energy = np.float32(total) / np.float32(n), 0.0
        for first in range(0, n - n % 8, 8):
            for i in range(8):
                out[t, first + i] = x[t, first + i] - mean
                square[i] = out[t, first + i] * out[t, first + i]
            for i in range(4):
                square[i] += square[i + 4]
            energy += np.float64((square[0] + square[2]) + (square[1] + square[3]))
        for i in range(n - n % 8, n):
            out[t, i] = x[t, i] - mean
            energy += np.float64(out[t, i] * out[t, i])
        scale = np.float32(1) / np.sqrt(np.float32(energy / n) + eps)
        for i in range(n):
            out[t, i] = out[t, i] * scale
            out[t, i] = out[t, i] * w[i]
            out[t, i] = out[t, i] + b[i]


def layer_norm_ggml(
    x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32], eps: float
) -> NDArray[np.float32]:
    """llama.cpp's layer norm, bit for bit: eight squares at a time in float32, summed in float64 (ggml-cpu/vec.cpp)."""
    out = lent(x.shape, x.dtype.type)
    by_token(lambda t: _layer_norm_ggml(x[t], weight, bias, np.float32(eps), out[t]), x.shape)
    return out
