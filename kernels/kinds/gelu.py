"""GELU, by the error function and by its approximation with a hyperbolic tangent."""

from collections.abc import Mapping
from math import erf, hypot, pi
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Values
from kernels.kinds.activation import GELU_CUBE, GELU_ROOT, Activation
from kernels.kinds.rounding import rounding_error
from kernels.numbers import norm
from kernels.precision import FLOAT32, Precision

_TABULATED = "ggml"


class GeluTanh(Activation):
    """x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""

    label: ClassVar[str] = "GELU (tanh)"

    def evaluate(self, at: At, x: Inputs) -> Array:
        from kernels.gelu import gelu, gelu_ggml  # loads the compiler, which describing a model does not need

        return gelu_ggml(x["x"]) if at.path.engine == _TABULATED else gelu(x["x"])

    def of(self, x: Values) -> Values:
        return np.asarray(0.5 * x * (1 + np.tanh(GELU_ROOT * (x + GELU_CUBE * x**3))))

    def slope(self, x: Values) -> Values:
        bent = np.tanh(GELU_ROOT * (x + GELU_CUBE * x**3))
        return np.asarray(0.5 * (1 + bent) + 0.5 * x * (1 - bent**2) * GELU_ROOT * (1 + 3 * GELU_CUBE * x**2))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """1 + tanh cancels where x is negative, so that values err by what is rounded of x, however small they are."""
        return Activation.noise(self, at, x, size, kept) + FLOAT32.unit * x["x"]

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        """What a table of halves takes away is in hand, as is what two runs by one table have in common."""
        error = rounding_error(at, x, output)
        if not codes or at.path.engine != _TABULATED:
            return error
        from kernels.gelu import gelu_ggml

        with np.errstate(invalid="ignore", over="ignore"):
            wide = np.asarray(x["x"], dtype=np.float64)
            return hypot(error, norm(gelu_ggml(np.asarray(x["x"], dtype=np.float32)) - self.of(wide)))


class GeluErf(Activation):
    """x / 2 (1 + erf(x / sqrt(2)))."""

    label: ClassVar[str] = "GELU (erf)"

    def evaluate(self, at: At, x: Inputs) -> Array:
        from kernels.gelu import gelu_erf

        return gelu_erf(x["x"])

    def of(self, x: Values) -> Values:
        return np.asarray(x * self._share(x))

    def slope(self, x: Values) -> Values:
        return np.asarray(self._share(x) + x * np.exp(-(x**2) / 2) / (2 * pi) ** 0.5)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """1 + erf cancels where x is negative."""
        return Activation.noise(self, at, x, size, kept) + FLOAT32.unit * x["x"]

    @staticmethod
    def _share(x: Values) -> Values:
        return np.asarray((1 + np.vectorize(erf, otypes=[np.float64])(x * 0.5**0.5)) / 2)
