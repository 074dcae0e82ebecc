"""Bisecting an artifact against a recorded trace: our operation on the trace's own recorded inputs, stage by stage.

Every stage is judged by itself, so nothing is inherited and two faults that cancel are both seen. What the trace does
not hold is computed from what it holds, and said; a stage that cannot be checked is never called right.
"""

import numpy as np

from workbench.bisect.diagnosis import diagnose
from workbench.bisect.excuses import Excuses
from workbench.bisect.mistakes import LIMIT
from workbench.bisect.recorded import Checked, Reader, Recorded, recorded_stages
from workbench.bisect.verdict import Bisection, Culprit, Decomposition

__all__ = ["LIMIT", "Reader", "Recorded", "bisect_trace"]


def bisect_trace(reader: Reader) -> Bisection:
    """Check every recorded stage against our operation on the recorded inputs; find all that are wrong."""
    notes: list[str] = []
    excuses = Excuses()
    checked = []
    for stage in recorded_stages(reader, notes):
        checked.append(_decomposition(stage))
        excuses.see(stage)
    if not checked:
        return Bisection("uncomparable", None, None, (), None, (), (*notes, "no stage of the trace could be checked"))
    culprits: list[Culprit] = []
    first = None
    if excuses.wrong:
        for stage in recorded_stages(reader, []):
            if stage.wrong and not excuses.explain(stage):
                first = first or stage.site
                for culprit in diagnose(reader, stage):
                    if not any(_same_mistake(culprit, known) for known in culprits):
                        culprits.append(culprit)
    notes += excuses.notes()
    if culprits and excuses.contradicts_itself(culprits):
        return Bisection("undecided", first, None, (), None, tuple(checked), tuple(notes))
    if culprits:
        floor = next(cell.floor for cell in checked if cell.site == first)
        return Bisection("divergent", first, culprits[0], tuple(culprits[1:]), floor, tuple(checked), tuple(notes))
    floor = max(cell.floor for cell in checked)
    verdict = "quantization_only" if excuses.requantized else "numerics_only"
    if all(cell.local == 0 for cell in checked):
        verdict = "alike"
    return Bisection(verdict, None, None, (), floor, tuple(checked), tuple(notes))  # type: ignore[arg-type]


def _decomposition(stage: Checked) -> Decomposition:
    """Every stage has its own recorded inputs, so all of its difference is local."""
    y, right = stage.y.astype(np.float64), stage.right.astype(np.float64)
    size = float(np.linalg.norm(y))
    gap, noise = float(np.linalg.norm(y - right)), float(np.linalg.norm(stage.noise))
    local = gap / size if size else (0.0 if gap == 0 else None)
    return Decomposition(stage.site, local, local, 0.0, LIMIT * noise / size if size else 0.0, 0.0, stage.off)


def _same_mistake(one: Culprit, other: Culprit) -> bool:
    """One setting that is wrong in every layer is one mistake."""
    everywhere = one.factor in ("config", "graph", "numerics") and one.tensor is None
    return everywhere and (one.cause, one.factor) == (other.cause, other.factor) and one.cause != "unknown"
