"""What a gate lets through."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.activation import sigmoid
from kernels.kinds.rounding import rounding_error
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class Gated(Kind):
    """x times the sigmoid of a gate, of one channel or of as many.

    divided : llama.cpp divides the SiLU of the gate by the gate, which rounds otherwise and is NaN of a gate of 0.
    """

    divided: bool = False
    roles: ClassVar[tuple[str, ...]] = ("x", "gate")

    def evaluate(self, at: At, x: Inputs) -> Array:
        gate = x["gate"]
        if self.divided and at.path.engine == "ggml":
            # rows of one channel, which fill no vector
            with np.errstate(invalid="ignore"):
                return np.asarray(x["x"] * (at.path.silu(gate) / gate))
        return np.asarray(x["x"] * at.path.sigmoid(gate))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return kept.unit * (6 + 2 * x["gate"]) * size

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        share = sigmoid(x["gate"])
        return np.asarray(dx["x"] * share + x["x"] * share * (1 - share) * dx["gate"])
