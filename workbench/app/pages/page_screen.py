"""An answer in words, wrapped to the screen, scrolled line by line. Rows of a table stay whole, and move sideways."""

import re
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType

from workbench.app.actions import bindings
from workbench.app.pages.list_screen import ListScreen

if TYPE_CHECKING:
    from workbench.app.cell.evidence import Section

_INDENT = " " * 11  # of the lines that go on, under the text beside the names
_ROW = re.compile(r" +\S.*?\S  +\S.*?\S  +\S.*")  # of a table: indented, and three columns or more


class PageScreen(ListScreen):
    """Shows lines of text; `fill` may come later."""

    NAME = "page"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    def __init__(self, title: str, text: str = "") -> None:
        super().__init__()
        self._title, self._text = title, text
        self._lines: list[str] = []

    def on_mount(self) -> None:
        """Say what the page is about."""
        self.query_one("#detail").display = False
        self.doing("" if self._text else "starting")

    def on_resize(self) -> None:
        """Wrap to the new width."""
        self._wrap()

    def doing(self, text: str) -> None:
        """Say how far the answer is."""
        self.say(f"{self._title} │ {text}" if text else self._title)

    def fill(self, text: str) -> None:
        """Show the answer."""
        self._text = text
        self.doing("")
        self._wrap()

    def _wrap(self) -> None:
        width = max(self.size.width - 4, 20)
        self._lines = []
        for line in self._text.splitlines():
            self._lines += [line] if _ROW.fullmatch(line) else _wrapped(line, width)
        self.list.show(len(self._lines), lambda index: (self._lines[index], index == 0))


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=_INDENT, break_on_hyphens=False) or [""]


class EvidenceScreen(PageScreen):
    """Shows why the verdict holds, then the whole answer of the bisection."""

    NAME = "verdict"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    def __init__(self, evidence: "tuple[Section, ...]", text: str) -> None:
        verdict, _, rest = text.partition("\n")
        sections = [f"{title:<{len(_INDENT)}}{line}" for section in evidence for title, line in _titled(section)]
        super().__init__("verdict", "\n".join([verdict, "", *sections, *(["", rest.strip("\n")] if rest else [])]))

    async def action_again(self) -> None:
        """Ask again."""
        self.app.pop_screen()
        await self.app.run_action("bisect_again")


def _titled(section: "Section") -> Iterator[tuple[str, str]]:
    """Its lines, the title before the first."""
    for number, line in enumerate(section.lines):
        yield "" if number else section.title, line
