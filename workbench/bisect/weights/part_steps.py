"""How far a value that is made of stored parts may be from its source: half a step between the levels of its code."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.packed.numbers import MANTISSA, Floats
from kernels.packed.packed import Packed, Taken

_FEW_LEVELS = 16  # of codes that are no integers, by which unequal steps may move a factor


class Steps(NamedTuple):
    """Values and half steps, float32 (rows, columns), and where codes are at the lower or upper end of their range."""

    values: Floats
    width: Floats
    lowest: NDArray[np.bool_]
    highest: NDArray[np.bool_]


def steps(packed: Packed, taken: Taken) -> Steps:
    """The steps of some rows, taken apart.

    Scales and offsets may have been rounded to their type after the codes were made, which costs their share of a
    value; so may the value itself, which is rounded to the type it is kept in.
    """
    values, factor = packed.made_of(taken), np.float32(1) if packed.factor is None else packed.factor
    below, above, gaps = _ends(packed.levels)
    scales = taken.scales * factor
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(values if taken.offsets is None else values - taken.offsets)
        width = np.abs(scales) * gaps[taken.codes] * np.float32(0.5)
        width += size * _share(packed.scales.type) + np.abs(values) * _share(packed.kept)
        if taken.offsets is not None and packed.offsets is not None:
            width += np.abs(taken.offsets) * (_share(packed.offsets.type) + _share(packed.kept))
    low, high = below[taken.codes], above[taken.codes]
    negative = scales < 0
    return Steps(values, width, np.where(negative, high, low), np.where(negative, low, high))


def _share(type: str) -> np.float32:
    """By which share of itself rounding to a type may move a number; scales of 8 bits are settled before the codes."""
    return np.float32(2.0 ** -(MANTISSA[type] + 1) if type in MANTISSA else 0)


def _ends(levels: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Floats]:
    """Of every code, whether it is the least one, the largest one, and the larger distance to a neighbour."""
    ordered = np.unique(levels[np.isfinite(levels)])
    apart = np.diff(ordered)
    larger = np.maximum(np.append(apart, 0), np.append(0, apart)).astype(np.float32)
    place = np.minimum(np.searchsorted(ordered, levels), len(ordered) - 1)
    return levels == ordered[0], levels == ordered[-1], larger[place]


def unequal(packed: Packed) -> tuple[float, ...]:
    """The levels, where they are few and their steps unequal."""
    ordered = np.unique(packed.levels)
    few = len(packed.levels) <= _FEW_LEVELS and not np.allclose(np.diff(ordered), ordered[1] - ordered[0])
    return tuple(ordered.tolist()) if few else ()
