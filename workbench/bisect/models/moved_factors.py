"""Factors of channels that a quantizer has moved from a norm or a matrix into the matrices behind it (AWQ).

Columns that meet large activations are multiplied before they are rounded, and what makes these activations is divided
by as much: rows of the matrix before, or the norm. Nothing else is computed, so the source is compared with the same
factors moved. They are taken for moved only if that explains every matrix that meets them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.graph import Model
from kernels.packed.packed import Packed
from kernels.rows.dequantize import dequantize, dequantize_rows
from kernels.weight import TensorType, Weight
from workbench.bisect.weights.check import check
from workbench.bisect.weights.steps import Stored

Factors = NDArray[np.float64]
_ROWS = 64  # of a matrix that tell whether factors explain it
_LEAST = 0.01  # by which some factor differs from 1
# What factors are taken out of, and what they are put into.
_NORMS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
_MATRICES = {"mlp.up_proj": "mlp.down_proj", "self_attn.v_proj": "self_attn.o_proj"}


@dataclass(frozen=True)
class _Scaled:
    """Rows of float32 of a weight, times a factor for every row and every column."""

    weight: Weight
    rows: Factors
    columns: Factors

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], 4 * self.weight.shape[1]

    def __len__(self) -> int:
        return self.weight.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:  # noqa: ANN401
        numbers = np.atleast_1d(np.arange(len(self))[rows])
        stored = np.ascontiguousarray(self.weight.rows[numbers])
        values = dequantize_rows(self.weight.type, stored, self.weight.shape[1])
        found = (values * self.rows[numbers, None] * self.columns).astype(np.float32).view(np.uint8)
        return found.reshape(*np.shape(np.arange(len(self))[rows]), -1)


@dataclass
class MovedFactors:
    """A model with some tensors instead of its own."""

    model: Model
    instead: Mapping[str, Weight]
    config: ModelConfig = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.model.config

    def __contains__(self, name: str) -> bool:
        return name in self.model

    def weight(self, name: str) -> Weight:
        """The tensor with factors moved, or as it is."""
        return self.instead[name] if name in self.instead else self.model.weight(name)


def with_factors_moved(a: Model, b: Model) -> tuple[Model, Model, str | None]:
    """Both models, the source of a packed copy with factors moved as there; and a sentence if there are such."""
    for side, source, copy in (("A", a, b), ("B", b, a)):
        moved = [layer for n in range(source.config.num_hidden_layers) if (layer := _of_layer(n, source, copy))]
        if moved:
            model = MovedFactors(source, {name: weight for layer in moved for name, weight in layer.items()})
            words = (
                f"factors of channels are moved from norms and matrices into those behind them in {len(moved)} layers, "
                f"as AWQ does; they cancel, and {side} was compared with the same factors moved"
            )
            return (model, b, words) if side == "A" else (a, model, words)
    return a, b, None


def _of_layer(layer: int, source: Model, copy: Model) -> dict[str, Weight]:
    """The tensors of a layer that factors are moved between; nothing where there are none."""
    rows, columns, found = dict[str, Factors](), dict[str, Factors](), dict[str, Weight]()

    def name(module: str) -> str:
        return f"model.layers.{layer}.{module}.weight"

    def packed(module: str) -> bool:
        known = all(name(module) in model for model in (source, copy))
        return known and isinstance(copy.weight(name(module)).stored, Packed)

    for norm, modules in _NORMS.items():
        if all(map(packed, modules)) and (of_norm := _factors_of_norm(name(norm), source, copy)) is not None:
            found[name(norm)] = copy.weight(name(norm))
            columns |= dict.fromkeys(modules, 1 / of_norm)
    for module, behind in _MATRICES.items():
        if packed(module) and packed(behind):
            own, other = source.weight(name(module)), copy.weight(name(module))
            so_far = _times(own, None, columns.get(module))
            fits = own.shape == other.shape and other.shape[0] == copy.weight(name(behind)).shape[1]
            if not fits or _explained(so_far, other):
                continue
            by, bias = _factors_of_rows(so_far, other), f"model.layers.{layer}.{module}.bias"
            biased = bias in source and bias in copy
            by = _factors_of_bias(source.weight(bias), copy.weight(bias), by) if biased else by
            if by.min() > 0:
                rows[module], columns[behind] = by, 1 / by
                found |= {bias: copy.weight(bias)} if biased else {}
    for module in {**rows, **columns}:
        found[name(module)] = _times(source.weight(name(module)), rows.get(module), columns.get(module))
    return found if all(_explained(found[key], copy.weight(key)) for key in found) else {}


def _times(weight: Weight, rows: Factors | None, columns: Factors | None) -> Weight:
    """A matrix with its rows and columns multiplied."""
    of_rows, of_columns = (
        np.ones(size) if by is None else by for size, by in zip(weight.shape, (rows, columns), strict=True)
    )
    return Weight(weight.name, TensorType["F32"], weight.shape, _Scaled(weight, of_rows, of_columns))


def _factors_of_norm(name: str, source: Model, copy: Model) -> Factors | None:
    """What the norm of the copy is of the source's, channel by channel, where it is some other one."""
    if name not in source or name not in copy:
        return None
    own, other = (dequantize(model.weight(name)).astype(np.float64) for model in (source, copy))
    if own.shape != other.shape or not (own * other > 0).all():
        return None
    by = other / own
    return by if np.abs(by - 1).max() > _LEAST else None


def _factors_of_bias(source: Weight, copy: Weight, by: Factors) -> Factors:
    """The factors of rows as biases tell them, which are not rounded to few levels; those given where one is 0."""
    own, other = (dequantize(weight).astype(np.float64) for weight in (source, copy))
    return np.where(own * other > 0, other / np.where(own == 0, 1, own), by) if own.shape == other.shape else by


def _factors_of_rows(source: Weight, copy: Weight) -> Factors:
    """What every row of the copy is of the source's: the middle of what the steps of its values leave, or the slope."""
    found = []
    for start in range(0, source.shape[0], _ROWS):
        some = slice(start, start + _ROWS)
        own, other = Stored.of(source, some), Stored.of(copy, some)
        x, y, half = (each.astype(np.float64) for each in (own.values, other.values, other.width))
        with np.errstate(divide="ignore", invalid="ignore"):
            at, off = y / x, half / np.abs(x)
            slope = (x * y).sum(axis=1) / np.square(x).sum(axis=1)
        told = (x != 0) & ~(other.cut(1) | other.cut(-1))
        low, high = np.where(told, at - off, -np.inf).max(axis=1), np.where(told, at + off, np.inf).min(axis=1)
        by = np.where((low <= high) & np.isfinite(low + high), (low + high) / 2, slope)
        found.append(np.where(np.isfinite(by), by, 1))
    return np.concatenate(found)


def _explained(source: Weight, copy: Weight) -> bool:
    if source is copy or source.shape != copy.shape:
        return source.shape == copy.shape
    rows = np.unique(np.linspace(0, len(copy.rows) - 1, _ROWS).astype(np.int64))
    return check(Stored.of(source, rows), Stored.of(copy, rows)).explained
