"""Why a key does nothing now: said when it is pressed."""

from textual.screen import Screen
from textual.widget import Widget

from workbench.app.map.screen import MapScreen

_NO_HYPOTHESIS = "There is no hypothesis yet; a on a cell of the map writes one."
_READING = "The experiments are being read."
# Screens and actions that need a line in the list of the screen, and why there may be none.
_NEED_A_LINE = {
    "hypotheses": (("go_to_cell", "test", "test_all", "next_status", "edit"), _NO_HYPOTHESIS),
    "lab": (("run_here", "run_published"), _READING),
}


def why_not(screen: Screen[object], action: str) -> str:
    """Return why an action of a screen cannot be done now; empty where it can."""
    name = action.partition("(")[0]
    if isinstance(screen, MapScreen):
        return _of_map(screen, name)
    actions, sentence = _NEED_A_LINE.get(str(getattr(screen, "NAME", "")), ((), ""))
    return sentence if name in actions and not _lines(screen) else ""


def _of_map(screen: MapScreen, name: str) -> str:
    if name not in ("resume", "cancel") or screen.check_action(name, ()) is not False:
        return ""
    if name == "cancel":
        return "Nothing is at work that could be stopped, and no filter is set."
    return f"There is nothing to resume: the capture is {'complete' if screen.phase == 'finished' else 'at work'}."


def _lines(screen: Screen[object]) -> int:
    """How many lines the list of a screen has."""
    listed: Widget = screen.query_one("#list")
    return int(getattr(listed, "count", 0))
