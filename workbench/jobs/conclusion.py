"""What a session concludes: the verdict of its bisection, and only where there is none what its comparison shows."""

from dataclasses import dataclass
from typing import Any

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.bisect.verdict import EXIT_CODES
from workbench.cells.compared_cells import NOT_COMPARABLE, ComparedCells
from workbench.cells.comparison import Comparison
from workbench.jobs.bisected import Bisected, standing_bisection
from workbench.session.session import Session


@dataclass(frozen=True, eq=False)
class Conclusion:
    """A session's comparison, and the bisection that stands for the same files, if there is one."""

    comparison: ComparedCells
    bisection: Bisected | None

    @classmethod
    def of(cls, session: Session, comparison: Comparison) -> "Conclusion":
        """Conclude from what a session holds."""
        return cls(comparison, standing_bisection(session, {"a": comparison.a, "b": comparison.b}))

    def exit_code(self) -> int:
        """0 alike, 1 different, 2 not answered."""
        if self.bisection is None:
            return self.comparison.exit_code()
        return EXIT_CODES[self.bisection.found.verdict]

    def require_answer(self) -> None:
        """Raise WorkbenchError, saying why, where there is no answer."""
        if self.bisection is None:
            self.comparison.require_answer()
        elif self.exit_code() == NOT_COMPARABLE:
            notes = self.bisection.found.notes
            why = f": {printable(notes[0], 1000)}" if notes else ""
            raise WorkbenchError(f"{self.bisection.found.verdict}{why}")

    def headline(self) -> str:
        """Return the verdict in one plain sentence; where nobody has bisected, what the bands show."""
        return _compared(self.comparison) if self.bisection is None else self.bisection.headline

    def lines(self) -> list[str]:
        """Return the bisection's answer in words, verdict first; nothing if there is none."""
        return [] if self.bisection is None else [printable(x, 1000) for x in self.bisection.text.splitlines()]

    def rests_on(self) -> str:
        """Say what the verdict rests on."""
        if self.bisection is None:
            bands = " and ".join(metric.label for metric in self.comparison.judges)
            return f"This rests on the bands of {bands} alone: nobody has bisected the pair."
        known, found = self.bisection, self.bisection.found
        if known.cells_compared is not None:
            did = f"compared {known.cells_compared} cells of two traces"
        else:
            did = f"ran {len(found.checked)} of {found.cells} cells again on one input"
        return (
            f"This rests on the bisection of {printable(known.time, 40)}, which {did}; "
            "the bands of the maps only show where to look."
        )

    def to_json(self) -> dict[str, Any] | None:
        """Return the bisection as `bisect --json` prints it, without its cells; None if there is none."""
        return None if self.bisection is None else self.bisection.to_json()


def _compared(comparison: ComparedCells) -> str:
    """Say whether two runs agree within the bands, and if not where they part."""
    if comparison.outside:
        cell = comparison.outside[0]
        outside_in = [metric for metric in comparison.judges if cell in comparison.outside_in(metric)]
        values = " and ".join(comparison.describe(cell, metric).removeprefix(f"{cell.site}, ") for metric in outside_in)
        return f"The two runs part at {cell.site}: {values} is the first outside the band."
    if unlike := ", ".join(comparison.config_differences):
        return f"No cell is outside the bands, but the models are configured differently: {unlike}."
    if comparison.exit_code() == NOT_COMPARABLE:
        compared, expected = comparison.counted
        return (
            f"The two runs cannot be compared in full, only in {compared} of {expected} cells; the sentences above the "
            "maps say why."
        )
    if all(cell.status in ("identical", "absent") for cell in comparison.cells):
        return "The two runs are identical."
    compared, expected = comparison.counted
    part = "" if compared == expected else f", of the {compared} of {expected} that could be compared"
    return f"No cell is outside the bands{part}. They are wide: this alone does not prove that nothing is wrong."
