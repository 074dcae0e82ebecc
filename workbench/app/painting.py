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

_UNKNOWN = -1

Columns = tuple[list[str], list[int]]  # what stands in each column of a line, and the number of its style


class Shown:
    """What the terminal shows, as far as that is known."""

    def __init__(self) -> None:
        self._lines: dict[int, Columns] = {}
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
        new = self._columns(strip, console)
        characters, numbers = self._lines.setdefault(y, ([], []))
        right = left + len(new[1])
        characters += [""] * (right - len(characters))
        numbers += [_UNKNOWN] * (right - len(numbers))
        old = characters[left:right], numbers[left:right]
        if old == new:
            return
        characters[left:right], numbers[left:right] = new
        if _UNKNOWN in old[1] or min(new[1]) < _UNKNOWN:
            yield left, strip
            return
        spans: list[tuple[int, int]] = []
        for column, (before, style_before, after, style_after) in enumerate(zip(*old, *new, strict=True)):
            if before != after or style_before != style_after:
                start = spans.pop()[0] if spans and column - spans[-1][1] < _APART else column
                spans.append((start, column + 1))
        for start, end in spans:
            yield left + start, strip.crop(start, end)

    def _columns(self, strip: Strip, console: Console) -> Columns:
        """The columns of a strip; one with characters of other widths is of one piece."""
        if not _one_each(strip.text):
            width = strip.cell_length
            return [strip.render(console)] * width, [_UNKNOWN - 1 - column for column in range(width)]
        characters: list[str] = []
        numbers: list[int] = []
        for text, style, _ in strip:
            characters += text
            numbers += [self._styles.setdefault(style, len(self._styles))] * len(text)
        return characters, numbers


def _one_each(text: str) -> bool:
    """Whether every character takes one column."""
    return (text.isascii() and text.isprintable()) or all(get_character_cell_size(each) == 1 for each in set(text))


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
