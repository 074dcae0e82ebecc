"""A list of any length of which only the lines on screen are ever made; lines that are too long move sideways."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from store.text import printable
from workbench.app.pages.line_view import LineView

Line = Callable[[int], tuple[str, bool]]

CUT = "…"  # stands at an edge behind which a line goes on
_STEP = 8  # columns of a move sideways
_LONGEST = 1000  # characters of a line that are shown at all


def _no_line(index: int) -> tuple[str, bool]:  # noqa: ARG001
    return "", False


class LineList(LineView):
    """Lines under a fixed head, with a cursor. `line(index)` gives a line's text and whether it is to stand out."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"list--head", "list--plain", "list--marked"}

    @dataclass(eq=False, repr=False)
    class CursorMoved(Message):
        """The cursor stands on another line."""

        index: int

    @dataclass(eq=False, repr=False)
    class Chosen(Message):
        """A line was clicked once more, or enter pressed on it."""

        index: int

    def __init__(self, head: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.head = head
        self.count = 0
        self.cursor = 0
        self.left = 0  # columns that have moved out of view
        self._line: Line = _no_line

    def show(self, count: int, line: Line, cursor: int | None = None) -> None:
        """Show `count` lines; the cursor stays where it is unless told otherwise."""
        self.count, self._line = count, line
        self._move_sideways(0)
        self.virtual_size = Size(self.size.width, count + 1)
        self.go(self.cursor if cursor is None else cursor)
        self.refresh()

    def go(self, index: int) -> None:
        """Put the cursor on a line, the nearest if there is no such line, and bring it into view."""
        before, self.cursor = self.cursor, min(max(index, 0), max(self.count - 1, 0))
        page = max(self.size.height - 1, 1)
        top = round(self.scroll_y)
        if not top <= self.cursor < top + page:
            self.scroll_to(y=max(self.cursor - page // 2, 0), animate=False, force=True)
        for changed in {before, self.cursor}:
            self.refresh_line(1 + changed)
        if self.count:
            self.post_message(self.CursorMoved(self.cursor))

    def move(self, how: str) -> None:
        """Move the cursor: up, down, page_up, page_down, first, last; or all lines: left, right."""
        if how in ("left", "right"):
            self._move_sideways(_STEP if how == "right" else -_STEP)
            return
        page = max(self.size.height - 2, 1)
        steps = {"up": -1, "down": 1, "page_up": -page, "page_down": page, "first": -self.count, "last": self.count}
        self.go(self.cursor + steps[how])

    def _move_sideways(self, columns: int) -> None:
        """Move what is shown to the left or right, as far as the longest line on screen goes on."""
        page = range(round(self.scroll_y), min(round(self.scroll_y) + self.size.height - 1, self.count))
        longest = max(cell_len(text) for text in (self.head, *(self._text(index) for index in page)))
        self.left = max(min(self.left + columns, longest - self._room), 0)
        self.refresh()

    @property
    def _room(self) -> int:
        """Columns of a line that are in view, beside the mark of the cursor and the scroll bar."""
        return max(self.scrollable_content_region.width - 2, 1)

    def _text(self, index: int) -> str:
        return printable(self._line(index)[0], _LONGEST)

    def current(self) -> str:
        """Return the line under the cursor; empty where there is none."""
        return self._line(self.cursor)[0] if self.cursor < self.count else ""

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        self._move_sideways(0)
        self.virtual_size = Size(self.size.width, self.count + 1)
        self.go(self.cursor)

    def on_click(self, event: events.Click) -> None:
        """Move to the line clicked; choose it when the cursor is there already."""
        index = event.y - 1 + round(self.scroll_y)
        if event.y < 1 or index >= self.count:
            return
        if index == self.cursor:
            self.post_message(self.Chosen(index))
        self.go(index)

    def render_line(self, y: int) -> Strip:
        """Paint the head or one line."""
        width = self.size.width
        index = y - 1 + round(self.scroll_y)
        if y == 0:
            text, style, here = self.head, self.style("list--head"), False
        elif index < self.count:
            line, marked = self._line(index)
            text, here = printable(line, _LONGEST), index == self.cursor
            style = self.style("list--marked" if marked else "list--plain")
            style = style + Style(reverse=True, bold=True) if here and self.has_focus else style
        else:
            return Strip.blank(width, self.style())
        strip = Strip([Segment("▸ " if here else "  ", style), *self._in_view(text, style)])
        return strip.adjust_cell_length(width, style)

    def _in_view(self, text: str, style: Style) -> Strip:
        """The part of a line that is in view, with a mark at an edge behind which it goes on."""
        end, whole = self.left + self._room, Strip([Segment(text, style)])
        cut_left, cut_right = bool(self.left and text[: self.left].strip()), whole.cell_length > end
        shown = whole.crop(self.left + cut_left, end - cut_right)
        marks = (Strip([Segment(CUT, style)] if cut else []) for cut in (cut_left, cut_right))
        return Strip.join([next(marks), shown, next(marks)])
