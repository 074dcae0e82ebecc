"""What is painted goes to the terminal only where that shows something else.

Textual writes whole lines of a widget, and all lines of a screen several times while it opens. A terminal may be at the
other end of a slow line.
"""

from collections.abc import Iterator
from typing import Any

from rich.cells import get_character_cell_size
from rich.console import Console, RenderableType
from rich.control import Control
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.app import App
from textual.screen import Screen
from textual.strip import Strip

_APART = 8  # columns between two changes that are written as one: to go there takes as many bytes

Cell = tuple[str, int]  # what stands in a column, and the number of its style


class Shown:
    """What the terminal shows, as far as that is known: a cell for each column of a line."""

    def __init__(self) -> None:
        self._lines: dict[int, list[Cell | None]] = {}
        self._styles: dict[Style | None, int] = {}  # to compare numbers, of which there are many

    def forget(self) -> None:
        """Know nothing, as the terminal may show anything."""
        self._lines.clear()
        self._styles.clear()

    def change(self, update: CompositorUpdate, console: Console) -> str:
        """Return what must be written so that the terminal shows an update."""
        return "".join(
            Control.move_to(x, y).segment.text + strip.render(console)
            for y, left, whole in _pieces(update)
            for x, strip in self._changed(y, left, whole, console)
        )

    def _changed(self, y: int, left: int, strip: Strip, console: Console) -> Iterator[tuple[int, Strip]]:
        """Parts of a strip that are not shown yet, with their columns."""
        cells = self._cells(strip, console)
        right = left + len(cells)
        line = self._lines.setdefault(y, [])
        line += [None] * (right - len(line))
        before = line[left:right]
        if before == cells:
            return
        line[left:right] = cells
        if before.count(None) == len(before) or not _one_each(strip.text):
            yield left, strip
            return
        spans: list[tuple[int, int]] = []
        for column in [column for column, (old, new) in enumerate(zip(before, cells, strict=True)) if old != new]:
            start = spans.pop()[0] if spans and column - spans[-1][1] < _APART else column
            spans.append((start, column + 1))
        for start, end in spans:
            yield left + start, strip.crop(start, end)

    def _cells(self, strip: Strip, console: Console) -> list[Cell | None]:
        """The columns of a strip; one with characters of other widths is of one piece."""
        if not _one_each(strip.text):
            return [(strip.render(console), column) for column in range(strip.cell_length)]
        cells: list[Cell | None] = []
        for text, style, _ in strip:
            number = self._styles.setdefault(style, len(self._styles))
            cells += [(character, number) for character in text]
        return cells


def _one_each(text: str) -> bool:
    """Whether every character takes one column."""
    return (text.isascii() and text.isprintable()) or all(get_character_cell_size(each) == 1 for each in text)


def _pieces(update: CompositorUpdate) -> Iterator[tuple[int, int, Strip]]:
    """Line, column and content of everything that an update paints."""
    if isinstance(update, LayoutUpdate):
        for y, line in enumerate(update.strips, update.region.y):
            x = update.region.x
            for strip in line:
                yield y, x, strip
                x += strip.cell_length
    if isinstance(update, ChopsUpdate):
        for y, first, last in update.spans:
            for end, (x, chop) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
                if chop is not None and x < last and end > first:
                    yield y, x, chop if end <= last else chop.crop(0, last - x)


class _Changes(CompositorUpdate):
    """An update of which only that is written which the terminal does not show."""

    def __init__(self, update: CompositorUpdate, shown: Shown) -> None:
        self._update, self._shown = update, shown

    def render_segments(self, console: Console) -> str:
        """Return what must be written."""
        return self._shown.change(self._update, console)


class PaintsChanges(App[int]):
    """Mix-in for an application that writes to the terminal what changes."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = Shown()

    def on_mount(self) -> None:
        """Paint everything after another program had the terminal."""
        self.app_resume_signal.subscribe(self, lambda _: self._shown.forget(), immediate=True)

    def on_resize(self) -> None:
        """Paint everything in a terminal of another size, which moves what it shows."""
        self._shown.forget()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if isinstance(renderable, LayoutUpdate | ChopsUpdate):
            changes: Any = _Changes(renderable, self._shown)  # which Textual renders as it does the update
            super()._display(screen, changes)
        else:
            super()._display(screen, renderable)
