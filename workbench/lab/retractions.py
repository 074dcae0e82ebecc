"""Retractions: what somebody takes back, why, and what may no longer be built on it. They are lines of the log."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.text import printable
from workbench.lab.bindings import CAPTURE, Bindings, line_key
from workbench.lab.hypothesis import HypothesisError
from workbench.lab.shelf import TESTED, shelf_of
from workbench.session.session import Session

RETRACTED = "retracted"  # kind of a log entry
_COMPARED = "compared"
_HYPOTHESIS, _LINE = re.compile(r"hypothesis ([0-9]{1,6})"), re.compile(r"(?:line )?([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Retraction:
    """What is taken back: `capture`, `line 12` or `hypothesis 2`.

    meant : what verdicts are bound to where that is not the line itself: the capture or test that the line records.
    mark : which capture, or which test of the hypothesis; a later one is not meant. line : of the log.
    """

    what: str
    meant: str
    mark: str
    why: str
    line: int

    @property
    def words(self) -> str:
        """What was taken back and why, in a sentence without an end."""
        what = {CAPTURE: "the capture"}.get(
            self.what, f"{self.what} of the log" if _LINE.fullmatch(self.what) else self.what
        )
        return f"{printable(what, 60)} was retracted: {printable(self.why, 400)}"


def retractions(session: Session) -> list[Retraction]:
    """Return what is taken back, oldest first, without retractions that were themselves taken back."""
    standing: list[Retraction] = []
    lifted: set[str] = set()
    for line, entry in reversed(session.numbered_entries().items()):
        if entry.get("kind") == RETRACTED and line_key(line) not in lifted:
            what, meant, mark, why = (str(entry.get(key, "")) for key in ("what", "meant", "mark", "why"))
            found = Retraction(what, meant, mark, why, line)
            lifted.add(found.what)
            standing.append(found)
    return standing[::-1]


def standing_entries(session: Session) -> dict[int, dict[str, Any]]:
    """Return the log by the number of its lines, without those that were taken back."""
    taken_back = {retraction.meant for retraction in retractions(session)}
    return {line: entry for line, entry in session.numbered_entries().items() if line_key(line) not in taken_back}


def retracted_capture(session: Session) -> str:
    """Why the present capture of a session may not be used, in words; "" if it may, or if there is none."""
    captured = Bindings(session).captured
    taken_back = [each for each in retractions(session) if each.meant == CAPTURE and each.mark == captured]
    return "" if captured is None or not taken_back else taken_back[-1].words


def retract(session: Session, what: str, why: str) -> Retraction:
    """Take back `capture`, a line of the log, or `hypothesis N`; HypothesisError if there is nothing of the kind."""
    if not why.strip():
        raise HypothesisError("a retraction says why; give --why")
    number, line = _HYPOTHESIS.fullmatch(what), _LINE.fullmatch(what)
    if what == CAPTURE:
        facts = _of_capture(session)
    elif number is not None:
        facts = _of_hypothesis(session, int(number[1]))
    elif line is not None:
        facts = _of_line(session, int(line[1]))
    else:
        shown = printable(what, 60)
        raise HypothesisError(
            f"{shown} is nothing to retract; name capture, the number of a line of the log, or hypothesis N"
        )
    session.log(RETRACTED, **facts, why=why)
    return next(each for each in reversed(retractions(session)) if (each.what, each.why) == (facts["what"], why))


def _of_capture(session: Session) -> dict[str, Any]:
    captured = Bindings(session).captured
    if captured is None:
        raise HypothesisError("the session holds no complete capture that could be retracted")
    return {"what": CAPTURE, "meant": CAPTURE, "mark": captured}


def _of_hypothesis(session: Session, number: int) -> dict[str, Any]:
    found = next((each for each in shelf_of(session).hypotheses if each.number == number), None)
    if found is None:
        raise HypothesisError(f"the session has no hypothesis {number}")
    if found.last_test is None:
        raise HypothesisError(f"hypothesis {number} has not been tested; there is no verdict to retract")
    name = f"hypothesis {number}"
    return {"what": name, "meant": name, "mark": str(found.last_test.get("time", ""))}


def _of_line(session: Session, number: int) -> dict[str, Any]:
    entries = session.numbered_entries()
    if number not in entries:
        raise HypothesisError(f"the log has no line {number}; it has lines 1 to {max(entries, default=0)}")
    return {"what": line_key(number), **_meant(session, entries, number)}


def _meant(session: Session, entries: Mapping[int, Mapping[str, Any]], number: int) -> dict[str, Any]:
    """What a line records, where verdicts are bound to that rather than to the line: a test, or the capture."""
    entry = entries[number]
    if entry.get("kind") == TESTED:
        return {"meant": f"hypothesis {entry.get('number')}", "mark": str(entry.get("tested", ""))}
    last = max((line for line, each in entries.items() if each.get("kind") == _COMPARED), default=0)
    captured = Bindings(session).captured if number == last else None
    return {"meant": line_key(number)} if captured is None else {"meant": CAPTURE, "mark": captured}
