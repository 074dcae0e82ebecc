"""Every key, from the table of actions, and what the words and signs mean."""

import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from textual.binding import BindingType

from store.text import printable
from workbench.app.actions import Action, bindings, help_lines
from workbench.app.pages.list_screen import ListScreen
from workbench.app.pages.prompt_screen import PromptScreen

_LEFT = 14  # columns of the keys before what they do; a word that takes more stands on a line of its own


class HelpScreen(ListScreen):
    """Lists the keys, those of the screen it was called from first, then the words and the signs.

    bound(action) : the action with the keys that it has in this app. session : its folder, which is named.
    """

    NAME = "help"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    def __init__(self, screen: str, bound: Callable[[Action], Action], session: Path) -> None:
        super().__init__()
        self._about = screen
        self._bound = bound
        self._session = session
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
        """Ask which lines to show."""

        def entered(text: str | None) -> None:
            if text is not None:
                self._filter = text.strip()
                self._fill()

        self.app.push_screen(PromptScreen("Words in the lines to show", self._filter), entered)

    def _fill(self) -> None:
        width = max(self.app.size.width - _LEFT - 4, 20)
        words = self._filter.lower().split()
        shown = list(_with_words(help_lines(self._about, self._bound), words))
        self._lines = [line for left, meaning in shown for line in _wrapped(left, meaning, width)]
        found = (
            "" if not words else f" │ /{printable(self._filter, 30)}" + ("" if shown else ": nothing has these words")
        )
        self.say(f"keys and words{found} │ session {printable(str(self._session), 400)}")
        self.list.show(len(self._lines), self._lines.__getitem__)


def _with_words(lines: Iterable[tuple[str, str]], words: list[str]) -> Iterator[tuple[str, str]]:
    """Return the lines that have every word, under their headings."""
    heading: list[tuple[str, str]] = []
    for line in lines:
        if not line[1]:
            heading = [line]
        elif all(word in " ".join(line).lower() for word in words):
            yield from (*heading, line)
            heading = []


def _wrapped(left: str, meaning: str, width: int) -> Iterator[tuple[str, bool]]:
    if not meaning:
        yield left, True
        return
    lines = textwrap.wrap(meaning, width)
    if len(left) > _LEFT - 3:
        yield f"  {left}", True
        left = ""
    for line in lines:
        yield f"  {left:<{_LEFT - 2}}{line}", False
        left = ""
