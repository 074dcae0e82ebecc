"""Where in a cell its local error sits: per token, channel and head, and per super-block of the weight.

A single wrong channel or block drowns in the figures of a whole cell, which stay at a cosine of 0.9998. Beside its
neighbours it stands out, so every part is told in multiples of the median part.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.forward import At
from kernels.paths import Array
from kernels.rows.dequantize import dequantize_rows
from kernels.stages import Site
from kernels.weight import Weight
from workbench.bisect.models.floor import MATMUL_INPUT, rounding_of
from workbench.bisect.models.substitution import Factors
from workbench.cells.stage_tensors import channel_head, stage_tensors

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


def local_breakdown(
    site: Site, a: Factors, b: Factors, tokens: tuple[int, ...], inputs: Mapping[str, Array]
) -> Breakdown:
    """Break down what a stage of B adds to the difference, both sides evaluated on A's inputs (by stage name)."""
    y_a, y_b = (factors.run(site.stage, site.layer, tokens, inputs) for factors in (a, b))
    right, found = (inputs["qkv_matmul"] if y is None else y for y in (y_a, y_b))  # a side without biases
    error = found.astype(np.float64) - right
    blocks = _blocks(site, a, b, tokens, inputs) if site.stage in MATMUL_INPUT else None
    return break_down(site, error, a.config, blocks)


def break_down(site: Site, error: Values, config: ModelConfig, blocks: Values | None = None) -> Breakdown:
    """The breakdown of a known local error, float64 (tokens, channels)."""
    channels = range(0, error.shape[1], config.head_dim)
    heads = tuple(channel_head(site.stage, channel, config).partition(".")[0] for channel in channels)
    return Breakdown(site, error, heads if all(heads) else (), blocks)


def _blocks(site: Site, a: Factors, b: Factors, tokens: tuple[int, ...], inputs: Mapping[str, Array]) -> Values:
    x = np.ascontiguousarray(inputs[MATMUL_INPUT[site.stage]], dtype=np.float32)
    parts = []
    for name in stage_tensors(site):
        sides = []
        for factors in (a, b):
            weight = factors.weights.weight(name)
            lost = rounding_of(At(factors.weights, factors.path, tokens, site.layer), weight, x)
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
