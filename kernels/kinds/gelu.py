"""GELU by its approximation with a hyperbolic tangent."""

from dataclasses import dataclass
from functools import cache
from math import hypot
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array, At, Inputs, Values
from kernels.kinds.activation import Activation
from kernels.kinds.rounding import rounding_error
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.parallel import by_token
from kernels.numbers import norm

_ROOT, _CUBE = 0.79788456080286535587989211986876, 0.044715  # sqrt(2 / pi), and the share of the third power
_TABLE_ENDS = np.float32(10)  # beyond, llama.cpp looks nothing up
_TABULATED = "ggml"


# Hyperbolic tangents are those of the C library, which no vector function of NumPy gives bit for bit.
@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1])", "void(float64[:, ::1], float64[:, ::1], float64[:, ::1])"
)
def _gelu(x: NDArray[Any], bracket: NDArray[Any], out: NDArray[Any]) -> None:
    half, one, root = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(_ROOT)
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = half * x[t, i] * (one + np.tanh(root * x[t, i] * bracket[t, i]))


def gelu(x: Array) -> Array:
    """x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) of x (tokens, channels) in its dtype."""
    out: Array = lent(x.shape, x.dtype.type)
    bracket = 1 + x.dtype.type(_CUBE) * x * x
    by_token(lambda t: _gelu(x[t], bracket[t], out[t]), x.shape)
    return out


@cache
def _table() -> NDArray[np.float32]:
    """GELU of every number of half precision, rounded to one; by the number's bits. The bracket is rounded once."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)[None]
    out = np.empty_like(every)
    with np.errstate(invalid="ignore", over="ignore"):
        bracket = 1 + (np.float32(_CUBE) * every).astype(np.float64) * every
        _gelu(every, bracket.astype(np.float32), out)
        return np.asarray(out[0].astype(np.float16), dtype=np.float32)


def gelu_ggml(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """llama.cpp's GELU on the CPU, bit for bit: between -10 and 10 a table of halves (ggml-cpu/vec.h)."""
    with np.errstate(over="ignore"):
        found = _table()[x.astype(np.float16).view(np.uint16)]
    return np.where(x <= -_TABLE_ENDS, np.float32(0), np.where(x >= _TABLE_ENDS, x, found))


@dataclass(frozen=True, slots=True)
class GeluTanh(Activation):
    """x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""

    label: ClassVar[str] = "GELU (tanh)"

    def evaluate(self, at: At, x: Inputs) -> Array:
        return gelu_ggml(x["x"]) if at.path.name == _TABULATED else gelu(x["x"])

    def of(self, x: Values) -> Values:
        return np.asarray(0.5 * x * (1 + np.tanh(_ROOT * (x + _CUBE * x**3))))

    def slope(self, x: Values) -> Values:
        bent = np.tanh(_ROOT * (x + _CUBE * x**3))
        return np.asarray(0.5 * (1 + bent) + 0.5 * x * (1 - bent**2) * _ROOT * (1 + 3 * _CUBE * x**2))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        """What a table of halves takes away is in hand, as is what two runs by one table have in common."""
        error = rounding_error(at, x, output)
        if not codes or at.path.name != _TABULATED:
            return error
        with np.errstate(invalid="ignore", over="ignore"):
            wide = np.asarray(x["x"], dtype=np.float64)
            return hypot(error, norm(gelu_ggml(np.asarray(x["x"], dtype=np.float32)) - self.of(wide)))
