"""What an experiment found: its series drawn, and below it the number and what it hides."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual_plot import HiResMode, NumericAxisFormatter, PlotWidget
from textual_plot.axis_formatter import CategoricalAxisFormatter

from workbench.app.actions import bindings
from workbench.app.key_line import KeyLine
from workbench.app.pages.lab_page import LabPage
from workbench.app.pages.line_list import LineList
from workbench.app.status_line import StatusLine
from workbench.lab.experiment import Plot
from workbench.report.experiment_text import cell_of, found_lines, hidden_lines, name_of, table_lines

_MARGIN = 14  # columns of a plot beside its points


class _Powers(NumericAxisFormatter):
    """Labels of a logarithmic axis, whose places are powers of ten."""

    def get_labels_for_ticks(self, ticks: Sequence[float]) -> list[str]:
        """The numbers whose logarithms the ticks are."""
        return [f"{10**tick:.3g}" for tick in ticks]


class ExperimentScreen(LabPage):
    """Shows a record when it comes."""

    NAME = "experiment"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    def __init__(self, title: str) -> None:
        super().__init__()
        self.TITLE_WORDS = f"lab {title}"
        self._record: dict[str, Any] | None = None
        self._lines: list[str] = []

    def compose(self) -> ComposeResult:
        """Lay out words, the plot, the lines and the keys."""
        yield StatusLine(id="status")
        plot = PlotWidget(id="plot", allow_pan_and_zoom=False)
        plot.can_focus = False
        yield plot
        yield LineList("", id="list")
        yield KeyLine()

    def on_mount(self) -> None:
        """Wait for the record."""
        self.query_one(PlotWidget).display = False
        self.doing("starting")

    def on_resize(self) -> None:
        """Wrap to the new width, and fit the names under the plot to it."""
        self._show()

    def describe(self, text: object) -> None:
        """Lines say all that there is."""

    def take(self, record: dict[str, Any]) -> None:
        """Show a result."""
        self._record = record
        self.say(f"lab {name_of(record)} │ {cell_of(record)} │ {record['verdict'] or 'no verdict'}")
        self._show()

    def _show(self) -> None:
        if self._record is None:
            return
        record, widget = self._record, self.query_one(PlotWidget)
        plot = Plot(**record["plot"])
        points = plot.points(record["series"])
        widget.display = len(points) > 1
        if widget.display:
            _draw(widget, plot, points, self.size.width)
        width = max(self.size.width - 4, 40)
        parts = (found_lines(record, width), hidden_lines(record, width), table_lines(record["series"], width))
        self._lines = [line for part in parts for line in (*part, "")][:-1]
        self.list.show(len(self._lines), lambda index: (self._lines[index], index == 0))


def _draw(widget: PlotWidget, plot: Plot, points: list[tuple[Any, float]], width: int) -> None:
    widget.clear()
    widget.margin_top = 1  # not before its own parts are there
    names = [x for x, _ in points if isinstance(x, str)]
    xs = [float(n) if names else _place(x, plot.log_x) for n, (x, _) in enumerate(points, 1)]  # names count from 1
    ys = [_place(y, plot.log) for _, y in points]
    room = (width - _MARGIN) // max(len(names), 1) - 1
    names = [name if len(name) <= room else f"{name[: room - 1]}…" if room > 3 else "" for name in names]
    widget.set_x_formatter(CategoricalAxisFormatter(names) if names else _formatter(plot.log_x))
    if names:  # else the first and the last stand on the frame
        widget.set_xlimits(0.5, len(names) + 0.5)
    if min(ys) == max(ys):  # else the axis is a millionth high, and its labels are all the same
        widget.set_ylimits(ys[0] - 1, ys[0] + 1)
    widget.set_y_formatter(_formatter(plot.log))
    if names:
        widget.scatter(xs, ys, marker="●")
    elif plot.joined(points):
        widget.plot(xs, ys, hires_mode=HiResMode.BRAILLE)
    else:
        widget.scatter(xs, ys, hires_mode=HiResMode.BRAILLE)
    widget.set_xlabel(plot.axes)


def _formatter(log: bool) -> NumericAxisFormatter:
    return _Powers() if log else NumericAxisFormatter()


def _place(value: float, log: bool) -> float:
    return math.log10(value) if log else float(value)
