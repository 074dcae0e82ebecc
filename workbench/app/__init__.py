"""The app: the map of a session, filled while the pair runs. Nothing else imports Textual."""

import gc
import os
from typing import TYPE_CHECKING

from workbench.machine import interrupts, terminal

if TYPE_CHECKING:
    from workbench.session.session import Session

# A second at most. After a painting Textual lets up to two such periods pass, and a key that comes meanwhile waits.
_PAINTINGS = "1000"


def run(session: "Session", bisects: bool = True, mouse: bool = True, tour: bool = False) -> int:
    """Show a session until the user leaves; returns 0 alike, 1 different, 2 if the question could not be answered.

    bisects : whether the pair is bisected as soon as it was captured. mouse : whether the app listens to it; else the
    terminal selects text with it as ever. tour : whether a user who has not seen the tour is shown it.
    """
    os.environ.setdefault("TEXTUAL_FPS", _PAINTINGS)
    gc.disable()  # until the first frame is there: what is loaded until then is no garbage
    from workbench.app.app import WorkbenchApp
    from workbench.app.preferences.reading import read_preferences
    from workbench.cells.compared_cells import NOT_COMPARABLE

    preferences = read_preferences()
    try:
        answer = WorkbenchApp(session, bisects=bisects, preferences=preferences, tour=tour).run(mouse=mouse)
    except BaseException:
        terminal.give_back()
        raise
    terminal.returned()
    interrupts.unwind()
    if (number := interrupts.received()) is not None:
        raise interrupts.Ended(number)
    return NOT_COMPARABLE if answer is None else answer
