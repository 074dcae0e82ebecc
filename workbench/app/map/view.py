"""The map: cells on heat colours in a grid of stages and layers that scrolls by half a page.

A cell is a digit, or where there is room its figure, with a sign behind it. What does not fit is said at the edges.
"""

from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip

from kernels.stages import SPINE, Site
from workbench.app.map.cell_text import FIGURES, RATIOS, WIDEST, cell_text, with_cursor
from workbench.app.map.colours import heat_of, heat_styles
from workbench.app.map.edges import Beyond, foot_words
from workbench.app.map.folding import span_words
from workbench.app.map.model import MapModel
from workbench.app.map.small import STAND_OUT, glyph_of, with_brackets, worst
from workbench.app.map.small import head as small_head
from workbench.app.pages.line_view import LineView
from workbench.cells.heat import OUTSIDE, Look
from workbench.cells.marks import SIGNS
from workbench.cells.view import OBSERVED

_SHORT = {"norm": "nrm", "matmul": "mm", "head": "hd"}  # words whose first three letters are not what one expects
_CURSOR = Style(bold=True, reverse=True)
_CULPRIT = SIGNS["culprit"]
STAGE_LABEL = max(map(len, SPINE)) + 2
LAYER_LABEL, RUN_LABEL = 5, 8  # of one layer, and of several that look alike


def _head(stage: str) -> tuple[str, str]:
    """Column head of a stage where layers are the rows: two lines of three characters, its first word and its last."""
    words = [word for word in stage.split("_") if word != "post"]
    first, last = (_SHORT.get(word, word[:3]) for word in (words[0], words[-1]))
    return first, last if len(words) > 1 else ""


def width_of(stage_rows: bool, model: MapModel) -> int:
    """Columns that the whole map takes at least."""
    if stage_rows:
        return STAGE_LABEL + 1 + len(model.layer_axis) * 2
    return (RUN_LABEL if model.folded else LAYER_LABEL) + 1 + len(model.stage_axis) * 4


def height_of(stage_rows: bool, model: MapModel) -> int:
    """Lines that the whole map takes."""
    return 1 + len(model.stage_axis) if stage_rows else 2 + len(model.layer_axis)


class MapView(LineView):
    """Draws a MapModel. stage_rows: stages are the rows, layers the columns; else the other way round.

    shared : by how many layers a column of one character is; 0 where every cell has room for a digit and a sign.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"map--label", "map--current", "map--plain", "map--outside"}

    @dataclass(eq=False, repr=False)
    class CursorMoved(Message):
        """The cursor stands on another cell."""

        site: Site

    @dataclass(eq=False, repr=False)
    class Opened(Message):
        """The cell under the cursor was clicked once more."""

        site: Site

    def __init__(self, model: MapModel, id: str | None = None) -> None:
        super().__init__(id=id)
        self.model = model
        self.stage_rows = True
        self.shared = 0
        self.cell_width = 2
        self._figures = False
        self._heat = heat_styles(dark=True)

    def notify_style_update(self) -> None:
        """Take the colours that stand out on the theme, as many as the terminal has."""
        super().notify_style_update()
        self._heat = heat_of(self.app)

    # Shape

    def lay_out(self, stage_rows: bool, shared: int = 0) -> None:
        """Lay the map out for its present size and axes, and bring the cursor into view."""
        self.stage_rows, self.shared = stage_rows, shared
        room = self.size.width - self.gutter_width - 1
        columns = max(self._columns, 1)
        narrow = 4 if not stage_rows else 3 if columns * 3 <= room else 2
        figures = min((room - 1) // columns, WIDEST)  # and a column for the bracket behind the last cell
        self._figures = figures >= self._least_for_figures()
        wide = self._figures or (self.model.folded and figures >= FIGURES)  # runs of layers have long names
        self.cell_width = 1 if shared else figures if wide else narrow
        # With what is left over beside the last cell, so that the last page begins with a whole cell as well.
        cells = 0 if shared else self._columns * self.cell_width + room % self.cell_width
        self.virtual_size = Size(self.gutter_width + 1 + cells, self.whole_height + self._foot)
        self.show_cursor()
        self.refresh()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        """Lines that it takes where there is room for more: with one to say what is beyond its sides."""
        sideways = not self.shared and self._columns * self.cell_width > width - self.gutter_width - 1
        return self.whole_height + int(sideways)

    def on_resize(self) -> None:
        """Fill the new size."""
        self.lay_out(self.stage_rows, self.shared)

    @property
    def gutter_width(self) -> int:
        """Columns in front of the cells and of the one column between."""
        return STAGE_LABEL if self.stage_rows else RUN_LABEL if self.model.folded else LAYER_LABEL

    @property
    def _head(self) -> int:
        return 1 if self.stage_rows else 2

    @property
    def _rows(self) -> int:
        return len(self.model.stage_axis if self.stage_rows else self.model.layer_axis)

    @property
    def _columns(self) -> int:
        return len(self.model.layer_axis if self.stage_rows else self.model.stage_axis)

    def look(self, site: Site) -> Look | None:
        """How a cell looks here; None if it has not arrived."""
        return self.model.look(site)

    @property
    def aspect(self) -> str:
        """What is shown, a key of ASPECTS."""
        return self.model.view.aspect

    def _least_for_figures(self) -> int:
        """Columns from which figures say more than digits: of ratios, that are all near 1, it takes more of them."""
        ratios = self.aspect == OBSERVED and self.model.metric.perfect != 0
        return RATIOS if ratios else FIGURES

    @property
    def whole_height(self) -> int:
        """Lines that the whole map takes."""
        return height_of(self.stage_rows, self.model)

    @property
    def _cells_in_view(self) -> int:
        """Whole cells that fit beside one another."""
        if self.shared:
            return self._columns
        return max((self.size.width - self.gutter_width - 1) // self.cell_width, 1)

    @property
    def columns_in_view(self) -> range:
        """Columns that are shown, whole ones only."""
        first = round(self.scroll_x) // self.cell_width
        return range(first, min(first + self._cells_in_view, self._columns))

    @property
    def _foot(self) -> int:
        """Lines below the cells that say what is beyond the edges: one, where something is."""
        return int(self.size.height < self.whole_height or self._cells_in_view < self._columns)

    @property
    def _rows_in_view(self) -> int:
        return max(self.size.height - self._head - self._foot, 1)

    def _beyond(self) -> tuple[Beyond, Beyond]:
        """Rows and columns that are not shown."""
        first = round(self.scroll_x) // self.cell_width
        rows = Beyond.of(round(self.scroll_y), self._rows_in_view, self._rows)
        return rows, Beyond.of(first, self._cells_in_view, self._columns)

    def _site(self, row: int, column: int) -> Site | None:
        return self.model.site(row, column) if self.stage_rows else self.model.site(column, row)

    def _sites(self, row: int, place: int) -> list[Site]:
        """Sites that stand in one column of cells: several where layers share it."""
        each = self.shared or 1
        columns = range(place * each, min((place + 1) * each, self._columns))
        return [site for column in columns if (site := self._site(row, column)) is not None]

    def _glyph(self, site: Site) -> str:
        return glyph_of(self.look(site), self.model.sign(site))

    def _worst(self, sites: list[Site]) -> Site | None:
        """The site that is shown of several."""
        return sites[worst([self._glyph(site) for site in sites])] if sites else None

    def _cursor_place(self) -> tuple[int, int]:
        """Row and column of the cursor."""
        stage, layer = self.model.place(self.model.cursor)
        return (stage, layer) if self.stage_rows else (layer, stage)

    # Moving

    def move(self, rows: int, columns: int) -> None:
        """Move the cursor by rows and columns, stopping at the ends."""
        before = self._cursor_place()
        self.model.move(*((rows, columns) if self.stage_rows else (columns, rows)))
        self._moved(before)

    def go(self, site: Site) -> None:
        """Put the cursor on a site."""
        before = self._cursor_place()
        self.model.put_cursor(site)
        self._moved(before)

    def _moved(self, before: tuple[int, int]) -> None:
        """Paint what a move from a place has changed: two rows, or a row and the heads."""
        row, column = self._cursor_place()
        if not self.show_cursor():
            for changed in {before[0], row}:
                self.refresh_line(self._head + changed)
            if column != before[1]:
                self.refresh(Region(0, 0, self.size.width, self._head))
        self.post_message(self.CursorMoved(self.model.cursor))

    def follow(self) -> None:
        """Show where the cursor is, wherever it was moved."""
        self.show_cursor()
        self.refresh()

    def show_cursor(self) -> bool:
        """Scroll by half a page where the cursor is out of view; return whether that was needed."""
        row, column = self._cursor_place()
        shown = self._cells_in_view
        top = self._start(row, round(self.scroll_y), self._rows_in_view, self._rows)
        first = self._start(column, round(self.scroll_x) // self.cell_width, shown, self._columns)
        target = (first * self.cell_width, top)
        if target == (round(self.scroll_x), round(self.scroll_y)):
            return False
        self.scroll_to(*target, animate=False, force=True)
        return True

    @staticmethod
    def _start(cursor: int, start: int, shown: int, count: int) -> int:
        if not start <= cursor < start + shown:
            start = cursor - shown // 2
        return min(max(start, 0), max(count - shown, 0))

    def on_click(self, event: events.Click) -> None:
        """Move to the cell clicked; open it when the cursor is there already."""
        row = event.y - self._head + round(self.scroll_y)
        place = (event.x - self.gutter_width - 1 + round(self.scroll_x)) // self.cell_width
        if event.y < self._head or event.x <= self.gutter_width or row >= self._rows:
            return
        sites = self._sites(row, place)
        site = self.model.cursor if self.model.cursor in sites else self._worst(sites)
        if site == self.model.cursor:
            self.post_message(self.Opened(site))
        elif site is not None:
            self.go(site)

    # Painting

    def render_line(self, y: int) -> Strip:
        """Paint one line: heads stay above, labels stay on the left, cells scroll between."""
        width = self.size.width
        row = y - self._head + round(self.scroll_y)
        if y < self._head:
            label, cells = self._corner(), self._head_cells(y)
        elif self._foot and y == self.size.height - 1:
            return self._foot_line()
        elif row < self._rows:
            label, cells = self._label(row), self._row_cells(row)
        else:
            return Strip.blank(width, self.style())
        return Strip.join([label, Strip(cells).simplify()]).adjust_cell_length(width, self.style())

    def _corner(self) -> Strip:
        text = "layer" if self.stage_rows else ""
        if self.shared > 1:
            text = f"layer ({self.shared} a column)"
        return Strip([Segment(f" {text:<{self.gutter_width - 1}}", self.style("map--label"))])

    def _foot_line(self) -> Strip:
        stage_layer = ("stage", "layer") if self.stage_rows else ("layer", "stage")
        text = f" {foot_words(*self._beyond(), *stage_layer)}"
        return Strip([Segment(text, self.style("map--current"))]).adjust_cell_length(self.size.width, self.style())

    def _label(self, row: int) -> Strip:
        model, room = self.model, self.gutter_width - 2
        name = model.stage_axis[row] if self.stage_rows else span_words(model.span(model.layer_axis[row]), room)
        current = row == self._cursor_place()[0]
        text = (
            f"{'▸' if current else ' '}{name:<{self.gutter_width - 1}}"
            if self.stage_rows
            else f"{'▸' if current else ' '}{name:>{room}} "
        )
        return Strip([Segment(text, self.style("map--current" if current else "map--label"))])

    def _head_cells(self, y: int) -> list[Segment]:
        plain, current = self.style("map--label"), self.style("map--current")
        here = self._cursor_place()[1]
        if self.shared and self.model.layer_axis:
            room = self.size.width - self.gutter_width - 1
            before, number, behind = small_head(self.model.layer_axis, self.shared, here, room)
            return [Segment(f" {before}", plain), Segment(number, current), Segment(behind, plain)]
        width = self.cell_width
        segments = [Segment(" ", plain)]
        for column in self.columns_in_view:
            if self.stage_rows:
                layer = self.model.layer_axis[column]
                crowded = width == 2 and layer > 9 and layer % 2 and column != here
                text = "" if crowded else span_words(self.model.span(layer), width - 1)
                text = f"{text:>2}" if width == 3 or layer > 9 else text
            else:
                text = _head(self.model.stage_axis[column])[y]
            text = f"{text:>{width - 1}}" if width >= FIGURES else text
            segments.append(Segment(f"{text:<{width}}"[:width], current if column == here else plain))
        return segments

    def _row_cells(self, row: int) -> list[Segment]:
        if self.shared:
            return self._small_cells(row)
        plain = self.style("map--plain")
        cursor = self._cursor_place()
        segments = [Segment(" ", plain)]
        closing = False
        for column in self.columns_in_view:
            site = self._site(row, column)
            text, style = (" " * self.cell_width, plain) if site is None else self._cell(site)
            if (row, column) == cursor:
                if (
                    self.cell_width == 2
                ):  # the bracket takes the place of the sign of the cell before, whose digit tells
                    before = segments.pop()
                    segments += [Segment(before.text[:-1], before.style)] if len(before.text) > 1 else []
                text, style = with_cursor(text), style + _CURSOR
            elif closing:
                segments.append(Segment("]", plain + _CURSOR))
                text = text[1:]
            segments.append(Segment(text, style))
            closing = (row, column) == cursor and self.cell_width >= FIGURES
        return [*segments, Segment("]", plain + _CURSOR)] if closing else segments

    def _small_cells(self, row: int) -> list[Segment]:
        """A row of cells of one column: of several layers the worst, and where the cursor is the cell under it."""
        plain, (cursor_row, cursor) = self.style("map--plain"), self._cursor_place()
        blank = Segment(" ", plain)
        cells = [blank]
        for place in range(-(-self._columns // self.shared)):
            sites = self._sites(row, place)
            here = row == cursor_row and place == cursor // self.shared
            site = self.model.cursor if here else sites[0] if len(sites) == 1 else self._worst(sites)
            cells.append(blank if site is None else self._small_cell(site))
        if row == cursor_row:
            place = cursor // self.shared + 1
            cells[place] = Segment(cells[place].text, (cells[place].style or plain) + _CURSOR)
            return with_brackets([*cells, blank], place, plain + _CURSOR)
        return [*cells, blank]

    def _small_cell(self, site: Site) -> Segment:
        look = self.look(site)
        glyph = glyph_of(look, self.model.sign(site))
        if glyph in STAND_OUT:
            return Segment(glyph, self.style("map--outside"))
        level = None if look is None else look.level
        return Segment(glyph, self.style("map--plain") if level is None else self._heat[level])

    def _cell(self, site: Site) -> tuple[str, Style]:
        """Text and style of a cell."""
        look, sign = self.look(site), self.model.sign(site)
        if look is None:
            return " " * self.cell_width, self.style("map--plain")
        if sign == _CULPRIT and self.cell_width < FIGURES:  # told by its shape, not only by what is around it
            return cell_text(look._replace(glyph=_CULPRIT), " ", self.cell_width), self.style("map--outside")
        look = look if self._figures else look._replace(text=look.glyph)
        stands_out = sign in (OUTSIDE, _CULPRIT)
        unmeasured = "map--outside" if stands_out else "map--plain"
        style = self.style(unmeasured) if look.level is None else self._heat[look.level]
        return cell_text(look, sign, self.cell_width), style + Style(bold=True) if stands_out else style
