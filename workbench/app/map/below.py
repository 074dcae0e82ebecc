"""What stands below the map where rows are left: curves through the cell under the cursor, and what was done."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual import work
from textual.message import Message
from textual.widgets import Static

from kernels.stages import SPINE
from workbench.app.map.bars import Scale, Series, axis_labels, bars, widened
from workbench.app.map.model import MapModel
from workbench.app.map.timeline import done
from workbench.app.map.trend import residual_trend, stage_trend, token_trend
from workbench.app.map.view import MapView
from workbench.cells.metrics import format_value
from workbench.session.files import LOG_FILE

LOOK = 0.5  # seconds between two looks whether the log has grown, or cells have arrived
_LABEL = 12  # columns in front of curves that do not stand under the cells that they are of
_HIGHEST, _RESIDUAL_ROWS = 8, 2  # rows of the curve of a stage and of the residual, at most
_DONE = 3  # entries of the log, at least
_GAP = 1

Lines = list[str]


@dataclass(frozen=True, slots=True)
class _Block:
    """A part of what is shown: a title, and lines. least, most : lines below the title; draw(n) returns n of them."""

    title: str
    least: int
    most: int
    draw: Callable[[int], Lines]


class Below(Static):
    """Shows as many blocks as fit, and each as high as there is room, the first ones first."""

    @dataclass(eq=False, repr=False)
    class LogRead(Message):
        """What was done was read from the log."""

        lines: Lines

    def __init__(self, model: MapModel, map_view: MapView, folder: Path) -> None:
        super().__init__(markup=False)
        self.model = model
        self._map = map_view
        self._folder = folder
        self._done: Lines = []
        self._log_state: tuple[int, int] | None = None
        self._late = False
        self._text = ""

    def on_mount(self) -> None:
        """Follow the log from here on."""
        self.set_interval(LOOK, self._look)

    def on_resize(self) -> None:
        """Fill the new size, when all of the new layout is there."""
        self.call_after_refresh(self.show)

    def later(self) -> None:
        """Show what has arrived with the next look."""
        self._late = True

    def _look(self) -> None:
        if not self.size.height:
            return
        try:
            status = (self._folder / LOG_FILE).stat()
        except OSError:
            status = None
        state = None if status is None else (status.st_size, status.st_mtime_ns)
        if state != self._log_state:
            self._log_state = state
            self._read()
        if self._late:
            self.show()

    @work(thread=True, exclusive=True, group="log", exit_on_error=False)
    def _read(self) -> None:
        self.post_message(self.LogRead(done(self._folder)))

    def on_below_log_read(self, message: LogRead) -> None:
        """Show what was done."""
        self._done = message.lines
        self.show()

    def show(self) -> None:
        """Show what there is to say about the cell under the cursor."""
        self._late = False
        width, height = self.size
        if not height or not self.model.layer_axis:
            return
        lines = _laid_out(list(self._blocks(width)), height)
        text = "\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines)
        if text != self._text:
            self._text = text
            self.update(Text(text), layout=False)

    def _blocks(self, width: int) -> Iterable[_Block]:
        model, site = self.model, self.model.cursor
        layers, label, column = self._columns(width)
        if site.layer is not None:
            yield _curve(stage_trend(model, site.stage, layers), layers, site.layer, label, column, _HIGHEST)
        residual = residual_trend(model, layers)
        if site.stage != SPINE[-1] or model.metric.key != "rel_rms":
            yield _line(residual, label, column, _RESIDUAL_ROWS)
        if self._done:
            yield _Block(
                "What was done (UTC)",
                min(_DONE, len(self._done)),
                len(self._done),
                lambda room: [f"  {x}" for x in self._done[-room:]],
            )
        cell = model.cell(site)
        if cell is not None and len(cell.positions) > 1:
            most = width - _LABEL - 1
            tokens = token_trend(model, cell, most)
            yield _line(tokens, _LABEL, 2 if len(tokens.values) * 2 <= most else 1, 1)

    def _columns(self, width: int) -> tuple[list[int], int, int]:
        """Layers of the curves, columns in front of them, and columns of each: those of the map where it has them."""
        axis, view = self.model.layer_axis, self._map
        if view.stage_rows and view.shared <= 1:
            shown = view.columns_in_view
            return axis[shown.start : shown.stop], view.gutter_width, view.cell_width
        room = width - _LABEL - 1
        start = 0
        if len(axis) > room:
            start = min(max(self._place() - room // 2, 0), len(axis) - room)
        shown_layers = axis[start : start + room]
        return shown_layers, _LABEL, min(max(room // len(shown_layers), 1), 3)

    def _place(self) -> int:
        axis, layer = self.model.layer_axis, self.model.cursor.layer
        return axis.index(layer) if layer in axis else 0


def _curve(series: Series, layers: list[int], current: int, label: int, column: int, most: int) -> _Block:
    """A curve of several rows with its axes."""

    def draw(room: int) -> Lines:
        scale, rows = Scale.of(series), room - 1
        labels = axis_labels(series, rows, scale, label)
        drawn = [widened(line, column) for line in bars(series, rows, scale)]
        return [f" {name}{line}" for name, line in zip(labels, drawn, strict=True)] + [
            " " * (label + 1) + _axis(layers, current, column)
        ]

    return _Block(series.title, 3, most + 1, draw)


def _line(series: Series, label: int, column: int, most: int) -> _Block:
    """A curve of few rows, and the largest figure in front of it."""

    def draw(room: int) -> Lines:
        known = [value for value in series.values if value is not None]
        largest = f"≤ {format_value(max(known))} ┤" if known else ""
        return [
            f" {largest if row == 0 else '':>{label}}{widened(line, column)}"
            for row, line in enumerate(bars(series, room))
        ]

    return _Block(series.title, 1, most, draw)


def _axis(layers: list[int], current: int, column: int) -> str:
    """Numbers of layers below a curve, as many as fit, and where the cursor is."""
    text = ""
    for place, layer in enumerate(layers):
        at = place * column + (column - 1) // 2
        if layer == current:
            text = f"{text[:at]:<{at}}▲"
        elif layer % 5 == 0 and len(text) <= at and not current - 2 <= layer < current:
            text = f"{text:<{at}}{layer}"
    return text


def _laid_out(blocks: list[_Block], height: int) -> Lines:
    """Set blocks below one another: first as many as fit at their least, then each higher, the first ones first."""
    kept: list[_Block] = []
    used = 0
    for block in blocks:
        needed = _GAP + 1 + block.least
        if used + needed <= height:
            kept.append(block)
            used += needed
    lines: Lines = []
    for block in kept:
        more = min(height - used, block.most - block.least)
        used += more
        lines += ["", f" {block.title}", *block.draw(block.least + more)]
    return lines
