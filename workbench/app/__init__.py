"""The app: the map of a session, filled while the pair runs. Nothing else imports Textual."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.session import Session

_PAINTINGS = "240"  # a second at most; with Textual's 60 a key would wait 8 ms on average before anything is painted


def run(session: "Session") -> int:
    """Show a session until the user leaves; returns 0 alike, 1 different, 2 if the question could not be answered."""
    os.environ.setdefault("TEXTUAL_FPS", _PAINTINGS)
    from workbench.app.app import WorkbenchApp
    from workbench.comparison import NOT_COMPARABLE

    answer = WorkbenchApp(session).run()
    return NOT_COMPARABLE if answer is None else answer
