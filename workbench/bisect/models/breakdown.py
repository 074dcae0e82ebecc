"""Where in a cell its local error sits: per token, channel and head, and per super-block of the weight.

A single wrong channel or block drowns in the figures of a whole cell, which stay at a cosine of 0.9998. Beside its
neighbours it stands out, so every part is told in multiples of the median part.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Stage
from kernels.kinds.product import Product
from kernels.rows.dequantize import dequantize_rows
from kernels.stages import Site
from kernels.weight import Weight
from workbench.bisect.models.cell import Cell

SUPER_BLOCK = 256  # elements of a weight's input dimension
_ROWS = 256  # rows of a weight that stand dequantized in memory at once

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Breakdown:
    """The local error of one cell, in the units of the stage.

    error : f_B(x_A) - f_A(x_A), float64 (tokens, channels).
    heads : names ("q3", "k0" or "3") of equal runs of channels; empty where the channels are no heads.
    blocks : (channels, super-blocks), root mean square over the tokens of what each super-block of the weight adds to
        the error; None for a stage that is no product with a weight, or whose other side is a recorded trace.
    """

    site: Site
    error: Values
    heads: tuple[str, ...] = ()
    blocks: Values | None = None

    def per_channel(self) -> Values:
        """Root mean square of the error over the tokens, (channels,)."""
        return _rms(self.error, 0)

    def per_token(self) -> Values:
        """Root mean square of the error over the channels, (tokens,)."""
        return _rms(self.error, 1)

    def per_head(self) -> Values:
        """Root mean square of the error over tokens and channels of each of `heads`, (heads,)."""
        if not self.heads:
            return np.zeros(0)
        return _rms(self.error.reshape(len(self.error), len(self.heads), -1), (0, 2))


def times_median(parts: Values) -> Values:
    """Every part in multiples of the median part; infinite for a part that errs where half of them do not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        multiples = parts / np.median(parts)
    multiples[parts == 0] = 0.0
    return multiples


def local_breakdown(cell: Cell) -> Breakdown:
    """Break down what a stage of B adds to the difference, both sides evaluated on A's inputs."""
    error = cell.run(cell.b).astype(np.float64) - cell.run(cell.a)
    return break_down(cell.stage, error, _blocks(cell) if isinstance(cell.stage.kind, Product) else None)


def break_down(stage: Stage, error: Values, blocks: Values | None = None) -> Breakdown:
    """The breakdown of a known local error, float64 (tokens, channels)."""
    names: tuple[str, ...] = ()
    if stage.heads is not None:
        size, parts = stage.heads
        names = tuple(f"{name}{number}" for name, channels in parts for number in range(channels // size))
    return Breakdown(stage.site, error, names, blocks)


def _blocks(cell: Cell) -> Values:
    x = np.ascontiguousarray(cell.inputs_a["x"], dtype=np.float32)
    parts = []
    for name in cell.stage.weights:
        sides = []
        for factors in (cell.a, cell.b):
            weight = factors.weights.weight(name)
            lost = factors.path.lost(x, weight)
            sides.append((weight, x.astype(np.float64) if lost is None else x - lost))
        parts.append(_block_errors(*sides))
    return np.concatenate(parts)


def _block_errors(a: tuple[Weight, Values], b: tuple[Weight, Values]) -> Values:
    """RMS over tokens of the difference of partial products, (rows, super-blocks), from weights and inputs as used."""
    rows, columns = a[0].shape
    starts = range(0, columns, SUPER_BLOCK)
    errors = np.empty((rows, len(starts)))
    for first in range(0, rows, _ROWS):
        here = slice(first, first + _ROWS)
        w_a, w_b = (dequantize_rows(w.type, np.ascontiguousarray(w.rows[here]), columns) for w, _ in (a, b))
        for n, start in enumerate(starts):
            block = slice(start, start + SUPER_BLOCK)
            errors[here, n] = _rms(b[1][:, block] @ w_b[:, block].T - a[1][:, block] @ w_a[:, block].T, 0)
    return errors


def _rms(values: Values, axis: int | tuple[int, ...]) -> Values:
    result: Values = np.sqrt(np.square(values).mean(axis=axis))
    return result
