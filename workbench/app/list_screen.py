"""A full-screen list under a line of words; what weights, configuration, hypotheses and elements have in common."""

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Footer

from workbench.app.line_list import LineList
from workbench.app.status_line import StatusLine
from workbench.app.workers import ReportsWorkerErrors


class ListScreen(ReportsWorkerErrors, Screen[None]):
    """Shows a LineList; subclasses fill it and say what it is."""

    HEAD = ""

    def compose(self) -> ComposeResult:
        """Lay out the words, the list and the keys."""
        yield StatusLine(id="status")
        yield LineList(self.HEAD, id="list")
        yield Footer(show_command_palette=False, compact=True)

    @property
    def list(self) -> LineList:
        """The list."""
        return self.query_one(LineList)

    def say(self, text: str) -> None:
        """Show what the screen is about, and how far it is."""
        self.query_one(StatusLine).say(Text(f" {text}", "bold"))

    def action_move(self, how: str) -> None:
        """Move the cursor of the list."""
        self.list.move(how)
