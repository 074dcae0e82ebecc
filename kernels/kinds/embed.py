"""Looking up the rows of an embedding matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array, At, Inputs, Kind, Values
from kernels.kinds.rounding import rounding_error
from kernels.precision import Precision


@dataclass(frozen=True, slots=True)
class Embed(Kind):
    """Rows of the tokens, times a factor.

    scale : in float32, as engines hold it. start, size : the channels that count, so many from there on; all where 0.
    """

    scale: float = 1.0
    start: int = 0
    size: int = 0
    roles: ClassVar[tuple[str, ...]] = ()
    exact: ClassVar[bool] = True

    def part(self, values: NDArray[Any]) -> NDArray[Any]:
        """What counts of an array whose last axis holds all channels."""
        return values[..., self.start : self.start + self.size] if self.size else values

    def evaluate(self, at: At, x: Inputs) -> Array:
        (weight,) = at.weights()
        rows = at.path.embed(weight, np.array(at.tokens, dtype=np.int64))
        if self.size:
            rows = np.ascontiguousarray(self.part(rows))
        return rows if self.scale == 1 else np.asarray(rows * at.path.dtype(self.scale))

    def rounding(self, at: At, x: Inputs, output: Array, codes: bool = True) -> float:
        return rounding_error(at, x, output)

    def noise(self, at: At, x: Mapping[str, Values], size: Values, kept: Precision) -> Values:
        return 4 * kept.unit * size

    def derivative(self, at: At, x: Mapping[str, Values], dx: Mapping[str, Values]) -> Values:
        """Zero: token ids do not change a little."""
        return np.zeros((len(at.tokens), at.stage.channels))
