"""Convolution over the last tokens, channel by channel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class Convolution(Kind):
    """Every channel of a token and of those before it, each times a weight of its own, plus the bias that there is.

    start, size : the channels that count, all of them where size is 0. The weight is (channels, tokens), the token
    itself last.
    """

    start: int = 0
    size: int = 0
    roles: ClassVar[tuple[str, ...]] = ("x",)
    over_tokens: ClassVar[bool] = True
    by_position: ClassVar[bool] = True

    def channels(self, x: Array) -> Array:
        """The channels that count."""
        return np.ascontiguousarray(x[:, self.start : self.start + self.size]) if self.size else x

    def evaluate(self, at: At, x: Inputs) -> Array:
        (weight,) = at.weights()
        return at.path.convolved(self.channels(x["x"]), weight, at.biases()[0] if at.stage.biases else None)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output, cancels=True)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """Every product and every sum is rounded at the size of all that is added up."""
        weight = np.abs(at.path.vector(at.weights()[0]).astype(np.float64))
        values, taps = self.channels(x["x"]), weight.shape[1]
        reach = np.zeros_like(values)
        for tap in range(taps):
            back = taps - 1 - tap
            reach[back:] += weight[:, tap] * values[: len(values) - back]
        bias = np.abs(at.biases()[0]) if at.stage.biases else 0.0
        return np.asarray(kept.unit * (taps * reach + bias + 2 * size) + kept.least * (1 + weight.sum(axis=1)))
