"""What a bisection answers."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from kernels.stages import Site
from workbench.cells.decomposition import Decomposition

Verdict = Literal["alike", "numerics_only", "quantization_only", "divergent", "undecided", "uncomparable"]
EXIT_CODES: dict[Verdict, int] = {  # 0 nothing is broken, 1 something is, 2 not answered
    "alike": 0,
    "numerics_only": 0,
    "quantization_only": 0,
    "divergent": 1,
    "undecided": 2,
    "uncomparable": 2,
}
Factor = Literal["weights", "numerics", "config", "graph"]
Setting = tuple[float | str, ...]
_SAME_NUMBER = 0.05  # of a number, that one setting may be found as in two layers


def same_setting(one: Setting, other: Setting) -> bool:
    """Whether two findings are of one setting; an empty one leaves open what is wrong about it."""
    if not one or not other:
        return True
    return len(one) == len(other) and all(
        x == y if isinstance(x, str) or isinstance(y, str) else math.isclose(x, y, rel_tol=_SAME_NUMBER)
        for x, y in zip(one, other, strict=True)
    )


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first cell that is really wrong.

    shown_at : the recorded stage that shows it, where it was not recorded itself.
    setting : what is wrong about a setting of the run, which shows in every layer; empty where it is left open.
    """

    site: Site
    factor: Factor
    cause: str
    explanation: str
    tensor: str | None = None
    residual: float | None = None
    shares: dict[str, float | None] = field(default_factory=dict)
    runner_up: dict[str, Any] | None = None
    shown_at: Site | None = None
    setting: Setting = ()

    @property
    def measured_at(self) -> Site:
        """The checked cell that accuses it."""
        return self.shown_at or self.site


@dataclass(frozen=True, slots=True)
class Bisection:
    """The answer: verdict, culprit, further culprits, and what it rests on.

    notes : what the answer does not cover, in sentences (a fault that this prompt does not show, ambiguity).
    cells : how many cells the pair has; those in `checked` were run again. cells_in_spans : those of a trace that were
    not recorded, but lie between recorded ones that were checked.
    """

    verdict: Verdict
    first_divergent: Site | None
    culprit: Culprit | None
    others: tuple[Culprit, ...]
    floor: float | None
    checked: tuple[Decomposition, ...]
    notes: tuple[str, ...] = ()
    cells: int | None = None
    cells_in_spans: int = 0

    @property
    def covered(self) -> int:
        """Cells that were checked, by themselves or inside a span."""
        return len(self.checked) + self.cells_in_spans

    @property
    def differs(self) -> bool:
        """Whether something is wrong (exit code 1)."""
        return self.verdict == "divergent"


def culprit_json(culprit: Culprit) -> dict[str, Any]:
    """A culprit as `bisect --json` prints it."""
    shown = culprit.shown_at
    return {
        "layer": culprit.site.layer,
        "stage": culprit.site.stage,
        "factor": culprit.factor,
        "cause": culprit.cause,
        "tensor": culprit.tensor,
        "explanation": culprit.explanation,
        "residual": culprit.residual,
        "shares": culprit.shares,
        "runner_up": culprit.runner_up,
        "shown_at": None if shown is None else {"layer": shown.layer, "stage": shown.stage},
    }


def bisection_json(answer: Bisection) -> dict[str, Any]:
    """The answer as `bisect --json` prints it; contract: schemas/bisect.schema.json."""
    first = answer.first_divergent
    return {
        "verdict": answer.verdict,
        "first_divergent": None if first is None else {"layer": first.layer, "stage": first.stage},
        "culprit": None if answer.culprit is None else culprit_json(answer.culprit),
        "others": [culprit_json(other) for other in answer.others],
        "floor": answer.floor,
        "cells_checked": len(answer.checked),
        "cells_in_spans": answer.cells_in_spans,
        "cells_expected": answer.cells,
        "notes": list(answer.notes),
        "cells": [{"layer": cell.site.layer, "stage": cell.site.stage, **cell.to_json()} for cell in answer.checked],
    }
