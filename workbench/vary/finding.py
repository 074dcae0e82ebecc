"""What is said of two runs that differ in one setting."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from workbench.cells.decomposition import finite
from workbench.vary.beside import Beside
from workbench.vary.change import Change

Verdict = Literal["alike", "numerics_only", "divergent", "undecided"]
_WORST: tuple[Verdict, ...] = ("divergent", "undecided", "numerics_only", "alike")
EXIT_CODES: dict[Verdict, int] = {"alike": 0, "numerics_only": 0, "divergent": 1, "undecided": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """A change on one prompt. prompt : its number.

    before, after : the setting's values in words. why : what is wrong, or why there is no answer, in one sentence.
    floors : the first difference, in what rounding can cause there. most : the largest that any stage of the changed
    run adds by itself, likewise.
    """

    change: Change
    prompt: int
    verdict: Verdict
    before: str | None = None
    after: str | None = None
    why: str | None = None
    beside: Beside | None = None
    floors: float | None = None
    most: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as `sweep --vary --json` prints it."""
        found = self.beside
        first = None if found is None or found.first is None else found.first.to_json(self.floors)
        figures = {} if found is None or found.logits is None else found.logits.to_json()
        return {
            "setting": self.change.name,
            "prompt": self.prompt,
            "before": self.before,
            "after": self.after,
            "verdict": self.verdict,
            "why": self.why,
            "stages": 0 if found is None else found.stages,
            "identical": 0 if found is None else found.identical,
            "first": first,
            "most_floors": finite(self.most),
            "logits": figures or None,
        }


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that counts among several: something wrong, else something unknown, else a difference."""
    return min(verdicts, key=_WORST.index)
