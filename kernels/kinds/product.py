"""Products with weight matrices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import SCALE, WEIGHT, Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.numbers import norm
from kernels.precision import FLOAT32, Precision

_ORDER = 0.5 * FLOAT32.unit  # of a sum in any order, times the lengths of the two vectors


@dataclass(frozen=True, slots=True)
class Product(Kind):
    """x @ W.T for each weight of the stage, side by side, times the factors and plus the biases that it has.

    bias_scaled : the factors multiply the biases too.
    """

    bias_scaled: bool = False
    roles: ClassVar[tuple[str, ...]] = ("x",)

    def evaluate(self, at: At, x: Inputs) -> Array:
        product = at.path.matmul(x["x"], *at.weights())
        scales, biases = self._scales(at), at.biases()
        if scales is not None and not self.bias_scaled:
            product = np.asarray(product * scales)
        if biases:
            product = np.asarray(product + np.concatenate(biases))
        return product if scales is None or not self.bias_scaled else np.asarray(product * scales)

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
                energy += norm(off if scales is None else off * scales[start - weight.shape[0] : start]) ** 2
        return float(energy**0.5)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        """Float32 sums in any order; weights that the engine keeps with its own precision err independently."""
        lengths, reach = np.linalg.norm(x["x"], axis=1, keepdims=True), self._reach(at, x)
        sums = (_ORDER + kept.unit * x["x"].shape[1] ** -0.5) * reach
        return np.asarray(2 * kept.unit * size + sums + kept.least * lengths)

    def order(self, at: At, x: Mapping[str, Values]) -> Values:
        """What another order of the float32 sums may make of every element."""
        return _ORDER * self._reach(at, x)

    def _reach(self, at: At, x: Mapping[str, Values]) -> Values:
        """The length of every input times that of every row."""
        rows, scales = np.concatenate([at.path.row_norms(weight) for weight in at.weights()]), self._scales(at)
        rows = rows if scales is None else rows * np.abs(scales)
        return np.asarray(np.linalg.norm(x["x"], axis=1, keepdims=True) * rows)
