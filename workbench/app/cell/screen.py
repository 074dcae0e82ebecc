"""Into a cell: every element of it, how the values are distributed, and where the differences sit."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.widgets import Static
from textual.worker import Worker, WorkerState

from kernels.config import ModelConfig
from kernels.measures import OTHER_SIGN
from kernels.stages import Site
from workbench.app.actions import bindings
from workbench.app.cell.distribution import histograms, strip_levels
from workbench.app.key_line import KeyLine
from workbench.app.map.colours import heat_of
from workbench.app.pages.line_list import LineList
from workbench.app.pages.list_screen import ListScreen
from workbench.app.pages.prompt_screen import PromptScreen
from workbench.app.status_line import StatusLine
from workbench.cells.elements import ORDERS, Element, Elements, Order, WorstElements
from workbench.cells.heat import OUTSIDE
from workbench.cells.metrics import format_value
from workbench.cells.stage_tensors import channel_head, channel_name

if TYPE_CHECKING:
    from collections.abc import Callable

_NUMBERS = f"{'A':>13} {'B':>13} {'A-B':>9} {'|d|/|B|':>8} {'ULP':>{len(OTHER_SIGN)}}"
_LABEL = 6  # columns of the token position beside the strip


class CellScreen(ListScreen):
    """Shows the elements of a site. `read` gets them, `describe_tensors` names its weights; both may take their time.

    order : what the elements are ordered by, or are to be once they are there.
    """

    NAME = "cell"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    @dataclass(eq=False, repr=False)
    class Read(Message):
        """The elements are there."""

        elements: Elements

    @dataclass(eq=False, repr=False)
    class Ordered(Message):
        """The elements have been ordered."""

        order: Order
        indices: NDArray[np.int64] | None

    @dataclass(eq=False, repr=False)
    class Overviewed(Message):
        """Histograms and strip have been counted."""

        text: Text

    @dataclass(eq=False, repr=False)
    class BytesAsked(Message):
        """Someone wants to know what an element was computed from."""

        site: Site
        token: int
        channel: int

    @dataclass(eq=False, repr=False)
    class Described(Message):
        """The weights of the stage have been looked up."""

        text: str

    def __init__(
        self,
        site: Site,
        scope: str,
        read: "Callable[[], Elements]",
        config: ModelConfig,
        describe_tensors: "Callable[[Site], str]",
    ) -> None:
        super().__init__()
        self.site = site
        self._read = read
        self._elements: Elements | None = None
        self.order: Order = "abs"
        self._scope = scope
        self._config = config
        self._describe_tensors = describe_tensors
        self._indices: NDArray[np.int64] | None = None
        self._tensors = ""
        self._has_heads = bool(channel_head(site, 0, config))

    def compose(self) -> ComposeResult:
        """Lay out words, pictures, the list and the keys."""
        yield StatusLine(id="status")
        yield Static(id="overview", markup=False)
        place = f"{'token':>5} {'chan.':>5} {'head':<8}" if self._has_heads else f"{'token':>5} {'chan.':>6} "
        yield LineList(place + _NUMBERS, id="list")
        yield Static(id="detail", markup=False)
        yield KeyLine()

    @property
    def elements(self) -> Elements:
        """The elements, which must have been read."""
        assert self._elements is not None
        return self._elements

    def on_mount(self) -> None:
        """Show the screen first, and have the elements read."""
        self.say(f"{self.site} │ {self._scope} │ reading")
        self.call_after_refresh(self._get_elements)
        self.call_after_refresh(self._look_up)

    def on_cell_screen_read(self, message: Read) -> None:
        """Show the elements as they lie, and have them ordered and counted."""
        self._elements = message.elements
        self.list.show(self.elements.count, self._line)
        self._sort(self.order)
        self.on_resize()
        self.query_one(KeyLine).refresh()

    def on_resize(self) -> None:
        """Draw the pictures for the new size."""
        if self._elements is not None:
            self._count(self.size.width - 2, max((self.size.height - 8) // 4, 2))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer to go to an element, or to its bytes, once there are elements."""
        return self._elements is not None or action not in ("goto", "bytes")

    def action_cycle_order(self) -> None:
        """Order by the next key."""
        orders = list(ORDERS)
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        if self._elements is not None:
            self._sort(self.order)

    def action_goto(self) -> None:
        """Ask for an element and go to it."""

        def entered(text: str | None) -> None:
            index = None if text is None else self._parse(text)
            if index is not None:
                self.list.go(self.line_of(index))

        title = f"Index 0-{self.elements.count - 1}, or token,channel"
        self.app.push_screen(
            PromptScreen(title, "", lambda text: "" if self._parse(text) is not None else title), entered
        )

    def action_bytes(self) -> None:
        """Ask what the element under the cursor was computed from."""
        element = self._element(self.list.cursor)
        self.post_message(self.BytesAsked(self.site, element.token, element.channel))

    def line_of(self, index: int) -> int:
        """Line on which an element stands in the present order."""
        return index if self._indices is None else int(np.flatnonzero(self._indices == index)[0])

    def _parse(self, text: str) -> int | None:
        """Index of the element that "INDEX" or "TOKEN,CHANNEL" names, or None."""
        parts = [int(part) for part in text.replace(",", " ").split() if part.isdecimal()]
        if len(parts) == 1:
            return parts[0] if parts[0] < self.elements.count else None
        return self.elements.index(*parts) if len(parts) == 2 else None

    def detail(self, index: int) -> Text:
        """Return an element to the last bit, and the weights of the stage."""
        element = self._element(index)
        channel = channel_name(self.site, element.channel, self._config)
        bits = (f"{side} {value:.9g} {np.float32(value).view(np.uint32):08x}" for side, value in element.sides())
        return Text(f"token {element.token} channel {channel}: {'  '.join(bits)}\n{self._tensors}")

    def describe(self, text: Text) -> None:
        """Show some text below the list, which leaves it as many lines as it takes."""
        self.query_one("#detail", Static).update(text)

    def _element(self, line: int) -> Element:
        return self.elements.element(line if self._indices is None else int(self._indices[line]))

    def _line(self, line: int) -> tuple[str, bool]:
        element = self._element(line)
        if self._has_heads:  # of which no stage has a hundred thousand channels
            head = channel_head(self.site, element.channel, self._config)
            place = f"{element.token:>5} {element.channel:>5} {head:<8}"
        else:
            place = f"{element.token:>5} {element.channel:>6} "
        return place + _numbers(element), False

    # Work that may take a while

    @work(thread=True, exclusive=True, group="read", exit_on_error=False)
    def _get_elements(self) -> None:
        self.post_message(self.Read(self._read()))

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Say in a sentence what could not be done, and here that there is nothing to come."""
        super().on_worker_state_changed(event)
        if event.state is WorkerState.ERROR and event.worker.group == "read":
            self.say(f"{self.site} │ the elements could not be read")

    @work(thread=True, exclusive=True, group="order", exit_on_error=False)
    def _sort(self, order: Order) -> None:
        self.post_message(self.Ordered(order, self.elements.ordered(order)))

    def on_cell_screen_ordered(self, message: Ordered) -> None:
        """Show the elements in their new order."""
        if message.order != self.order:  # another one has been asked for meanwhile
            return
        self._indices = message.indices
        self.list.show(self.elements.count, self._line, cursor=0)
        order = f"largest {ORDERS[self.order]} first" if self._indices is not None else "in index order"
        self.say(f"{self.site} │ {self._scope} │ {_count_of(self.elements)}, {order}")

    @work(thread=True, exclusive=True, group="overview", exit_on_error=False)
    def _count(self, width: int, rows: int) -> None:
        elements = self.elements
        if isinstance(elements, WorstElements):
            words = "No tensors are kept (--statistics-only), so that there is no picture of all elements."
            self.post_message(self.Overviewed(Text(words)))
            return
        grid = elements.strip(rows, width - _LABEL)
        text = Text("\n".join(histograms(elements.a, elements.b, width)) + "\n", no_wrap=True)
        title = Text(_strip_title(elements, grid))
        title.truncate(width, overflow="ellipsis")
        text.append(title).append("\n")
        heat = heat_of(self.app)
        tokens = np.arange(len(grid)) * len(elements.positions) // len(grid)
        for token, row in zip(tokens, strip_levels(grid), strict=True):
            text.append(f"{elements.positions[token]:>{_LABEL - 1}} ")
            for glyph, level in row:
                text.append(glyph, heat[level] if level is not None else "bold reverse")
            text.append("\n")
        text.right_crop(1)
        self.post_message(self.Overviewed(text))

    def on_cell_screen_overviewed(self, message: Overviewed) -> None:
        """Show histograms and strip."""
        self.query_one("#overview", Static).update(message.text)

    @work(thread=True, exclusive=True, group="tensors", exit_on_error=False)
    def _look_up(self) -> None:
        self.post_message(self.Described(self._describe_tensors(self.site)))

    def on_cell_screen_described(self, message: Described) -> None:
        """Show the weights of the stage."""
        self._tensors = message.text
        self._describe_line()


def _count_of(elements: Elements) -> str:
    count = f"{elements.count} element{'s' * (elements.count != 1)}"
    return f"the {count} of {elements.of} that differ most" if isinstance(elements, WorstElements) else count


def _numbers(element: Element) -> str:
    ulp = "-" if element.ulp is None else OTHER_SIGN if element.other_sign else str(element.ulp)
    d, relative = format_value(element.d), format_value(element.relative)
    return f"{element.a:>13.7g} {element.b:>13.7g} {d:>9} {relative:>8} {ulp:>{len(OTHER_SIGN)}}"


def _strip_title(elements: Elements, grid: NDArray[np.float64]) -> str:
    finite = grid[np.isfinite(grid)]
    if not grid.any():
        return "no element differs"
    top = f"7 is {format_value(float(finite.max()))}, a digit less is half, " if finite.any() else ""
    tokens, channels = -(-len(elements.positions) // grid.shape[0]), -(-elements.channels // grid.shape[1])
    lost = "" if finite.size == grid.size else f", {OUTSIDE} not finite"
    of = f"{tokens} token{'s' * (tokens > 1)} × {channels} channel{'s' * (channels > 1)}"
    return f"max |d| of {of}: {top}= none{lost}"
