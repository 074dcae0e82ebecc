"""A tour of five keys, from the map to the findings: shown once, beside the map, and led by the user's own keys."""

from pathlib import Path
from typing import NamedTuple

from rich.text import Text
from textual.widgets import Static

from store.traces.run import DISTRIBUTION
from workbench.app.actions import ACTIONS, Action, key_names
from workbench.app.map.screen import MapScreen
from workbench.app.preferences.obeying import ObeysPreferences

_ID = "tour"


class Step(NamedTuple):
    """A key of the map to press, by its usual name, and what it is good for."""

    key: str
    words: str


STEPS = (
    Step("m", "The std ratio is blind to order and sign: another metric may show what it hides."),
    Step("b", "Go to the first cell that is really wrong; why stands beside the map."),
    Step("enter", "Read the evidence, and with another ↵ every element of the cell; esc comes back."),
    Step("P", "Prove it: exchange that part between A and B, and see what the output makes of it."),
    Step("e", "Write the findings: the document that your colleagues read."),
)


def mark_path() -> Path:
    """Return the file that says that the tour was shown."""
    from platformdirs import user_state_path

    return user_state_path(DISTRIBUTION) / "tour-shown"


def was_shown() -> bool:
    """Whether the tour was shown to this user before; if that cannot be kept it is not shown at all."""
    mark = mark_path()
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.open("x").close()
    except OSError:
        return True
    return False


class Guides(ObeysPreferences):
    """The part of the application that leads through the tour. touring : the step that is shown, if any is."""

    map_screen: MapScreen
    touring: int | None = None

    def action_tour(self) -> None:
        """Begin the tour, or end it."""
        if self.touring is None:
            self._show_step(0)
        else:
            self._end_tour()

    def tour_saw(self, action: str) -> None:
        """Go on to the next step once the key of this one was pressed."""
        if self.touring is None or action != _action_of(STEPS[self.touring]).name:
            return
        if self.touring + 1 < len(STEPS):
            self._show_step(self.touring + 1)
        else:
            self._end_tour()
            self.notify("That was the tour. ? lists every key; the session is kept.", timeout=10, markup=False)

    def _show_step(self, number: int) -> None:
        self.touring = number
        strip = self.map_screen.query(f"#{_ID}")
        if strip:
            strip.first(Static).update(self._words(number))
        else:
            self.map_screen.mount(Static(self._words(number), id=_ID, markup=False), before="#body")

    def _end_tour(self) -> None:
        self.touring = None
        self.map_screen.query(f"#{_ID}").remove()

    def _words(self, number: int) -> Text:
        step = STEPS[number]
        key, end = (key_names(self.bound(action)).split(" ")[0] for action in (_action_of(step), _TOUR))
        text = Text(f" {number + 1}/{len(STEPS)}  ", "bold").append("press ").append(f" {key} ", "bold reverse")
        return text.append(f"  {step.words}").append(f"  ({end} ends the tour)", "dim")


_TOUR = next(action for action in ACTIONS if action.name == "app.tour")


def _action_of(step: Step) -> Action:
    return next(each for each in ACTIONS if each.screen == "map" and step.key in each.keys.split(","))
