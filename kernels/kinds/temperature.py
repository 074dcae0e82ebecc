"""A factor of the queries that grows with their position, so that attention over long texts stays sharp."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class Tempered(Kind):
    """x times 1 + scale * log(1 + floor((position + offset) / length))."""

    scale: float
    length: int
    offset: int = 0
    roles: ClassVar[tuple[str, ...]] = ("x",)
    by_position: ClassVar[bool] = True

    def factors(self, at: At) -> Values:
        """What every token is multiplied by, float64 (tokens, 1)."""
        lengths = np.floor((at.positions() + self.offset) / self.length)
        return np.asarray(1 + self.scale * np.log1p(lengths))[:, None]

    def evaluate(self, at: At, x: Inputs) -> Array:
        return np.asarray(x["x"] * self.factors(at).astype(at.path.dtype))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 6 * kept.unit * size
