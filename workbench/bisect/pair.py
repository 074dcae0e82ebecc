"""What a pair asks: two models, a model and a recorded trace, or two traces; each is answered in its own way.

The figures and the words are always those of A and B as they were given, whichever of the two is the trace.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from kernels.errors import WorkbenchError
from kernels.forward import check_tokens
from kernels.paths import numeric_path
from store.artifact import Artifact
from store.errors import StoreError
from store.text import printable
from store.traces.trace import Trace
from store.traces.vocabulary import with_vocabulary
from workbench.bisect.models.bisection import bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.traces.announced import Progress
from workbench.bisect.traces.bisection import bisect_trace
from workbench.bisect.traces.statistics_only import compare_traces
from workbench.bisect.traces.trace_check import TraceCheck
from workbench.bisect.verdict import Bisection, Culprit
from workbench.cells.compare import PopulationError
from workbench.pair.engines import arithmetic_of
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Pair


@dataclass(frozen=True, slots=True)
class Answer:
    """A bisection and what it was about.

    paths : numeric path of A and of B, None for a trace that does not say.
    compared : cells of two traces that were set side by side; None where stages were run again.
    """

    pair: Pair
    paths: tuple[str | None, str | None]
    bisection: Bisection
    compared: int | None = None


def bisect_pair(pair: Pair, progress: Progress = lambda *_: None) -> Answer:
    """Find the first cell of a pair that is really wrong."""
    with np.errstate(all="ignore"):  # damaged weights hold values of any size; what is not finite is told as such
        answer = _bisected(pair, progress)
    pair.require_unchanged()
    return answer


def _bisected(pair: Pair, progress: Progress) -> Answer:
    if pair.models is not None:
        return _two_models(pair, progress)
    if pair.traces is not None:
        a, b = pair.traces
        bisection, compared = compare_traces(a, b, None if pair.tokens is None else pair.tokens.ids)
        return Answer(pair, (_recorded_path(a), _recorded_path(b)), bisection, compared)
    return _model_and_trace(pair, progress)


def _two_models(pair: Pair, progress: Progress) -> Answer:
    a, b = model_sides(pair)
    paths = a.path.name, b.path.name
    try:
        pair.require_one_model()
    except PopulationError as error:
        return Answer(pair, paths, _uncomparable(error))
    found = bisect_artifacts(a, b, pair.ids, progress)
    return Answer(pair, paths, replace(found, notes=(*found.notes, *pair.notes)))


def model_sides(pair: Pair) -> tuple[Side, Side]:
    """Both sides of a pair of models as they run; WorkbenchError if one of them is a trace."""
    if pair.models is None:
        trace = pair.a if isinstance(pair.a, Trace) else pair.b
        raise WorkbenchError(f"{printable(trace.path.name)} is a recorded trace and cannot be run; give a model")
    paths = (numeric_path(side.numeric_path) for side in pair.sides)
    a, b = (Side(model, path) for model, path in zip(pair.models, paths, strict=True))
    return a, b


def trace_check(pair: Pair) -> TraceCheck:
    """The trace of a pair of which one side is a model, bound to that model.

    Raises PopulationError or StoreError where the two cannot belong together.
    """
    swapped = isinstance(pair.a, Trace)
    model, trace = (pair.b, pair.a) if swapped else (pair.a, pair.b)
    assert isinstance(model, Artifact)
    assert isinstance(trace, Trace)
    asked, ids = pair.asked[1 if swapped else 0], pair.ids
    arithmetic = arithmetic_of(trace, asked)
    check_tokens(ids, model.config)
    side: Literal["A", "B"] = "A" if swapped else "B"
    pair.require_one_model()
    bound, notes = trace.bind(ids, model.config), tuple[str, ...]()
    assert bound.config is not None
    sizes = model.config.vocab_size, bound.config.vocab_size
    if sizes[0] != sizes[1]:
        check_tokens(ids, bound.config)
        notes = (f"The model has {sizes[0]} tokens and the trace {sizes[1]}; logits were compared over {min(sizes)}.",)
        model, bound = model.with_vocabulary(min(sizes)), with_vocabulary(bound, min(sizes))
    return TraceCheck(model, bound, arithmetic, asked or arithmetic.path.name, side, ids, notes)


def _model_and_trace(pair: Pair, progress: Progress) -> Answer:
    try:
        check = trace_check(pair)
    except (PopulationError, StoreError) as error:
        return Answer(pair, pair.asked, _uncomparable(error))
    found = bisect_trace(check.reader(progress))
    paths = check.arithmetic.path.name, check.model_path
    return Answer(pair, paths if check.side == "A" else paths[::-1], _told(found, check))


def _told(found: Bisection, check: TraceCheck) -> Bisection:
    """The verdict on a trace, in words of A and B, with what the trace leaves unsaid."""
    trace, own, verdict = check.trace, check.arithmetic.path.name, found.verdict
    # The last of its own notes is the reason where there is no answer, and the reason comes first.
    notes = [
        *reversed(found.notes),
        *(
            [found.bits.words(printable(trace.engine, 40))]
            if found.bits is not None and check.arithmetic.path.engine == "ggml"
            else ()
        ),
        *check.notes,
        *_other_file(check),
        *check.arithmetic.notes,
        *trace.notes,
        *trace.not_carried,
        *check.model.guesses,
    ]
    if check.model_path != own:
        notes.append(f"The trace was checked with its own arithmetic, path {own}, and not with {check.model_path}.")
        verdict = "numerics_only" if verdict == "alike" else verdict

    def worded(culprit: Culprit) -> Culprit:
        words = f"in {check.side}, the {printable(trace.engine, 40)} trace: {culprit.explanation}"
        return replace(culprit, explanation=words)

    checked = tuple(replace(cell, inherited=None) for cell in found.checked)  # what came in is not known
    if check.side == "A":  # the trace is judged as B
        checked = tuple(replace(cell, a_off=cell.b_off, b_off=cell.a_off) for cell in checked)
    return replace(
        found,
        verdict=verdict,
        culprit=None if found.culprit is None else worded(found.culprit),
        others=tuple(map(worded, found.others)),
        checked=checked,
        notes=tuple(notes),
    )


def _other_file(check: TraceCheck) -> Iterator[str]:
    """Say so where a trace names another file than the model it is checked with."""
    trace = check.trace
    recorded = trace.settings.get("model_sha256") if trace.record is None else trace.record.sha256
    if isinstance(recorded, str) and recorded != sha256_of(check.model):
        yield (
            f"{check.side} was recorded from another file (sha256 {printable(recorded[:16], 40)}…) than the model "
            "it is checked with: whatever the two files have unlike counts as the trace's mistake."
        )


def _uncomparable(error: WorkbenchError) -> Bisection:
    return Bisection("uncomparable", None, None, (), None, (), (str(error),))


def _recorded_path(trace: Trace) -> str | None:
    return None if trace.record is None else trace.record.numeric_path
