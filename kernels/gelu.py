"""GELU, compiled: by the error function, by its approximation with a hyperbolic tangent, and by llama.cpp's table."""

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array
from kernels.kinds.activation import GELU_CUBE, GELU_ROOT
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.parallel import by_token

_TABLE_ENDS = np.float32(10)  # beyond, llama.cpp looks nothing up


# Hyperbolic tangents are those of the C library, which no vector function of NumPy gives bit for bit.
@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1])", "void(float64[:, ::1], float64[:, ::1], float64[:, ::1])"
)
def _gelu(x: NDArray[Any], bracket: NDArray[Any], out: NDArray[Any]) -> None:
    half, one, root = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(GELU_ROOT)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = half * x[t, i] * (one + np.tanh(root * x[t, i] * bracket[t, i]))


def gelu(x: Array) -> Array:
    """x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) of x (tokens, channels) in its dtype."""
    out: Array = lent(x.shape, x.dtype.type)
    bracket = 1 + x.dtype.type(GELU_CUBE) * x * x
    by_token(lambda t: _gelu(x[t], bracket[t], out[t]), x.shape)
    return out


@kernel("void(float32[:, ::1], float32[:, ::1])", "void(float64[:, ::1], float64[:, ::1])")
def _gelu_erf(x: NDArray[Any], out: NDArray[Any]) -> None:
    half, one, root = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(math.sqrt(0.5))
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = half * x[t, i] * (one + math.erf(x[t, i] * root))


def gelu_erf(x: Array) -> Array:
    """x / 2 (1 + erf(x / sqrt(2))) of x (tokens, channels) in its dtype."""
    out: Array = lent(x.shape, x.dtype.type)
    by_token(lambda t: _gelu_erf(x[t], out[t]), x.shape)
    return out


@cache
def _table() -> NDArray[np.float32]:
    """GELU of every number of half precision, rounded to one; by the number's bits. The bracket is rounded once."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)[None]
    out = np.empty_like(every)
    with np.errstate(invalid="ignore", over="ignore"):
        bracket = 1 + (np.float32(GELU_CUBE) * every).astype(np.float64) * every
        _gelu(every, bracket.astype(np.float32), out)
        return np.asarray(out[0].astype(np.float16), dtype=np.float32)


def gelu_ggml(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """llama.cpp's GELU on the CPU, bit for bit: between -10 and 10 a table of halves (ggml-cpu/vec.h)."""
    with np.errstate(over="ignore"):
        found = _table()[x.astype(np.float16).view(np.uint16)]
    return np.where(x <= -_TABLE_ENDS, np.float32(0), np.where(x >= _TABLE_ENDS, x, found))
