"""The hypotheses of a session: read from its folder, and written into it with an entry in its log."""

from workbench.lab.hypotheses import Hypothesis, Shelf, load, write
from workbench.session.session import Session


def shelf_of(session: Session) -> Shelf:
    """Return the readable hypotheses by number, and a sentence for every file that cannot be read."""
    return load(session.hypotheses_folder)


def keep(session: Session, hypothesis: Hypothesis) -> Hypothesis:
    """Write a new or changed hypothesis (see workbench.lab.hypotheses.write) and log it."""
    written = write(session.hypotheses_folder, hypothesis)
    kind = "hypothesis" if hypothesis.number == 0 else "hypothesis changed"
    session.log(kind, number=written.number, title=written.title, status=written.status, site=written.site)
    return written
