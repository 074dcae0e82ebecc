"""Adding a vector to every token."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.precision import Precision


class Bias(Kind):
    """x plus the biases of the stage, side by side."""

    roles: ClassVar[tuple[str, ...]] = ("x",)

    def evaluate(self, at: At, x: Inputs) -> Array:
        """The input itself where the model has no such biases, though somebody asks what would be added there."""
        if not any(name in at.model for name in at.stage.biases):
            return x["x"]
        return np.asarray(x["x"] + np.concatenate(at.biases()))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output, cancels=True)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return kept.unit * (2 * x["x"] + 2 * size) + kept.least
