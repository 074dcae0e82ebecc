"""Bars of block characters on a logarithmic scale; what was not measured is a gap, and nothing at all is "="."""

import math
from typing import NamedTuple

from workbench.cells.metrics import format_value

BLOCKS = "▁▂▃▄▅▆▇█"
GAP, NOTHING, LIMIT_LINE = " ", "=", "─"
_DECADES = 12.0  # that a scale covers at most


class Series(NamedTuple):
    """Figures that are drawn beside one another.

    values : None where nothing was measured; not negative; NaN and infinity are the highest. limit : what they should
    stay within, if there is such a figure.
    """

    title: str
    values: tuple[float | None, ...]
    limit: float | None = None


class Scale(NamedTuple):
    """From the lowest figure to the highest, both above 0."""

    low: float
    high: float

    @classmethod
    def of(cls, series: Series) -> "Scale":
        """Cover all figures and the limit, at least a factor of 10 and no more than a dozen powers of it."""
        known = [value for value in series.values if value is not None and math.isfinite(value) and value > 0]
        known += [] if series.limit is None else [series.limit]
        high = max(known, default=1.0)
        return cls(max(min([*known, high / 10]), high * 10**-_DECADES), high)

    def eighths(self, value: float | None, rows: int) -> int:
        """Height of a figure in eighths of a row; 0 for none and for nothing."""
        if value is None or value == 0:
            return 0
        if not math.isfinite(value):
            return rows * 8
        share = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        return 1 + round(min(share, 1.0) * (rows * 8 - 1))


def bars(series: Series, rows: int, scale: Scale | None = None) -> list[str]:
    """Draw every figure as a column of `rows` lines, the highest first; the limit is a line behind them."""
    scale = scale or Scale.of(series)
    heights = [scale.eighths(value, rows) for value in series.values]
    at = None if series.limit is None or rows < 2 else _row_of(scale.eighths(series.limit, rows), rows)
    return [
        "".join(
            _part(height - 8 * (rows - 1 - row), value, row == rows - 1, row == at)
            for height, value in zip(heights, series.values, strict=True)
        )
        for row in range(rows)
    ]


def _part(eighths: int, value: float | None, lowest: bool, limit: bool) -> str:
    """What stands in one line of a column."""
    if eighths > 0:
        return BLOCKS[min(eighths, 8) - 1]
    if lowest and value == 0:
        return NOTHING
    return LIMIT_LINE if limit else GAP


def axis_labels(series: Series, rows: int, scale: Scale, width: int) -> list[str]:
    """What stands in front of the lines of `bars`: the highest figure, the limit and the lowest."""
    labels = [""] * rows
    labels[-1] = format_value(scale.low)
    if series.limit is not None and rows > 1:
        labels[_row_of(scale.eighths(series.limit, rows), rows)] = f"limit {series.limit:.3g}"
    labels[0] = labels[0] if labels[0].startswith("limit") else format_value(scale.high)
    return [f"{label:>{width - 2}}{' ┤' if label else '  '}" for label in labels]


def _row_of(eighths: int, rows: int) -> int:
    return rows - 1 - (eighths - 1) // 8


def widened(line: str, width: int) -> str:
    """Draw every character in `width` columns, of more than two the last free, unless the line of the limit goes on."""
    bar = width if width < 3 else width - 1
    between = (LIMIT_LINE if LIMIT_LINE in line else " ") * (width - bar)
    return "".join(character * bar + between for character in line)
