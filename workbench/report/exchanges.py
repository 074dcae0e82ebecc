"""The exchanges between A and B that a session's log holds of these files, for a report."""

from dataclasses import dataclass

from store.text import printable
from workbench.cells.metrics import format_value
from workbench.jobs.logged_side import Runs
from workbench.jobs.patched import patches
from workbench.session.session import Session


@dataclass(frozen=True, slots=True)
class Exchanges:
    """A table, its heading first, in the order they were made, and what each shows in a sentence; empty without any."""

    rows: list[list[object]]
    words: list[str]


def exchanges(session: Session, runs: Runs) -> Exchanges:
    """Return what was exchanged and what the output made of it."""
    made = patches(session, runs)
    heading: list[object] = ["exchanged", "at", "KL(B‖A)", "left", "top-1 changed", "left"]
    rows: list[list[object]] = [
        [
            f"{found.exchanged}: {found.part}",
            found.site,
            format_value(found.kl),
            format_value(found.kl_left),
            f"{found.top1} of {found.tokens}",
            f"{found.top1_left} of {found.tokens}",
        ]
        for found in made
    ]
    return Exchanges([heading, *rows] if rows else [], [printable(found.conclusion, 1000) for found in made])
