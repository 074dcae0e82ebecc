"""The hypotheses of a session: read from its folder, and written into it with an entry in its log.

The file is written first, as it holds all that there is to know; the log is told of it before anybody else may write.
If the program is killed in between, whoever reads the hypotheses next tells the log.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from store.text import printable
from workbench.lab.hypotheses import Shelf, amend, load, locked, write
from workbench.lab.hypothesis import Hypothesis, HypothesisError, Status
from workbench.session.files import SessionError
from workbench.session.own_copy import is_example
from workbench.session.session import Session

TESTED, _NEW, _CHANGED = "tested", "hypothesis", "hypothesis changed"  # kinds of log entries


def shelf_of(session: Session) -> Shelf:
    """Return the readable hypotheses by number, and a sentence for every file that cannot be read.

    Tests and verdicts that the log does not know are told to it, unless the session is an example, which stays as it
    is, or cannot be written.
    """
    shelf = load(session.hypotheses_folder)
    if _untold(session, shelf.hypotheses) and not is_example(session):
        with suppress(OSError, SessionError), locked(session.hypotheses_folder):
            shelf = load(session.hypotheses_folder)  # another process may have told them meanwhile
            _tell(session, shelf)
    return shelf


def keep(session: Session, hypothesis: Hypothesis) -> Hypothesis:
    """Write a new or changed hypothesis (see workbench.lab.hypotheses.write) and log it."""
    with _changing(session, hypothesis, "the note"):
        written = write(session.hypotheses_folder, hypothesis)
        kind = _NEW if hypothesis.number == 0 else _CHANGED
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

    with _changing(session, tested, "the test"):
        written = amend(session.hypotheses_folder, tested.filename, with_test)
        session.log(TESTED, **_of_test(tested, test))
    return written


@contextmanager
def _changing(session: Session, hypothesis: Hypothesis, what: str) -> Iterator[None]:
    """Let nobody else write until file and log agree; HypothesisError where the system does not let a file be written.

    The log is told first what is still untold, so that its lines keep the order in which things were done.
    """
    try:
        with locked(session.hypotheses_folder):
            _tell(session, load(session.hypotheses_folder))
            yield
    except OSError as error:
        where = f"hypotheses/{printable(hypothesis.filename)}" if hypothesis.number else "hypotheses"
        raise HypothesisError(f"{where} cannot be written ({error.strerror}); {what} is not saved.") from error


def _tell(session: Session, shelf: Shelf) -> None:
    for kind, facts in _untold(session, shelf.hypotheses):
        session.log(kind, **facts)


def _untold(session: Session, hypotheses: Sequence[Hypothesis]) -> list[tuple[str, dict[str, Any]]]:
    """Lines that the log lacks: tests, and verdicts by hand; with the file where each was found afterwards."""
    tests: Counter[tuple[str, str]] = Counter()
    statuses: dict[str, str] = {}
    for entry in session.entries():
        kind, number, status = entry.get("kind"), str(entry.get("number")), entry.get("status")
        if kind == TESTED:
            tests[number, str(entry.get("tested"))] += 1
        if kind in (TESTED, _NEW, _CHANGED) and status is not None:
            statuses[number] = str(status)
    found: list[tuple[str, dict[str, Any]]] = []
    for each in hypotheses:
        number, file = str(each.number), f"hypotheses/{each.filename}"
        for test in each.history:
            at = number, str(test.get("time"))
            tests[at] -= 1
            if tests[at] < 0:
                found.append((TESTED, {**_of_test(each, test), "file": file}))
                if test.get("status") is not None:
                    statuses[number] = str(test["status"])
        if each.status != statuses.get(number, "UNTESTED"):
            facts = {"number": each.number, "title": each.title, "status": each.status, "site": each.site}
            found.append((_CHANGED, {**facts, "file": file}))
    return found


def _of_test(tested: Hypothesis, test: Mapping[str, Any]) -> dict[str, Any]:
    facts = {key: test.get(key) for key in ("status", "value", "why")}
    return {"number": tested.number, "tested": str(test.get("time")), **facts}
