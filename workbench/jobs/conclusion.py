"""What a session concludes: the verdict of its bisection, and only where there is none what its comparison shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from store.traces.run import RunRecord
from workbench.bisect.verdict import EXIT_CODES
from workbench.cells.comparison import NOT_COMPARABLE, Comparison
from workbench.jobs.inquiry import last_bisection
from workbench.pair.recorded import of_other_engine
from workbench.session.session import Session


def standing_bisection(session: Session, runs: Mapping[str, RunRecord]) -> dict[str, Any] | None:
    """Return the log entry of a session's last bisection if it was about the files of these runs, by side."""
    known = last_bisection(session)
    if known is None or str(known.get("verdict")) not in EXIT_CODES:
        return None
    of = {side: facts for side in ("a", "b") if isinstance(facts := known.get(side), dict)}
    return known if all(side not in runs or _same(facts, runs[side]) for side, facts in of.items()) else None


def _same(facts: Mapping[str, Any], run: RunRecord) -> bool:
    """Whether a side of a bisection is what was run; a trace of ours is known by when it was made."""
    if facts.get("format") == "trace" and not of_other_engine(run):
        return bool(facts.get("created") == run.created)
    return bool(facts.get("sha256") == run.sha256)


@dataclass(frozen=True, eq=False)
class Conclusion:
    """A session's comparison, and the log entry of the bisection that stands for the same files, if there is one."""

    comparison: Comparison
    bisection: Mapping[str, Any] | None

    @classmethod
    def of(cls, session: Session, comparison: Comparison) -> "Conclusion":
        """Conclude from what a session holds."""
        return cls(comparison, standing_bisection(session, {"a": comparison.a, "b": comparison.b}))

    def exit_code(self) -> int:
        """0 alike, 1 different, 2 not answered."""
        if self.bisection is None:
            return self.comparison.exit_code()
        return EXIT_CODES[self.bisection["verdict"]]

    def require_answer(self) -> None:
        """Raise WorkbenchError, saying why, where there is no answer."""
        if self.bisection is None:
            self.comparison.require_answer()
        elif self.exit_code() == NOT_COMPARABLE:
            notes = self.bisection.get("notes")
            why = f": {printable(str(notes[0]), 1000)}" if isinstance(notes, list) and notes else ""
            raise WorkbenchError(f"{self.bisection['verdict']}{why}")

    def lines(self) -> list[str]:
        """Return the bisection's answer in words, verdict first; nothing if there is none."""
        return [] if self.bisection is None else [printable(x, 1000) for x in str(self.bisection["text"]).splitlines()]

    def rests_on(self) -> str:
        """Say what the verdict rests on."""
        if self.bisection is None:
            bands = " and ".join(metric.label for metric in self.comparison.judges)
            return f"This rests on the bands of {bands} alone: nobody has bisected the pair."
        known = {name: printable(str(value), 40) for name, value in self.bisection.items()}
        if "cells_compared" in known:
            did = f"compared {known['cells_compared']} cells of two traces"
        else:
            did = f"ran {known.get('cells_checked')} of {known.get('cells_expected')} cells again on one input"
        return (
            f"This rests on the bisection of {known.get('time')}, which {did}; "
            "the bands of the maps only show where to look."
        )

    def to_json(self) -> dict[str, Any] | None:
        """Return the bisection as `bisect --json` prints it, without its cells; None if there is none."""
        if self.bisection is None:
            return None
        return {name: value for name, value in self.bisection.items() if name not in ("time", "kind", "text", "a", "b")}
