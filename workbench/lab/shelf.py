"""The hypotheses of a session: read from its folder, and written into it with an entry in its log."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from store.text import printable
from workbench.lab.hypotheses import Shelf, amend, load, write
from workbench.lab.hypothesis import Hypothesis, HypothesisError, Status
from workbench.session.session import Session

TESTED = "tested"  # kind of a log entry


def shelf_of(session: Session) -> Shelf:
    """Return the readable hypotheses by number, and a sentence for every file that cannot be read."""
    return load(session.hypotheses_folder)


def keep(session: Session, hypothesis: Hypothesis) -> Hypothesis:
    """Write a new or changed hypothesis (see workbench.lab.hypotheses.write) and log it."""
    written = write(session.hypotheses_folder, hypothesis)
    kind = "hypothesis" if hypothesis.number == 0 else "hypothesis changed"
    session.log(kind, number=written.number, title=written.title, status=written.status, site=written.site)
    return written


def keep_test(
    session: Session, tested: Hypothesis, status: Status | None, evidence: Mapping[str, Any], test: Mapping[str, Any]
) -> Hypothesis:
    """Add a test to the history of a hypothesis, with its verdict if it had one, and log it.

    Whatever else was written into the file meanwhile stays, another test too. HypothesisError if what was tested is no
    longer what the file says, or if the file cannot be written.
    """

    def with_test(there: Hypothesis) -> Hypothesis:
        if (there.prediction, there.ladder, there.after) != (tested.prediction, tested.ladder, tested.after):
            raise HypothesisError(f"hypothesis {tested.number} was changed while it was tested; test it again.")
        history = (*there.history, test)
        if status is None:
            return replace(there, history=history)
        noted = there.evidence if there.last_test is None else there.evidence.get("noted")
        before = {"noted": noted} if noted else {}
        return replace(there, status=status, evidence={**evidence, **before}, history=history)

    try:
        written = amend(session.hypotheses_folder, tested.filename, with_test)
    except OSError as error:
        name = printable(tested.filename)
        raise HypothesisError(
            f"hypotheses/{name} cannot be written ({error.strerror}); the test is not saved."
        ) from error
    session.log(TESTED, number=tested.number, tested=test["time"], status=status, value=test["value"], why=test["why"])
    return written
