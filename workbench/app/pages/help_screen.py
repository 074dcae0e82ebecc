"""Every key, from the table of actions."""

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from workbench.app.actions import help_lines


class HelpScreen(ModalScreen[None]):
    """Lists the keys, those of the screen it was called from first."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,question_mark,f1", "dismiss", "Back")]

    def __init__(self, screen: str) -> None:
        super().__init__()
        self._about = screen

    def compose(self) -> ComposeResult:
        """Lay out the list of keys."""
        with VerticalScroll(classes="dialog") as box:
            box.border_title = "Keys"
            box.border_subtitle = "esc back"
            yield Static(self._table(), markup=False)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        for keys, meaning in help_lines(self._about):
            table.add_row(Text(f"  {keys}", "bold"), Text(meaning)) if meaning else table.add_row(
                Text(keys, "bold underline")
            )
        return table
