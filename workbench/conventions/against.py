"""How much more often something was done to a tensor of one file than to that of another: by their values, exactly."""

import numpy as np
from numpy.typing import NDArray

from kernels.rows.dequantize import dequantize_rows
from kernels.weight import Weight
from store.conventions import PLUS_ONE
from store.stored_model import FLOATS, StoredModel
from workbench.conventions.plus_one import F32, GRIDS
from workbench.conventions.rotary_order import in_pairs

_ALIKE = 0.5  # relative RMS that copies of one tensor keep within, whatever they are quantized to
_ROWS = 4096  # that are looked at

Rows = NDArray[np.float32]


def values(weight: Weight, rows: NDArray[np.intp] | None = None) -> Rows:
    """Rows of a tensor in canonical order as floats; a vector is one row. rows : those that are wanted, all if None."""
    stored = weight.rows if rows is None else weight.rows[rows]
    return dequantize_rows(weight.type, np.ascontiguousarray(stored), weight.shape[-1])


def one_more(x: StoredModel, y: StoredModel, name: str) -> int | None:
    """How often more 1 was added to a norm weight of x, as both are read; None if they differ otherwise."""
    a, b = (model.weight(name) for model in (x, y))
    if a.shape != b.shape or not {x.info(name).type, y.info(name).type} <= set(FLOATS):
        return None
    off = np.zeros(())
    for model in (x, y):
        grid, stored = GRIDS[model.info(name).type.name], values(model.weight(name)).astype(np.float64)
        off = off + grid.distance(stored - model.adds_one(name)) + F32.distance(stored)
    difference = values(a).astype(np.float64) - values(b)
    times = round(float(np.median(difference))) if np.isfinite(difference).all() else 0
    return times if abs(times) <= 2 and bool((np.abs(difference - times) <= off).all()) else None


def pairs_more(x: StoredModel, y: StoredModel, name: str, head: int) -> int | None:
    """How often more the rows of q or k of x were put into rotary pairs, as both are read; None if neither fits."""
    a, b = (model.weight(name) for model in (x, y))
    if a.shape != b.shape:
        return None
    if len(a.shape) == 1:
        left, right = (values(side).reshape(-1, head, 1) for side in (a, b))
    else:
        rows = np.arange(min(a.shape[0], _ROWS // head * head))
        left, right = (values(side, rows).reshape(-1, head, a.shape[1]) for side in (a, b))
    size = float(np.linalg.norm(right))
    found = {times: float(np.linalg.norm(left - right[:, in_pairs(head, times)])) for times in (-1, 0, 1, 2)}
    best = min(found, key=lambda times: found[times])
    clear = all(found[times] > 2 * found[best] for times in found if times != best)
    return best if clear and found[best] <= _ALIKE * size else None


def more(x: StoredModel, y: StoredModel, convention: str, name: str, head: int | None) -> int | None:
    """How often more a convention was applied in x than in y, as both are read; None where that does not show."""
    if name not in y.tensors or any(model.info(name).unread is not None for model in (x, y)):
        return None
    with np.errstate(all="ignore"):
        if convention == PLUS_ONE:
            return one_more(x, y, name)
        return None if head is None else pairs_more(x, y, name, head)
