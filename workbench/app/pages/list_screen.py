"""A full-screen list under a line of words; what weights, configuration, hypotheses and elements have in common."""

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from workbench.app.key_line import KeyLine
from workbench.app.map.follow import Follow
from workbench.app.pages.line_list import LineList
from workbench.app.status_line import StatusLine
from workbench.app.workers import ReportsWorkerErrors


class ListScreen(ReportsWorkerErrors, Screen[None]):
    """Shows a LineList; subclasses fill it, say what it is, and describe the line under the cursor."""

    HEAD = ""

    def __init__(self) -> None:
        super().__init__()
        self.follow = Follow(self, self._describe_line)

    def compose(self) -> ComposeResult:
        """Lay out words, the list, the line under the cursor in full, and the keys."""
        yield StatusLine(id="status")
        yield LineList(self.HEAD, id="list")
        yield Static(id="detail", markup=False)
        yield KeyLine()

    @property
    def list(self) -> LineList:
        """The list."""
        return self.query_one(LineList)

    def say(self, text: str) -> None:
        """Show what the screen is about, and how far it is."""
        self.query_one(StatusLine).say(Text(f" {text}", "bold"))

    def on_line_list_cursor_moved(self) -> None:
        """Show the line under the cursor in full when the cursor rests."""
        self.follow.moved()

    def _describe_line(self) -> None:
        if self.list.count:
            self.describe(self.detail(self.list.cursor))

    def detail(self, index: int) -> Text:  # noqa: ARG002
        """Return what there is to say about a line beyond the line itself."""
        return Text()

    def describe(self, text: Text) -> None:
        """Show some text below the list."""
        self.query_one("#detail", Static).update(text, layout=False)  # as high as ever

    def action_move(self, how: str) -> None:
        """Move the cursor of the list."""
        self.list.move(how)
