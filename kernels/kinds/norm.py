"""Norms, over all channels or over those of every head: by the root mean square (RMS norm), or by mean and variance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import UNIT, rounding_error
from kernels.numbers import norm
from kernels.precision import FLOAT32, Precision


@dataclass(frozen=True, slots=True)
class Norm(Kind):
    """x over its size, times the weight and plus the bias that the stage has.

    head_dim : channels that are normed together; all of them where it is 0. start, size : the channels that count, all
    of them where size is 0. less_one : engines may keep the weight less 1. times : what comes of it is multiplied by.
    """

    eps: float
    head_dim: int = 0
    start: int = 0
    size: int = 0
    less_one: bool = False
    times: float = 1.0
    roles: ClassVar[tuple[str, ...]] = ("x",)

    def rows(self, x: Array) -> Array:
        """What is normed, one norm a row."""
        if self.size:
            x = np.ascontiguousarray(x[:, self.start : self.start + self.size])
        return np.ascontiguousarray(x).reshape(-1, self.head_dim) if self.head_dim else x

    def centred(self, rows: Values) -> Values:
        """What the size is taken of."""
        return rows

    def normed(self, rows: Values) -> Values:
        """What the weight meets, float64 (norms, channels)."""
        centred = self.centred(rows)
        return np.asarray(centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + self.eps))

    def weight(self, at: At) -> Values:
        """The weight, of all that is normed together, times the factor; ones where there is none."""
        if not at.stage.weights:
            return np.full(self.head_dim or self.size or at.stage.channels, self.times)
        (weight,) = at.weights()
        return at.path.vector(weight).astype(np.float64) * self.times

    def bias(self, at: At) -> Values:
        """The bias; zeros where there is none."""
        return at.biases()[0].astype(np.float64) if at.stage.biases else np.zeros_like(self.weight(at))

    def cancelled(self, at: At, x: Array) -> Values:
        """How large is what is taken from x before it is normed, and x itself, beside its size, (norms, channels)."""
        del at
        return np.zeros_like(self.rows(x), dtype=np.float64)

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        value, change = self.centred(self.rows(x["x"])), self.centred(self.rows(dx["x"]))
        square = np.square(value).mean(axis=1, keepdims=True) + self.eps
        slope = (value * change).mean(axis=1, keepdims=True)
        result: Values = self.weight(at) * (change - value * slope / square) / np.sqrt(square)
        return result.reshape(len(x["x"]), -1)


class RmsNorm(Norm):
    """x / sqrt(mean(x^2) + eps) * weight, or without a weight."""

    def evaluate(self, at: At, x: Inputs) -> Array:
        weight = at.model.weight(at.stage.weights[0]) if at.stage.weights else None
        return at.path.rms_norm(self.rows(x["x"]), weight, self.eps, self.times).reshape(len(x["x"]), -1)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """What is normed is kept before it meets the weight, of which a part may be rounded that is larger than it."""
        weight = self.weight(at)
        noise: Values = 4 * kept.unit * size + kept.least * np.tile(np.abs(weight), size.shape[1] // weight.size)
        if self.less_one:
            noise = noise + kept.unit * (np.abs(weight - 1) * self.normed(self.rows(x["x"]))).reshape(size.shape)
        return noise


class UnitNorm(Norm):
    """x / sqrt(sum(x^2) + eps) of every head; `eps` here is that of the mean, the epsilon by the channels of a head."""

    def evaluate(self, at: At, x: Inputs) -> Array:
        rows = self.rows(x["x"])
        return at.path.unit_norm(rows, self.eps * rows.shape[1]).reshape(len(x["x"]), -1)

    def weight(self, at: At) -> Values:
        return np.full(self.head_dim, self.head_dim**-0.5)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size + kept.least


class LayerNorm(Norm):
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias."""

    signed: ClassVar[bool] = True

    def centred(self, rows: Values) -> Values:
        return np.asarray(rows - rows.mean(axis=1, keepdims=True))

    def evaluate(self, at: At, x: Inputs) -> Array:
        weight, bias = (at.model.weight(names[0]) if names else None for names in (at.stage.weights, at.stage.biases))
        normed = at.path.layer_norm(self.rows(x["x"]), weight, bias, self.eps)
        return normed.reshape(len(x["x"]), -1)

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        """The mean is taken away from what may be much larger than what is left."""
        error = rounding_error(at, x, output)
        return error if at.path.dtype == np.float64 else float(np.hypot(error, UNIT * norm(self.cancelled(at, x["x"]))))

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """What is added up is rounded at the size of what cancels: x less its mean, and both sides of the bias."""
        weight, bias, rows = self.weight(at), np.abs(self.bias(at)), self.rows(x["x"])
        normed = np.abs(self.normed(rows))
        single = kept.unit * (4 * np.abs(weight) * normed + bias) + kept.least * np.abs(weight)
        if self.less_one:
            single = single + kept.unit * np.abs(weight - 1) * normed
        single = single + 2 * FLOAT32.unit * self.cancelled(at, x["x"])
        return np.asarray(2 * kept.unit * size + single.reshape(size.shape))

    def cancelled(self, at: At, x: Array) -> Values:
        rows = self.rows(np.asarray(x, dtype=np.float64))
        mean = rows.mean(axis=1, keepdims=True)
        scale = np.sqrt(np.square(rows - mean).mean(axis=1, keepdims=True) + self.eps)
        return np.asarray(np.abs(self.weight(at)) * (np.abs(rows) + 2 * np.abs(mean)) / scale)
