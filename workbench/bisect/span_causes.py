"""From a span whose end is wrong to the mistake inside that makes it so.

A stage that was not recorded shows nothing by itself. But every mistake of the catalogue predicts what a stage gives
on, and the rest of the span makes the end of that: the one that reproduces the recorded end down to its floor is named,
at the stage where it sits. A setting is wrong in every stage that uses it, so a mistake is put into all stages of a
kind, then into those of one layer, then into one alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from kernels.paths import Array
from kernels.stages import Site
from workbench.bisect.diagnosis import AMBIGUOUS, not_finite, question_of, runner_up, whole_share
from workbench.bisect.floor import MATMUL_INPUT
from workbench.bisect.recorded import Checked, Reader
from workbench.bisect.runtime_mistakes.catalogue import mistakes
from workbench.bisect.runtime_mistakes.mistake import FREE, NAMED, Mistake, Question, ranked
from workbench.bisect.spans import Step, order
from workbench.bisect.verdict import Culprit
from workbench.metrics import format_value
from workbench.stage_tensors import stage_tensors

# Stages that one mistake concerns at once, those first that ports get wrong most.
_KINDS: tuple[tuple[str, ...], ...] = (
    ("qkv_bias",),
    ("q_post_rope", "k_post_rope"),
    ("attention",),
    ("ffn_silu",),
    ("ffn_swigl",),
    ("ffn_out",),
    ("attn_out",),
    ("post_attn_residual",),
    ("post_ffn_residual",),
    ("attn_norm", "ffn_norm", "final_norm"),
    *((stage,) for stage in ("qkv_matmul", "ffn_gate", "ffn_up", "embedding", "lm_head")),
)
_MOST_WORK = 1e11  # multiplications that are spent on looking for causes in all spans of a trace
_LEAST_STAGE = 1e5  # that running any stage takes as long as
_Key = tuple[tuple[str, ...], str, str]  # stages, cause, words


@dataclass(slots=True)
class SpanCauses:
    """What is tried, and how much may still be. found : mistakes of the spans before, which come first in the next."""

    reader: Reader
    left: float = _MOST_WORK
    found: list[_Key] = field(default_factory=list)

    def culprit(self, checked: Checked) -> Culprit:
        """The mistake that makes the recorded end of a span, or the end itself with a cause that is not known."""
        question = replace(question_of(self.reader, checked), rounding=0.0, restored=None)
        if not np.isfinite(question.y).all():
            return not_finite(question)
        where = way_of(checked)
        with np.errstate(all="ignore"):
            tried = ranked(question, self._known(checked)) if self.found else []
            if not (tried and tried[0][0]):
                tried = ranked(question, self._all(checked, question))
        size = float(np.linalg.norm(question.y)) or 1.0
        if not (tried and tried[0][0]):
            runner = runner_up(tried[0], size) if tried else None
            words = f"{where}: the end is {_off(checked)}, and no known mistake in one kind of stage reproduces it"
            return Culprit(checked.site, "graph", "unknown", words, None, question.gap / size, {}, runner)
        _, left, best = tried[0]
        self.found.append(_key(best))
        words = f"{where}: {best.explanation}"
        most = AMBIGUOUS * max(left, 1e-12 * size)
        close = [entry for entry in tried[1:] if entry[0] and entry[1] <= most and _place(entry[2]) != _place(best)]
        if close:
            words += "; as well explained by " + ", ".join(f"{m.site} {m.cause}" for _, _, m in close[:2])
        runner = next((runner_up(entry, size) for entry in tried[1:] if entry[2].cause != best.cause), None)
        site = best.site or checked.site
        return Culprit(site, best.factor, best.cause, words, best.tensor, left / size, whole_share(best), runner)

    def _known(self, checked: Checked) -> Iterator[Mistake]:
        """The mistakes that were found before, in all the stages of this span that could have them."""
        steps = self._steps(checked)
        for stages, cause, words in self.found:
            place = frozenset(site for site in steps if site.stage in stages)
            yield from (found for found in self._in(checked, steps, place) if _key(found)[1:] == (cause, words))

    def _all(self, checked: Checked, question: Question) -> Iterator[Mistake]:
        """Mistakes of the end, which was recorded, and of every stage that was not."""
        for mistake in mistakes(question, imagined=True):
            if mistake.rank != FREE and not mistake.rounded:
                yield replace(mistake, site=mistake.site or checked.site)
        steps = self._steps(checked)
        for place in _places(checked):
            yield from self._in(checked, steps, place)

    def _steps(self, checked: Checked) -> dict[Site, Step]:
        """All stages inside a span as they should be."""
        steps: dict[Site, Step] = {}

        def listen(step: Step) -> Array:
            steps[step.site] = step
            return step.y

        checked.span.run(self.reader, listen)
        return steps

    def _in(self, checked: Checked, steps: dict[Site, Step], place: frozenset[Site]) -> Iterator[Mistake]:
        """Every mistake of the first of some stages, made in all of them, with the end that comes of it."""
        if not place or self.left <= 0:
            return
        first = min(place, key=order)
        work = _work(self.reader, checked)
        for mistake in _imagined(self.reader, steps[first]):
            self.left -= work
            if self.left <= 0:
                return
            if np.array_equal(mistake.predicted, steps[first].y):
                continue
            made = _Made(self.reader, place, first, mistake)
            end = np.asarray(checked.span.run(self.reader, made).of(checked.rows), dtype=np.float64)
            yield replace(mistake, predicted=end, site=mistake.site or first, exact=True)


@dataclass(frozen=True, slots=True)
class _Made:
    """A mistake that was predicted for the first of some stages, made in all of them."""

    reader: Reader
    place: frozenset[Site]
    first: Site
    mistake: Mistake

    def __call__(self, step: Step) -> Array:
        """What the stage gives on."""
        if step.site not in self.place:
            return step.y
        made = self.mistake
        if step.site != self.first:
            like = (found for found in _imagined(self.reader, step) if _key(found)[1:] == _key(made)[1:])
            found = next(like, None)
            return step.y if found is None else np.asarray(found.predicted, dtype=step.y.dtype)
        return np.asarray(made.predicted, dtype=step.y.dtype)


def _place(mistake: Mistake) -> tuple[str, Site | None]:
    return mistake.cause, mistake.site


def way_of(checked: Checked) -> str:
    """The span of a stage in words."""
    start = max(checked.span.start, key=order, default=None)
    count = len(checked.span.inside)
    many = f"{count} stage{'s' * (count != 1)} not recorded"
    return f"between {'the token ids' if start is None else start} and {checked.site}, {many}"


def _off(checked: Checked) -> str:
    off = f"{format_value(checked.relative)} of its norm" if np.isfinite(checked.relative) else "all of it"
    return f"{off} off, {format_value(checked.off)} times its floor"


def _key(mistake: Mistake) -> _Key:
    """What two mistakes of different layers have in common if they are one."""
    assert mistake.site is not None
    stage = mistake.site.stage
    stages = next((kind for kind in _KINDS if stage in kind), (stage,))
    return stages, mistake.cause, mistake.explanation.replace(f"layers.{mistake.site.layer}.", "")


def _imagined(reader: Reader, step: Step) -> Iterator[Mistake]:
    """Mistakes that take nothing from the record, at a stage that has none."""
    x, known = ({name: np.asarray(value, np.float64) for name, value in values.items()} for values in step[1:3])
    right = np.asarray(step.y, dtype=np.float64)
    question = Question(step.site, reader.at(step.site), x, known, right, right, np.ones_like(right))
    for mistake in mistakes(question, imagined=True):
        if mistake.rank == NAMED and not mistake.rounded:
            yield replace(mistake, site=mistake.site or step.site)


def _places(checked: Checked) -> Iterator[frozenset[Site]]:
    """Stages inside a span that a mistake may be in together, none twice."""
    sites = sorted(checked.span.inside, key=order)
    layers = sorted({site.layer for site in sites if site.layer is not None})
    seen = set()
    groups = [[site for site in sites if site.stage in kind] for kind in _KINDS]
    groups += [[site for site in group if site.layer == layer] for layer in layers for group in groups]
    for place in map(frozenset, (*groups, *([site] for group in groups for site in group))):
        if place and place not in seen:
            seen.add(place)
            yield place


def _work(reader: Reader, checked: Checked) -> float:
    """Multiplications that a run through a span takes."""
    total = 0.0
    for site in checked.span.stages:
        shapes = [reader.model.weight(name).shape for name in stage_tensors(site) if site.stage in MATMUL_INPUT]
        total += _LEAST_STAGE + len(reader.tokens) * sum(float(np.prod(shape)) for shape in shapes)
    return total
