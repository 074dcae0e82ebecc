"""A bisection as a session's log keeps it, written once and read back with its types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from store.errors import StoreError
from store.typed_fields import typed_fields
from workbench.bisect.headline import headline
from workbench.bisect.verdict import Bisection
from workbench.jobs.logged_side import LoggedSide, Runs, are_of, read_sides
from workbench.lab.bindings import Bindings
from workbench.lab.retractions import standing_entries
from workbench.session.session import Session

_KIND = "bisected"


@dataclass(frozen=True, slots=True)
class Bisected:
    """What was found, when, and about which files.

    text : the answer in words, verdict first. cells_compared : of two traces that were set side by side; None where
    stages were run again.
    """

    time: str
    a: LoggedSide
    b: LoggedSide
    tokens: tuple[int, ...] | None
    prompt: str | None
    found: Bisection
    text: str
    cells_compared: int | None = None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Bisected":
        """Rebuild it from an entry of the log; StoreError if nobody can have written that."""
        parts = dict(entry) | {"found": Bisection.from_json(entry)}
        parts |= read_sides(entry, "a bisection")
        return cls(**typed_fields(cls, parts, "bisection"))

    @property
    def headline(self) -> str:
        """The verdict in one plain sentence."""
        return headline(self.found, self.cells_compared)

    def to_json(self) -> dict[str, Any]:
        """Return it as `bisect --json` prints it, without its cells and what the two sides are."""
        record: dict[str, Any] = {"tokens": None if self.tokens is None else list(self.tokens), "prompt": self.prompt}
        record |= {"headline": self.headline} | self.found.to_json()
        del record["cells"]
        return record if self.cells_compared is None else record | {"cells_compared": self.cells_compared}


def keep(session: Session, record: Mapping[str, Any], text: str) -> None:
    """Keep an answer, as `bisect --json` prints it, in a session's log; SessionError if it cannot be written."""
    session.log(_KIND, **record, text=text)


def last_bisection(session: Session) -> Bisected | None:
    """Return the last bisection of a session that was not retracted.

    None if there is none, or if somebody has changed its entry by hand.
    """
    found = _last(session)
    return None if found is None else found[0]


def standing_answer(session: Session, bindings: Bindings) -> tuple[dict[str, Any], int] | None:
    """Return the last bisection, as JSON, and its line in the log, if it was about what the session holds now."""
    found = _last(session)
    if found is None:
        return None
    known, line = found
    spec, entry = session.spec, session.numbered_entries()[line]
    for side, now, then in (("a", spec.a, known.a), ("b", spec.b, known.b)):
        path = entry[side].get("numeric_path")
        if then.sha256 != bindings.of(side) or (now.numeric_path and path != now.numeric_path):
            return None
    if spec.tokens and known.tokens != spec.tokens:
        return None
    return known.to_json(), line


def _last(session: Session) -> tuple[Bisected, int] | None:
    entries = {line: entry for line, entry in standing_entries(session).items() if entry.get("kind") == _KIND}
    line = max(entries, default=0)
    try:
        return (Bisected.from_json(entries[line]), line) if entries else None
    except StoreError:
        return None


def standing_bisection(session: Session, runs: Runs) -> Bisected | None:
    """Return a session's last bisection if it was about the files of these runs, by side."""
    known = last_bisection(session)
    return known if known is not None and are_of({"a": known.a, "b": known.b}, runs) else None
