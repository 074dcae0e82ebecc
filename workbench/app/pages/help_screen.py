"""Every key, from the table of actions."""

import textwrap
from typing import ClassVar

from textual.binding import BindingType

from store.text import printable
from workbench.app.actions import bindings, help_lines
from workbench.app.pages.list_screen import ListScreen
from workbench.app.pages.prompt_screen import PromptScreen

_KEYS = 14  # columns of the keys before what they do


class HelpScreen(ListScreen):
    """Lists the keys, those of the screen it was called from first."""

    NAME = "help"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    def __init__(self, screen: str) -> None:
        super().__init__()
        self._about = screen
        self._filter = ""
        self._lines: list[tuple[str, bool]] = []

    def on_mount(self) -> None:
        """There is nothing to say of a line beyond the line itself."""
        self.query_one("#detail").display = False
        self._fill()

    def on_resize(self) -> None:
        """Wrap to the new width."""
        self._fill()

    def action_filter(self) -> None:
        """Ask which keys to show."""

        def entered(text: str | None) -> None:
            if text is not None:
                self._filter = text.strip()
                self._fill()

        self.app.push_screen(PromptScreen("Text in what the keys to show do", self._filter), entered)

    def _fill(self) -> None:
        self._lines = []
        width = max(self.app.size.width - _KEYS - 4, 20)
        for keys, meaning in help_lines(self._about):
            if self._filter and (not meaning or self._filter.lower() not in f"{keys} {meaning}".lower()):
                continue
            if not meaning:
                self._lines.append((keys, True))
                continue
            first, *rest = textwrap.wrap(meaning, width)
            self._lines.append((f"  {keys:<{_KEYS - 2}}{first}", False))
            self._lines += [(" " * _KEYS + line, False) for line in rest]
        self.say("keys" + (f" │ /{printable(self._filter, 30)}" if self._filter else ""))
        self.list.show(len(self._lines), self._lines.__getitem__)
