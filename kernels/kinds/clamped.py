"""The gated product of gpt-oss: bounds, a steeper sigmoid in the gate, and 1 added to what it lets through."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Values
from kernels.kinds.activation import Activation, sigmoid
from kernels.kinds.elementwise import Multiply
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class ClampedGate(Activation):
    """g * sigmoid(steepness * g) of g = min(x, limit)."""

    steepness: float
    limit: float
    label: ClassVar[str] = "the clamped gate"

    def evaluate(self, at: At, x: Inputs) -> Array:
        gate = np.minimum(x["x"], at.path.dtype(self.limit))
        return np.asarray(gate / (1 + at.path.exp(at.path.dtype(-self.steepness) * gate)))

    def of(self, x: Values) -> Values:
        gate = np.minimum(x, self.limit)
        return gate * sigmoid(self.steepness * gate)

    def slope(self, x: Values) -> Values:
        share = sigmoid(self.steepness * x)
        return np.asarray(np.where(x < self.limit, share * (1 + self.steepness * x * (1 - share)), 0.0))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return Activation.noise(self, at, {"x": self.steepness * x["x"]}, size, kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClampedMultiply(Multiply):
    """An activated gate times 1 more than what it lets through, which counts between -limit and limit."""

    limit: float

    def through(self, up: Array) -> Array:
        limit, one = up.dtype.type(self.limit), up.dtype.type(1)
        return np.asarray(np.clip(up, -limit, limit) + one)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """As of a plain product, and what the addition of 1 rounds, which may cancel."""
        plain = Multiply.noise(self, at, x, size, kept)
        return plain + kept.unit * (2 + np.minimum(x["up"], self.limit)) * x["gate"]

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        moved = np.where(np.abs(x["up"]) < self.limit, dx["up"], 0.0)
        return np.asarray(dx["gate"] * self.through(x["up"]) + x["gate"] * moved)
