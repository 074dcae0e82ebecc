"""RMS norms, over all channels or over those of every head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class RmsNorm(Kind):
    """x / sqrt(mean(x^2) + eps) * weight.

    head_dim : channels that are normed together; all of them where it is 0. start, size : the channels that count, all
    of them where size is 0. less_one : engines may keep the weight less 1.
    """

    eps: float
    head_dim: int = 0
    start: int = 0
    size: int = 0
    less_one: bool = False
    roles: ClassVar[tuple[str, ...]] = ("x",)

    def rows(self, x: Array) -> Array:
        """What is normed, one norm a row."""
        if self.size:
            x = np.ascontiguousarray(x[:, self.start : self.start + self.size])
        return np.ascontiguousarray(x).reshape(-1, self.head_dim) if self.head_dim else x

    def evaluate(self, at: At, x: Inputs) -> Array:
        (weight,) = at.weights()
        normed = at.path.rms_norm(self.rows(x["x"]), weight, self.eps)
        return normed.reshape(len(x["x"]), -1)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """What is normed is kept before it meets the weight, of which a part may be rounded that is larger than it."""
        weight = self.weight(at)
        noise: Values = 4 * kept.unit * size + kept.least * np.tile(np.abs(weight), size.shape[1] // weight.size)
        if self.less_one:
            value = self.rows(x["x"])
            normed = value / np.sqrt(np.square(value).mean(axis=1, keepdims=True) + self.eps)
            noise = noise + kept.unit * (np.abs(weight - 1) * normed).reshape(size.shape)
        return noise

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        value, change = self.rows(x["x"]), self.rows(dx["x"])
        square = np.square(value).mean(axis=1, keepdims=True) + self.eps
        slope = (value * change).mean(axis=1, keepdims=True)
        result: Values = self.weight(at) * (change - value * slope / square) / np.sqrt(square)
        return result.reshape(len(x["x"]), -1)

    def weight(self, at: At) -> Values:
        """The weight, of all that is normed together."""
        (weight,) = at.weights()
        return at.path.vector(weight).astype(np.float64)
