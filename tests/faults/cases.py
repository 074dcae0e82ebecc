"""What a case is, what it expects, and how an answer is judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kernels.stages import Site
from workbench.bisect.question import bisect_pair, open_pair
from workbench.bisect.verdict import Bisection

HEALTHY = ("alike", "numerics_only", "quantization_only")


@dataclass(frozen=True)
class Expected:
    """What a right answer names. Several cells, factors or causes: nothing in the pair tells them apart.

    also : causes that must be among the further culprits.
    """

    cells: tuple[Site, ...]
    factors: tuple[str, ...]
    causes: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A pair on disk. visible : False where the mistake stays within what the pair must differ by anyway."""

    a: Path
    b: Path
    tokens: tuple[int, ...]
    visible: bool = True


@dataclass(frozen=True)
class Case:
    """A planted mistake (or, with no expectation, a healthy pair) in one place of one model in one pair of formats."""

    kind: str
    place: str
    model: str
    formats: str
    expected: Expected | None
    prepare: Callable[[Path], Prepared] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.kind} {self.place} {self.model} {self.formats}"

    def run(self, folder: Path) -> "Outcome":
        """Write the pair, bisect it, judge the answer."""
        pair = self.prepare(folder)
        try:
            found = bisect_pair(open_pair((pair.a, pair.b), (None, None), pair.tokens, None)).bisection
        except Exception as error:
            return Outcome(self, None, pair.visible, f"{type(error).__name__}: {error}")
        return Outcome(self, found, pair.visible)


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
            return self.found.verdict in HEALTHY
        if culprit is None:
            return not self.visible and self.found.verdict in HEALTHY
        further = {other.cause for other in self.found.others}
        return (
            culprit.site in expected.cells
            and culprit.factor in expected.factors
            and all(cause in further | {culprit.cause} for cause in expected.also)
        )

    @property
    def cause_right(self) -> bool:
        """The cause is right as well."""
        if not self.right or self.found is None:
            return False
        return self.found.culprit is None or self.found.culprit.cause in (self.case.expected or _NOTHING).causes


_NOTHING = Expected((), (), ())
