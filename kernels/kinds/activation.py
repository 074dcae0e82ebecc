"""Activation functions of a feed-forward block."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.precision import FLOAT32, Precision

# Of GELU: sqrt(2 / pi), and the share of the third power.
GELU_ROOT, GELU_CUBE = 0.79788456080286535587989211986876, 0.044715


class Activation(Kind):
    """A function of every value by itself. label : its name in words."""

    label: ClassVar[str]
    roles: ClassVar[tuple[str, ...]] = ("x",)
    exact: ClassVar[bool] = True

    @abstractmethod
    def of(self, x: Values) -> Values:
        """The function in float64."""

    @abstractmethod
    def slope(self, x: Values) -> Values:
        """Its derivative in float64."""

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return (4 * kept.unit + FLOAT32.unit * x["x"]) * size

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        return self.slope(x["x"]) * dx["x"]


def sigmoid(x: Values) -> Values:
    """1 / (1 + exp(-x)) in float64."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


class Silu(Activation):
    """x * sigmoid(x)."""

    label: ClassVar[str] = "SiLU"

    def evaluate(self, at: At, x: Inputs) -> Array:
        return at.path.silu(x["x"])

    def of(self, x: Values) -> Values:
        return x * sigmoid(x)

    def slope(self, x: Values) -> Values:
        share = sigmoid(x)
        return np.asarray(share * (1 + x * (1 - share)))


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    label: ClassVar[str] = "a sigmoid"

    def evaluate(self, at: At, x: Inputs) -> Array:
        return at.path.sigmoid(x["x"])

    def of(self, x: Values) -> Values:
        return sigmoid(x)

    def slope(self, x: Values) -> Values:
        share = sigmoid(x)
        return np.asarray(share * (1 - share))


class ReluSquared(Activation):
    """The square of what is above zero."""

    label: ClassVar[str] = "ReLU squared"

    def evaluate(self, at: At, x: Inputs) -> Array:
        above = np.maximum(x["x"], 0)
        return np.asarray(above * above)

    def of(self, x: Values) -> Values:
        return np.square(np.maximum(x, 0))

    def slope(self, x: Values) -> Values:
        return np.asarray(2 * np.maximum(x, 0))
