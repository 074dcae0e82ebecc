"""The keys that can be pressed now, on one line that never drops help, the next step, export and quit."""

from collections.abc import Iterator
from typing import Protocol, cast

from rich.text import Text
from textual import events
from textual.widget import Widget

from workbench.app.actions import Action, key_names, of_screen

_ALWAYS = {"question_mark,f1": 0, "e": 1, "q": 2, "escape,q": 2}  # keys that are never left out; the last come last
_APART = "  "


class Offers(Protocol):
    """A screen whose keys are shown. NAME : as in the table of actions."""

    NAME: str

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether an action can be done now."""


class Binds(Protocol):
    """An application in which keys may be others than the usual ones."""

    def bound(self, action: Action) -> Action:
        """Return an action with the keys that it has."""


class KeyLine(Widget):
    """Shows keys; a click presses one. What does not fit is left out, the last in the table first."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: tuple[str, ...] = ()  # keys of the steps that come next
        self._places: list[tuple[range, str]] = []  # columns of a key that is shown

    def next_steps(self, *keys: str) -> None:
        """Put the actions of these keys in front, as what to do next."""
        if keys != self._steps:
            self._steps = keys
            self.refresh()

    def render(self) -> Text:
        """Paint the line."""
        shown = self._fitting(self.size.width)
        text = Text(" ", no_wrap=True)
        self._places = []
        for action in shown:
            bound, step = self._bound(action), action.keys in self._steps
            before = "next: " if step and action.keys == self._steps[0] else ""
            text.append(before)
            start = text.cell_len
            text.append(_first(bound), "bold reverse" if step else "bold").append(f" {action.description}")
            self._places.append((range(start, text.cell_len), bound.keys.split(",")[0]))
            text.append(_APART)
        return text

    def on_click(self, event: events.Click) -> None:
        """Press the key that was clicked."""
        key = next((key for columns, key in self._places if event.x in columns), None)
        if key is not None:
            self.app.simulate_key(key)

    def _fitting(self, width: int) -> list[Action]:
        """Actions that fit: help, what comes next, the rest, and the ways out."""
        offered = list(self._offered())
        steps = [each for key in self._steps for each in offered if each.keys == key]
        kept = [each for each in offered if each.keys in _ALWAYS or each in steps]
        room = width - 1 - sum(map(self._width, kept)) - (len("next: ") if steps else 0)
        for each in offered:
            if each not in kept and each.show and self._width(each) <= room:
                kept.append(each)
                room -= self._width(each)
        rest = [each for each in offered if each in kept and each not in steps]
        rest.sort(key=lambda each: -1 if each is offered[0] else _ALWAYS.get(each.keys, 0))
        return rest[:1] + steps + rest[1:]

    def _offered(self) -> Iterator[Action]:
        screen = cast("Offers", self.screen)
        for action in of_screen(screen.NAME):
            name = action.name.partition("(")[0]
            if action.keys and screen.check_action(name, ()):
                yield action

    def _width(self, action: Action) -> int:
        return len(_first(self._bound(action))) + 1 + len(action.description) + len(_APART)

    def _bound(self, action: Action) -> Action:
        """Return an action with the keys that it has in this app; the usual ones say which action it is."""
        return cast("Binds", self.app).bound(action)


def _first(action: Action) -> str:
    return key_names(action).split(" ")[0]
