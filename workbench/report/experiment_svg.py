"""A series of an experiment as a picture that needs nothing but itself."""

import math
from collections.abc import Iterator
from html import escape

from workbench.lab.experiment import Plot, Rows
from workbench.report.experiment_text import Record, name_of

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 400, 90, 60, 60, 80  # pixels
_INK, _PAPER, _LINE, _GRID = "#1a1a1a", "#ffffff", "#0b5cad", "#dddddd"


def experiment_svg(record: Record) -> str:
    """Draw the series: y against x with both axes named, the number and its verdict above, what it hides below."""
    plot = Plot(**record["plot"])
    value = "not known" if record["value"] is None else f"{record['value']:.5g}"
    published = "" if record["published"] is None else f", published {record['published']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="monospace" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="{_PAPER}"/>',
        _text(10, 20, f"{name_of(record)}: {record['question']}", weight="bold"),
        _text(10, 40, f"value {value}{published}, {record['verdict'] or 'no verdict'}"),
        *_drawn(record["series"], plot),
        _text(10, _HEIGHT - 34, plot.axes),
        _text(10, _HEIGHT - 14, f"hides: {record['hides']}", size=10),
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawn(series: Rows, plot: Plot) -> Iterator[str]:
    rows = plot.points(series)
    names = [x for x, _ in rows if isinstance(x, str)]
    xs = [float(n) if names else math.log10(x) if plot.log_x else float(x) for n, (x, _) in enumerate(rows)]
    axis = _Axis([(place, y) for place, (_, y) in zip(xs, rows, strict=True)], plot.log)
    below = axis.top + axis.height + 18
    for share in (0, 0.25, 0.5, 0.75, 1):
        y, x = axis.top + (1 - share) * axis.height, axis.left + share * axis.width
        yield f'<path d="M{axis.left:g} {y:.1f}H{axis.left + axis.width:g}" stroke="{_GRID}"/>'
        yield _text(axis.left - 8, y + 4, f"{axis.y_at(share):.3g}", anchor="end")
        if not names:
            value = axis.x_at(share)
            yield _text(x, below, f"{10**value if plot.log_x else value:.4g}", anchor="middle")
    if plot.joined(rows):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in axis.places)
        yield f'<polyline points="{line}" fill="none" stroke="{_LINE}" stroke-width="2"/>'
    for (x, y), (_, height) in zip(axis.places, rows, strict=True):
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{_LINE}"><title>{height:.6g}</title></circle>'
    for (x, _), label in zip(axis.places, names, strict=False):
        yield _text(x, below, label[:18], anchor="middle", size=9)


class _Axis:
    """Where values stand in the picture."""

    left, top = float(_LEFT), float(_TOP)
    width, height = float(_WIDTH - _LEFT - _RIGHT), float(_HEIGHT - _TOP - _BOTTOM)

    def __init__(self, points: list[tuple[float, float]], log: bool) -> None:
        """Find the ends of both axes. places : of the points, in pixels."""
        self._log = log
        xs, ys = [x for x, _ in points], [math.log10(y) if log else y for _, y in points]
        self._x0, self._x1 = min(xs, default=0.0), max(xs, default=0.0)
        self._y0, self._y1 = min(ys, default=0.0), max(ys, default=0.0)
        shares = [(_share(x, self._x0, self._x1), _share(y, self._y0, self._y1)) for x, y in zip(xs, ys, strict=True)]
        self.places = [(self.left + x * self.width, self.top + (1 - y) * self.height) for x, y in shares]

    def x_at(self, share: float) -> float:
        """The value at a share of the width."""
        return self._x0 + share * (self._x1 - self._x0)

    def y_at(self, share: float) -> float:
        """The value at a share of the height."""
        value = self._y0 + share * (self._y1 - self._y0)
        return float(10**value) if self._log else value


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _text(x: float, y: float, text: str, anchor: str = "", weight: str = "", size: int = 0) -> str:
    named = (("text-anchor", anchor), ("font-weight", weight), ("font-size", size or ""))
    more = "".join(f' {name}="{value}"' for name, value in named if value)
    return f'<text x="{x:g}" y="{y:g}" fill="{_INK}"{more} xml:space="preserve">{escape(text)}</text>'
