"""Products with weight matrices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kernels.graph import SCALE, WEIGHT, Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.numbers import norm
from kernels.precision import FLOAT32, Precision
from kernels.weight import TensorType

Flags = NDArray[np.bool_]
F32 = TensorType["F32"]
_ORDER = 0.5 * FLOAT32.unit  # of a sum in any order, times the lengths of the two vectors


@dataclass(frozen=True, slots=True)
class Product(Kind):
    """x @ W.T for each weight of the stage, side by side, times the factors and plus the biases that it has.

    bias_scaled : the factors multiply the biases too. times : what comes of it is multiplied by. cap : and bent to stay
    below, cap * tanh(x / cap); None for as it is. apart : engines multiply every token by itself. strided : they do so
    with float32 weights, because x lies between other channels and is not copied for them.
    """

    bias_scaled: bool = False
    times: float = 1.0
    cap: float | None = None
    apart: bool = False
    strided: bool = False
    roles: ClassVar[tuple[str, ...]] = ("x",)

    def evaluate(self, at: At, x: Inputs) -> Array:
        weights = at.weights()
        apart = self.apart or (self.strided and all(weight.type == F32 for weight in weights))
        return self.finished(at, at.path.matmul(x["x"], *weights, apart=apart))

    def factor(self, at: At, weight: str) -> float:
        """What the product with a weight of the stage is multiplied by in all."""
        stored = weight.removesuffix(WEIGHT) + SCALE
        return self.times * (float(at.path.vector(at.model.weight(stored))[0]) if stored in at.stage.scales else 1.0)

    def finished(self, at: At, product: Array, channels: Flags | None = None) -> Array:
        """What factors, biases and the bound make of a product. channels : those that it has; None for all."""
        scales, biases = self._scales(at), np.concatenate(at.biases()) if at.stage.biases else None
        if channels is not None:
            scales, biases = (None if values is None else values[channels] for values in (scales, biases))
        if scales is not None and not self.bias_scaled:
            product = np.asarray(product * scales)
        if biases is not None:
            product = np.asarray(product + biases)
        if scales is not None and self.bias_scaled:
            product = np.asarray(product * scales)
        if self.times != 1:
            product = np.asarray(product * product.dtype.type(self.times))
        return product if self.cap is None else at.path.capped(product, self.cap)

    def _scales(self, at: At) -> Array | None:
        """The factor of every channel, (channels,); None where nothing is multiplied."""
        if not at.stage.scales:
            return None
        own = {name: at.path.vector(at.model.weight(name)) for name in at.stage.scales}
        none = np.ones(1, at.path.dtype)
        factors = [own.get(name.removesuffix(WEIGHT) + SCALE, none) for name in at.stage.weights]
        return np.concatenate([np.repeat(f, w.shape[0]) for f, w in zip(factors, at.weights(), strict=True)])

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        """The rounding of activations is in hand: its effect passes through the same weights in float64."""
        error = rounding_error(at, x, output)
        if not codes or at.path.dtype == np.float64:
            return error
        activations = np.ascontiguousarray(x["x"], dtype=np.float32)
        energy, scales, start = error**2, self._scales(at), 0
        for weight in at.weights():
            off, start = at.path.rounded_off(activations, weight), start + weight.shape[0]
            if off is not None:
                off = off if scales is None else off * scales[start - weight.shape[0] : start]
                energy += norm(off) ** 2 * self.times**2
        return float(energy**0.5)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """Float32 sums in any order; weights that the engine keeps with its own precision err independently."""
        lengths, reach = np.linalg.norm(x["x"], axis=1, keepdims=True), self._reach(at, x)
        sums = (_ORDER + kept.unit * x["x"].shape[1] ** -0.5) * reach
        bent = 0.0 if self.cap is None else 6 * kept.unit * size
        return np.asarray(2 * kept.unit * size + sums + kept.least * lengths + bent)

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        if self.cap is None:
            return Kind.derivative(self, at, x, dx)
        straight = replace(self, cap=None)
        return np.asarray(straight.derivative(at, x, dx) * (1 - np.square(self.evaluate(at, x) / self.cap)))

    def order(self, at: At, x: Mapping[str, Values]) -> Values:
        """What another order of the float32 sums may make of every element."""
        return _ORDER * self._reach(at, x)

    def _reach(self, at: At, x: Mapping[str, Values]) -> Values:
        """The length of every input times that of every row."""
        rows, scales = np.concatenate([at.path.row_norms(weight) for weight in at.weights()]), self._scales(at)
        rows = rows if scales is None else rows * np.abs(scales)
        return np.asarray(np.linalg.norm(x["x"], axis=1, keepdims=True) * rows * abs(self.times))
