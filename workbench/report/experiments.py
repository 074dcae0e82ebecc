"""What a session's log holds of the exchanges that were made with these files, for a report."""

from workbench.cells.metrics import format_value
from workbench.jobs.logged_side import Runs
from workbench.jobs.patched import patches
from workbench.session.session import Session


def experiments(session: Session, runs: Runs) -> list[list[object]]:
    """Return a table of the exchanges, its heading first, in the order they were made; empty if there were none."""
    made = patches(session, runs)
    heading: list[object] = [
        "exchanged",
        "at",
        "KL(B‖A) before",
        "left with A's part",
        "top-1 changed, before and after",
        "in words",
    ]
    rows: list[list[object]] = [
        [
            f"{found.exchanged}: {found.part}",
            found.site,
            format_value(found.kl),
            format_value(found.kl_left),
            f"{found.top1} and {found.top1_left} of {found.tokens}",
            found.conclusion,
        ]
        for found in made
    ]
    return [heading, *rows] if rows else []
