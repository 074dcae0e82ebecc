"""What a case is, what it expects, and how an answer is judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kernels.stages import Site
from workbench.bisect.pair import bisect_pair, open_pair
from workbench.bisect.verdict import Bisection, Culprit

HEALTHY = ("alike", "numerics_only", "quantization_only")


@dataclass(frozen=True)
class Expected:
    """What a right answer names. Several cells, factors or causes: nothing in the pair tells them apart.

    also : cells that must be among the further culprits. further : causes that must be among theirs. tensor : of the
    culprit, where it has one.
    """

    cells: tuple[Site, ...]
    factors: tuple[str, ...]
    causes: tuple[str, ...]
    also: tuple[Site, ...] = ()
    tensor: str | None = None
    further: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A pair on disk. visible : False where the mistake stays within what the pair must differ by anyway."""

    a: Path
    b: Path
    tokens: tuple[int, ...]
    visible: bool = True


@dataclass(frozen=True)
class Case:
    """A planted mistake (or, with no expectation, a healthy pair) in one place of one model in one pair of formats.

    verdicts : those that are right where there is nothing to blame.
    """

    kind: str
    place: str
    model: str
    formats: str
    expected: Expected | None
    prepare: Callable[[Path], Prepared] = field(repr=False)
    verdicts: tuple[str, ...] = HEALTHY

    @property
    def name(self) -> str:
        return f"{self.kind} {self.place} {self.model} {self.formats}"

    def run(self, folder: Path) -> "Outcome":
        """Write the pair, bisect it, judge the answer."""
        visible = True
        try:
            pair = self.prepare(folder)
            visible = pair.visible
            found = bisect_pair(open_pair((pair.a, pair.b), (None, None), pair.tokens, None)).bisection
        except Exception as error:
            return Outcome(self, None, visible, f"{type(error).__name__}: {error}")
        return Outcome(self, found, visible)


@dataclass(frozen=True)
class Outcome:
    """An answer beside what was expected."""

    case: Case
    found: Bisection | None
    visible: bool
    error: str = ""

    @property
    def right(self) -> bool:
        """Cell and factor are right, or a healthy pair was left alone."""
        if self.found is None:
            return False
        culprit, expected = self.found.culprit, self.case.expected
        if expected is None:
            return self.found.verdict in self.case.verdicts
        if culprit is None:
            return not self.visible and self.found.verdict in HEALTHY
        further = {other.site for other in self.found.others}
        return (
            culprit.site in expected.cells
            and culprit.factor in expected.factors
            and further >= set(expected.also)
            and expected.tensor in (None, culprit.tensor)
        )

    @property
    def cause_right(self) -> bool:
        """The cause is right as well."""
        if not self.right or self.case.expected is None:
            return self.right
        if self.culprit is None:
            return True
        further = {other.cause for other in self.found.others}
        return self.culprit.cause in self.case.expected.causes and further >= set(self.case.expected.further)

    @property
    def culprit(self) -> Culprit | None:
        return None if self.found is None else self.found.culprit

    @property
    def verdict(self) -> str:
        return "failed" if self.found is None else self.found.verdict

    @property
    def expected_cause(self) -> str:
        return self.case.expected.causes[0] if self.case.expected is not None else "none"

    @property
    def found_cause(self) -> str:
        """Its cause; where several are right, as good as the first of them."""
        if self.culprit is None:
            return self.verdict
        return self.expected_cause if self.cause_right else self.culprit.cause

    def row(self) -> str:
        """One line: expected and found."""
        mark = "ok   " if self.cause_right else "cause" if self.right else "WRONG"
        expected, culprit = self.case.expected, self.culprit
        wanted = "healthy"
        if expected is not None:
            hidden = "" if self.visible else " (hidden)"
            wanted = f"{expected.cells[0]} {expected.factors[0]} {'|'.join(expected.causes)}{hidden}"
        got = self.error or self.verdict
        if culprit is not None:
            got = f"{culprit.site} {culprit.factor} {culprit.cause}"
            got += "" if expected is None or expected.tensor in (None, culprit.tensor) else f" in {culprit.tensor}"
        return f"{mark} {self.case.name}: {wanted} -> {got}"

    def record(self) -> dict[str, object]:
        """The line for `--json`."""
        return {"case": self.case.name, "right": self.right, "cause_right": self.cause_right, "row": self.row()}
