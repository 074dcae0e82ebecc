"""The app: the map of a session, filled while the pair runs. Nothing else imports Textual."""

import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.session import Session

# A second at most. After a painting Textual lets up to two such periods pass, and a key that comes meanwhile waits.
_PAINTINGS = "1000"

# New objects between two looks for garbage: a look at so few takes less than 1 ms, which a key may have to wait.
_GARBAGE_LOOKS = 2_000


def run(session: "Session") -> int:
    """Show a session until the user leaves; returns 0 alike, 1 different, 2 if the question could not be answered."""
    os.environ.setdefault("TEXTUAL_FPS", _PAINTINGS)
    from workbench.app.app import WorkbenchApp
    from workbench.comparison import NOT_COMPARABLE

    gc.freeze()  # what has been loaded stays; it need not be looked at any more
    gc.set_threshold(_GARBAGE_LOOKS)
    answer = WorkbenchApp(session).run()
    return NOT_COMPARABLE if answer is None else answer
