"""The app: the map of a session, filled while the pair runs. Nothing else imports Textual."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.session import Session


def run(session: "Session") -> int:
    """Show a session until the user leaves; returns 0 alike, 1 different, 2 if the question could not be answered."""
    from workbench.app.app import WorkbenchApp
    from workbench.comparison import NOT_COMPARABLE

    answer = WorkbenchApp(session).run()
    return NOT_COMPARABLE if answer is None else answer
