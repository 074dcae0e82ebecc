"""A series drawn with characters."""

import math
from typing import Any

from workbench.lab.experiment import Plot, Rows

_BAR, _NAME = 40, 24  # characters
_AXIS = 16  # characters that stand left of a plot
_MARGIN = 0.05  # of the height, above and below


def terminal_plot(rows: Rows, plot: Plot, width: int, height: int) -> list[str]:
    """Lines of a plot of y against x; bars where x is a text; nothing where there is nothing to draw."""
    points = plot.points(rows)
    if len(points) < 2:
        return ["(nothing to draw)"]
    drawn = _bars(points, plot.log) if isinstance(points[0][0], str) else _drawn(points, plot, width, height)
    return [plot.axes, *drawn]


def _drawn(points: list[tuple[Any, float]], plot: Plot, width: int, height: int) -> list[str]:
    import plotille

    xs = [math.log10(x) if plot.log_x else float(x) for x, _ in points]
    ys = [math.log10(y) if plot.log else y for _, y in points]
    figure = plotille.Figure()
    figure.width, figure.height = _tidy(xs, width - _AXIS), height
    figure.origin = figure.with_colors = False
    figure.set_x_limits(*_ends(xs, 0))
    figure.set_y_limits(*_ends(ys, _MARGIN))
    figure.y_ticks_fkt = lambda value, _: f"{_value(value, plot.log):>9.4g}"
    figure.x_ticks_fkt = lambda value, _: f"{_value(value, plot.log_x):.4g}"
    figure.x_label = figure.y_label = ""
    if plot.joined(points):
        figure.plot(xs, ys)
    else:
        figure.scatter(xs, ys)
    _, *lines = figure.show().splitlines()  # the first one names the axis
    return [line.removesuffix(" ()").replace("\u2800", " ").rstrip() for line in lines]


def _tidy(xs: list[float], width: int) -> int:
    """A width at which the numbers below the axis, one every ten characters, are whole if those of the series are."""
    span = max(xs) - min(xs)
    wholes = [n for n in range(width // 10, 3, -1) if span and all(x == int(x) for x in xs) and span % n == 0]
    return 10 * wholes[0] if wholes else width


def _value(place: Any, log: bool) -> float:  # noqa: ANN401
    return float(10**place if log else place)


def _ends(values: list[float], margin: float) -> tuple[float, float]:
    """From the least to the largest, a share of the way further on both sides; never nothing."""
    low, high = min(values), max(values)
    room = (high - low) * margin or max(abs(high) * _MARGIN, 1e-9) * (high == low)
    return low - room, high + room


def _bars(points: list[tuple[str, float]], log: bool) -> list[str]:
    """A bar for every text; on a logarithmic scale from a tenth of the least on."""
    values = [math.log10(y) for _, y in points] if log else [y for _, y in points]
    low = min(values) - 1 if log else min(0.0, *values)
    high = max(values)
    lines = []
    for (name, y), value in zip(points, values, strict=True):
        length = round(_BAR * (value - low) / (high - low)) if high > low else 0
        lines.append(f"{name[:_NAME]:<{_NAME}} {'█' * length} {y:.4g}")
    return lines
