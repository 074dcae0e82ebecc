"""Both runs side by side: configuration, settings, files and versions, differences first."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from rich.text import Text
from textual.binding import BindingType

from store.text import printable
from workbench.app.actions import bindings
from workbench.app.pages.list_screen import ListScreen

if TYPE_CHECKING:
    from store.traces.run import RunRecord

_NAME = 31  # columns of the name of an entry


class Entry(NamedTuple):
    """One thing that both runs record, in words."""

    name: str
    a: str
    b: str

    @property
    def same(self) -> bool:
        """Whether both runs say the same."""
        return self.a == self.b


def entries(a: "RunRecord", b: "RunRecord") -> list[Entry]:
    """Everything the two records say, differences first."""
    facts_a, facts_b = dict(_facts(a)), dict(_facts(b))
    names = dict.fromkeys([*facts_a, *facts_b])
    found = [Entry(name, facts_a.get(name, "-"), facts_b.get(name, "-")) for name in names]
    return sorted(found, key=lambda entry: entry.same)


def _facts(run: "RunRecord") -> Iterator[tuple[str, str]]:
    record = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
    nested = {"config": dataclasses.asdict(run.config)}
    nested |= {name: record[name] for name in ("settings", "versions", "machine")}
    for section in ("config", "settings"):
        yield from _section(section, nested[section])
    yield from ((name, _words(value)) for name, value in record.items() if name not in nested)
    for section in ("versions", "machine"):
        yield from _section(section, nested[section])


def _section(section: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((printable(f"{section} {name}", _NAME), _words(value)) for name, value in values.items())


def _words(value: object) -> str:
    if value is None:
        return "none"
    return printable(", ".join(map(str, value)) if isinstance(value, tuple) else str(value), 400)


class ConfigScreen(ListScreen):
    """Shows the records of both runs."""

    NAME = "config"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    def __init__(self, a: "RunRecord", b: "RunRecord") -> None:
        super().__init__()
        self._entries = entries(a, b)

    def detail(self, index: int) -> Text:
        """Return an entry in full."""
        entry = self._entries[index]
        return Text.assemble((entry.name, "bold"), f"\nA  {entry.a}\nB  {entry.b}")

    def on_mount(self) -> None:
        """Say how much differs."""
        different = sum(not entry.same for entry in self._entries)
        self.say(f"{different} of {len(self._entries)} entries differ (marked !)")

    def on_resize(self) -> None:
        """Share the width out to both sides."""
        self.list.head = f"{'':<{_NAME + 2}}{'A':<{self._half}} B"
        self.list.show(len(self._entries), self._line)

    @property
    def _half(self) -> int:
        return max((self.size.width - _NAME - 6) // 2, 8)

    def _line(self, index: int) -> tuple[str, bool]:
        entry = self._entries[index]
        a, b = (_cut(text, self._half) for text in (entry.a, entry.b))
        return f"{' ' if entry.same else '!'} {entry.name:<{_NAME}}{a:<{self._half}} {b}", not entry.same


def _cut(text: str, width: int) -> str:
    """Cut the middle out of a text that is too long: paths and hashes differ at their ends."""
    if len(text) <= width:
        return text
    tail = width // 2
    return f"{text[: width - tail - 1]}…{text[-tail:]}"
