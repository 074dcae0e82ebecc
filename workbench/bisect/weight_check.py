"""Whether the difference of two tensors is explained by the formats they are stored in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.dequantize import dequantize
from kernels.weight import Weight
from workbench.bisect.steps import rounding_bound

BLOCK = 32  # elements per verdict of a map of affected places; divides every quantization block
# Elements of healthy pairs stay within 1.0 bounds (1.4 for Q4_K, whose scale search may cut extremes); docs/bisect.md.
LIMIT = 2.0
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Values of a tensor, float32 (rows, columns), and how far each may be from its source."""

    values: NDArray[np.float32]
    bounds: NDArray[np.float32]

    @classmethod
    def of(cls, weight: Weight) -> "Stored":
        """The values and bounds of a stored tensor; a vector is one row."""
        rows = len(weight.rows)
        return cls(dequantize(weight).reshape(rows, -1), rounding_bound(weight).reshape(rows, -1))


@dataclass(frozen=True, slots=True, eq=False)
class WeightCheck:
    """The verdict on two tensors of one shape.

    explained : no element is further away than LIMIT times what both formats may cost, and no common factor is left.
    worst : largest distance in multiples of the bound.
    slope : least-squares factor of the difference on A, minus what rounding noise leaves: 0.02 for a copy scaled 1.02.
    affected : bool (rows, blocks of 32 columns), where the difference is not explained.
    rel_rms : ‖a-b‖/‖b‖ (infinity if B is zero and A is not).
    """

    explained: bool
    worst: float
    slope: float
    affected: NDArray[np.bool_]
    rel_rms: float


def check(a: Stored, b: Stored) -> WeightCheck:
    """Judge the difference of two tensors, element by element."""
    d = b.values - a.values
    finite = np.isfinite(d)
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(d == 0, 0.0, np.abs(d) / (a.bounds + b.bounds))
    excess[~finite & (a.values.view(np.uint32) != b.values.view(np.uint32))] = np.inf
    columns = excess.shape[1]
    blocks = np.maximum.reduceat(excess, np.arange(0, columns, BLOCK), axis=1)
    worst = float(blocks.max())
    energy_a, energy_b, energy_d = (
        float(np.square(x[finite], dtype=np.float64).sum()) for x in (a.values, b.values, d)
    )
    cross = float((a.values[finite].astype(np.float64) * d[finite]).sum())
    slope = cross / energy_a if energy_a else 0.0
    # Rounding alone gives a slope of at most about -(relative error)^2, and what chance leaves of one error per block.
    chance = 4 * (energy_d / energy_a * 256 / d.size) ** 0.5 if energy_a else np.inf
    allowed = 2 * energy_d / energy_a + chance if energy_a else np.inf
    scaled = abs(slope) > allowed and worst > 0
    rel_rms = (energy_d / energy_b) ** 0.5 if energy_b else (0.0 if energy_d == 0 else float("inf"))
    affected = np.ones_like(blocks, dtype=bool) if scaled and worst <= LIMIT else blocks > LIMIT
    return WeightCheck(worst <= LIMIT and not scaled, worst, slope, affected, rel_rms)


def check_weights(a: Weight, b: Weight) -> WeightCheck:
    """Judge two stored tensors of one shape; equal bytes are told without dequantizing."""
    if a.type == b.type and np.array_equal(a.rows, b.rows):
        columns = a.shape[-1]
        nothing = np.zeros((len(a.rows), -(-columns // BLOCK)), dtype=bool)
        return WeightCheck(True, 0.0, 0.0, nothing, 0.0)
    share = max(1, _CHUNK // a.shape[-1])
    parts = [
        check(*(Stored.of(_rows(weight, start, start + share)) for weight in (a, b)))
        for start in range(0, len(a.rows), share)
    ]
    if len(parts) == 1:
        return parts[0]
    return WeightCheck(
        explained=all(part.explained for part in parts),
        worst=max(part.worst for part in parts),
        slope=max((part.slope for part in parts), key=abs),
        affected=np.concatenate([part.affected for part in parts]),
        rel_rms=max(part.rel_rms for part in parts),
    )


def _rows(weight: Weight, start: int, stop: int) -> Weight:
    rows = weight.rows[start:stop]
    shape = (len(rows), weight.shape[1]) if len(weight.shape) == 2 else weight.shape
    return Weight(weight.name, weight.type, shape, rows)
