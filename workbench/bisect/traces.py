"""Bisecting an artifact against a recorded trace: our operation on the trace's own recorded inputs, stage by stage.

Every stage is judged by itself, so nothing is inherited and two faults that cancel are both seen. What the trace does
not hold is computed from what it holds, and said; a stage that cannot be checked is never called right.
"""

import numpy as np

from workbench.bisect.diagnosis import diagnose
from workbench.bisect.excuses import Excuses
from workbench.bisect.recorded import Checked, Reader, recorded_stages
from workbench.bisect.verdict import Bisection, Culprit, Decomposition, Verdict, same_setting


def bisect_trace(reader: Reader) -> Bisection:
    """Check every recorded stage against our operation on the recorded inputs; find all that are wrong."""
    notes: list[str] = []
    excuses = Excuses(reader)
    checked = []
    for stage in recorded_stages(reader, notes):
        checked.append(_decomposition(stage))
        excuses.see(stage)
    if not checked:
        return Bisection("uncomparable", None, None, (), None, (), (*notes, "no stage of the trace could be checked"))
    culprits = _culprits(reader, excuses)
    if excuses.contradicts_itself(culprits):
        note = "Most stages are wrong, each in another way, plain additions among them: the trace contradicts itself."
        return _answer("undecided", culprits[:1], checked, [*notes, note])
    excused = [culprit for culprit in culprits if excuses.excuse(culprit)]
    blamed = [culprit for culprit in culprits if culprit not in excused]
    verdict, note = excuses.verdict(excused) or ("numerics_only", "")
    notes += [note] if note else []
    if blamed:
        return _answer("divergent", blamed, checked, notes)
    if verdict == "numerics_only" and all(cell.local == 0 for cell in checked):
        verdict = "alike"
    return _answer(verdict, excused[:1] if verdict == "undecided" else [], checked, notes)


def _answer(verdict: Verdict, culprits: list[Culprit], checked: list[Decomposition], notes: list[str]) -> Bisection:
    """The answer; where it is undecided, the first of the culprits tells where the difference begins."""
    first = culprits[0] if culprits else None
    site = None if first is None else first.site
    floor = next((cell.floor for cell in checked if cell.site == site), max(cell.floor for cell in checked))
    if verdict != "divergent":
        return Bisection(verdict, site, None, (), floor, tuple(checked), tuple(notes))
    return Bisection(verdict, site, first, tuple(culprits[1:]), floor, tuple(checked), tuple(notes))


def _culprits(reader: Reader, excuses: Excuses) -> list[Culprit]:
    """The mistakes behind all stages that are wrong and not excused, each once."""
    culprits: list[Culprit] = []
    if not excuses.wrong.keys() - excuses.rounded:
        return culprits
    for stage in recorded_stages(reader, []):
        if stage.wrong and stage.site not in excuses.rounded:
            for culprit in diagnose(reader, stage, bool(excuses.rounded), culprits):
                if not any(_same_mistake(culprit, known) for known in culprits):
                    culprits.append(culprit)
    return excuses.misread_once(culprits)


def _decomposition(stage: Checked) -> Decomposition:
    """Every stage has its own recorded inputs, so all of its difference is local."""
    y, right = stage.y.astype(np.float64), stage.right.astype(np.float64)
    size = float(np.linalg.norm(y))
    gap, noise = float(np.linalg.norm(y - right)), float(np.linalg.norm(stage.noise))
    local = gap / size if size else (0.0 if gap == 0 else None)
    return Decomposition(stage.site, local, local, 0.0, noise / size if size else 0.0, 0.0, stage.off)


def _same_mistake(one: Culprit, other: Culprit) -> bool:
    """One setting that is wrong in every layer is one mistake; two settings are two, even under one name."""
    everywhere = one.factor in ("config", "graph", "numerics") and one.tensor is None and one.cause != "unknown"
    return (
        everywhere
        and (one.cause, one.factor) == (other.cause, other.factor)
        and (same_setting(one.setting, other.setting))
    )
