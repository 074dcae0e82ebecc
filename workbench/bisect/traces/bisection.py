"""Bisecting an artifact against a recorded trace: our operation on the trace's own recorded inputs, stage by stage.

Every stage is judged by itself, so nothing is inherited and two faults that cancel are both seen. What the trace does
not hold is run from what it holds, and judged where the next recorded stage shows it. What no stage shows is never
called right.
"""

from dataclasses import replace

import numpy as np

from kernels.stages import Site
from workbench.bisect.traces.bits import BitCount
from workbench.bisect.traces.coverage import Coverage
from workbench.bisect.traces.diagnosis import diagnose
from workbench.bisect.traces.span_causes import SpanCauses
from workbench.bisect.traces.span_sight import look_through
from workbench.bisect.traces.stages import Checked, Reader, recorded_stages
from workbench.bisect.traces.survey import PART, Survey, span_cost
from workbench.bisect.verdict import Bisection, Culprit, Verdict, same_setting
from workbench.cells.decomposition import Decomposition


def bisect_trace(reader: Reader) -> Bisection:
    """Check every recorded stage against our operation on the recorded inputs; find all that are wrong."""
    survey, coverage, bits = Survey(reader), Coverage.of(reader), BitCount()
    checked, ends = [], set[Site]()
    for stage in recorded_stages(reader):
        checked.append(_decomposition(stage))
        if stage.spanned:
            ends.add(stage.site)
        survey.see(stage)
        bits.see(stage)
        coverage.see(stage)
    if not checked:
        none = "no stage of the trace could be checked"
        return Bisection("uncomparable", None, None, (), None, (), (none,), len(coverage.cells))
    verdict, culprits, note = _judged(reader, survey, checked)
    if verdict not in ("divergent", "undecided"):
        hidden = _hidden(reader, ends, survey, coverage)
        verdict, culprits = ("divergent", hidden) if hidden else (verdict, culprits)
    reasons, known = [note] if note else [], [*coverage.sentences()]
    notes = [*known, *reasons]  # the reason of an answer is the last of them
    if coverage.missing and verdict not in ("divergent", "undecided"):
        verdict, notes = "undecided", [*reasons, *known]
    found = _answer(verdict, culprits, checked, tuple(notes))
    return replace(found, cells=len(coverage.cells), cells_in_spans=coverage.in_spans, bits=bits.found())


def _judged(reader: Reader, survey: Survey, checked: list[Decomposition]) -> tuple[Verdict, list[Culprit], str | None]:
    """The verdict on the stages that were checked, who is to blame or where it begins, and the reason."""
    culprits = _culprits(reader, survey)
    if survey.contradicts_itself(culprits):
        note = "Most stages are wrong, each in another way, plain additions among them: the trace contradicts itself."
        return "undecided", culprits[:1], note
    excused = [culprit for culprit in culprits if survey.excuse(culprit)]
    blamed = [culprit for culprit in culprits if culprit not in excused]
    verdict, reason = survey.verdict(excused) or ("numerics_only", None)
    if blamed:
        return "divergent", blamed, reason
    if verdict == "numerics_only" and all(cell.local == 0 for cell in checked):
        verdict = "alike"
    return verdict, excused[:1] if verdict == "undecided" else [], reason


def _hidden(reader: Reader, ends: set[Site], survey: Survey, coverage: Coverage) -> list[Culprit]:
    """The mistakes that only whole spans show, by their ends; takes note of the spans that could hide one."""
    found: list[Culprit] = []
    for stage in recorded_stages(reader, ends) if ends else ():
        if stage.spanned:
            culprit, blur = look_through(reader, _with_cost(reader, survey, stage))
            if blur is not None:
                coverage.blur(stage, blur)
            if culprit is not None and not any(_same_mistake(culprit, known) for known in found):
                found.append(culprit)
    return found


def _with_cost(reader: Reader, survey: Survey, stage: Checked, times: float = 1.0) -> Checked:
    """The stage with what rounding of the weights may add, where that is what the trace has."""
    return replace(stage, noise=stage.noise + times * span_cost(reader, stage)) if survey.rounded else stage


def _answer(
    verdict: Verdict, culprits: list[Culprit], checked: list[Decomposition], notes: tuple[str, ...]
) -> Bisection:
    """The answer; where it is undecided, the first of the culprits tells where the difference begins."""
    first = culprits[0] if culprits else None
    site = None if first is None else first.site
    accuser = None if first is None else first.measured_at
    floor = next((cell.floor for cell in checked if cell.site == accuser), max(cell.floor for cell in checked))
    if verdict != "divergent":
        return Bisection(verdict, site, None, (), floor, tuple(checked), notes)
    return Bisection(verdict, site, first, tuple(culprits[1:]), floor, tuple(checked), notes)


def _culprits(reader: Reader, survey: Survey) -> list[Culprit]:
    """The mistakes behind all stages that are wrong and not excused, each once."""
    culprits: list[Culprit] = []
    wrong = survey.wrong.keys() - survey.rounded
    if not wrong:
        return culprits
    spans = SpanCauses(reader)
    for stage in recorded_stages(reader, wrong):
        if stage.wrong and stage.site not in survey.rounded:
            found = [] if stage.behind_product else diagnose(reader, stage, bool(survey.rounded), culprits)
            if stage.spanned and all(culprit.cause == "unknown" for culprit in found):
                found = [spans.culprit(_with_cost(reader, survey, stage, PART))]
            for culprit in found:
                if not any(_same_mistake(culprit, known) for known in culprits):
                    culprits.append(culprit)
    return survey.misread_once(culprits)


def _decomposition(stage: Checked) -> Decomposition:
    """Every stage has its own recorded inputs, so all of its difference is local."""
    gap, size, noise = (float(np.sqrt(square)) for square in stage.units[1:])
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
