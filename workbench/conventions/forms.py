"""Conventions that name, shape or sign of a tensor tell."""

import numpy as np

from store.conventions import FUSED, MINUS_EXP, SPLIT, SQUEEZED, STACKED, Said
from store.stored_model import FLOATS, StoredModel, TensorInfo, floats
from store.text import printable


def by_form(model: StoredModel, info: TensorInfo, said: Said) -> tuple[tuple[int, ...], str]:
    """What name, shape or sign of a tensor show of a convention."""
    if said.convention == MINUS_EXP:
        return _exponential(model, info)
    axes = "×".join(map(str, info.shape))
    if said.convention == SQUEEZED:
        return ((1,) if len(info.shape) <= 2 else (0,)), f"its shape is {axes}"
    if said.convention == STACKED:
        return ((1,) if len(info.shape) == 3 else (0,)), f"its shape is {axes}"
    if said.convention in (FUSED, SPLIT):
        return (1,), f"stored as {printable(info.raw_name, 80)}, {axes}"
    return (), "weights do not show it"


def _exponential(model: StoredModel, info: TensorInfo) -> tuple[tuple[int, ...], str]:
    """-exp is never above 0, and taken once more never below -1."""
    if info.unread is not None or info.type not in FLOATS:
        return (), info.unread or f"its type, {info.type.name}, is too coarse"
    values = floats(model.stored_rows(info.name), info.type)
    if not np.isfinite(values).all():
        return (), "not all of its values are numbers"
    low, high = float(values.min()), float(values.max())
    possible = (0,) if high >= 0 else (1,) if low < -1 else (1, 2)
    return possible, f"{values.size} values from {low:.3g} to {high:.3g}; -exp is below 0, taken twice above -1"
