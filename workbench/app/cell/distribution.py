"""Pictures of many numbers in a line or a grid of characters."""

import math

import numpy as np
from numpy.typing import NDArray

from workbench.cells.elements import bounds, histogram
from workbench.cells.heat import IDENTICAL, LEVELS, OUTSIDE
from workbench.cells.metrics import format_value

_BLOCKS = " ▁▂▃▄▅▆▇█"


def bars(counts: NDArray[np.int64]) -> str:
    """Counts as block characters on a logarithmic scale; a single one is still seen, none is blank."""
    top = math.log1p(int(counts.max(initial=1)))
    heights = np.ceil(np.log1p(counts) / top * (len(_BLOCKS) - 1) - 1e-9).astype(int)
    return "".join(_BLOCKS[height] for height in heights)


def histogram_line(name: str, values: NDArray[np.floating], limits: tuple[float, float], width: int) -> str:
    """Return a histogram between two limits, `width` columns in all."""
    low, high = (format_value(limit) for limit in limits)
    bins = max(width - 24, 8)
    if not np.isfinite(values).any():
        middle = "no finite value"
    elif limits[0] == limits[1]:
        middle = "all the same"
    else:
        middle = bars(histogram(values, *limits, bins))
    return f"{name} {low:>9} {middle:<{bins}} {high:<9}"


def histograms(a: NDArray[np.float32], b: NDArray[np.float32], width: int) -> list[str]:
    """Histograms of A and B on one scale, and of their differences."""
    with np.errstate(invalid="ignore", over="ignore"):
        d = a.astype(np.float64) - b
    common = bounds(a, b)
    return [
        histogram_line("A  ", a, common, width),
        histogram_line("B  ", b, common, width),
        histogram_line("A-B", d, bounds(d), width),
    ]


def strip_levels(grid: NDArray[np.float64]) -> list[list[tuple[str, int | None]]]:
    """Glyph and heat level of every part of Elements.strip: 7 at the largest |d|, half of it at 6, and so on."""
    finite = grid[np.isfinite(grid)]
    top = float(finite.max()) if finite.size else 0.0

    def place(value: float) -> tuple[str, int | None]:
        if value == 0:
            return IDENTICAL[0], 0
        if not math.isfinite(value):
            return OUTSIDE, None
        level = max(LEVELS - 1 + math.floor(math.log2(value / top)), 0)
        return str(level), level

    return [[place(float(value)) for value in row] for row in grid]
