"""From a span whose end is wrong to the mistake inside that makes it so.

A stage that was not recorded shows nothing by itself. But every mistake of the catalogue predicts what a stage gives
on, and the rest of the span makes the end of that: the one that reproduces the recorded end down to its floor is named,
at the stage where it sits. A setting is wrong in every stage that uses it, so a mistake is put into all stages of a
kind, then into those of one layer, then into one alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain

import numpy as np

from kernels.graph import Array, Kind
from kernels.kinds.activation import Activation
from kernels.kinds.apart import ProductsApart
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.choice import Choice
from kernels.kinds.elementwise import Add, AddBoth, Multiply
from kernels.kinds.embed import Embed
from kernels.kinds.experts import ExpertSum
from kernels.kinds.gated import Gated
from kernels.kinds.norm import Norm
from kernels.kinds.product import Product
from kernels.kinds.rotate import Rotate
from kernels.stages import Site
from workbench.bisect.mistakes.catalogue import mistakes
from workbench.bisect.mistakes.mistake import FREE, NAMED, Mistake, Question
from workbench.bisect.traces.diagnosis import AMBIGUOUS, not_finite, question_of, runner_up, whole_share
from workbench.bisect.traces.overflow import overflow_inside
from workbench.bisect.traces.spans import Part, Span, Step, order
from workbench.bisect.traces.stages import Checked, Reader
from workbench.bisect.verdict import Culprit
from workbench.cells.metrics import format_value

# Kinds of stages that mistakes are looked for in, those first that ports get wrong most.
_FIRST: tuple[type[Kind], ...] = (
    *(Rotate, Bias, Attention, Choice, Activation, Multiply, Add, AddBoth, Gated, ExpertSum, Norm, Product),
    ProductsApart,
)
_TOGETHER = (Rotate, Norm)  # one mistake concerns all of them, whatever they are called
_MOST_WORK = 2e10  # multiplications that are spent on looking for causes in all spans of a trace
_ANY_STAGE = 1e6  # that running a stage takes as long as, however small
_NOTHING = np.empty((0, 0))
_Key = tuple[str, str]  # cause and words
_Tried = tuple[bool, float, Mistake]  # whether it reproduces the end, what it leaves, and without what it predicts


@dataclass(slots=True)
class SpanCauses:
    """What is tried, and how much may still be. found : mistakes of the spans before, which come first in the next."""

    reader: Reader
    left: float = _MOST_WORK
    found: list[Mistake] = field(default_factory=list)

    def culprit(self, checked: Checked) -> Culprit:
        """The mistake that makes the recorded end of a span, or the end itself with a cause that is not known."""
        question = replace(question_of(self.reader, checked), rounding=0.0, restored=None)
        if not np.isfinite(question.y).all():
            return self._not_finite(checked, question)
        tried: list[_Tried] = []
        with np.errstate(all="ignore"):
            for level in self._levels(checked, question):
                tried += _outcomes(question, level)
                if any(reproduces for reproduces, _, _ in tried):
                    break
        size = float(np.linalg.norm(question.y)) or 1.0
        ordered = _best_first(tried)
        if ordered and ordered[0][0]:
            return self._named(checked, ordered[0], ordered[1:], size)
        runner = runner_up(ordered[0], size) if ordered else None
        what = "no known mistake in one place" if self.left > 0 else "none of the known mistakes that were tried"
        words = f"{way_of(checked)}: the end is {_off(checked)}, and {what} reproduces it"
        return Culprit(checked.site, "graph", "unknown", words, None, question.gap / size, {}, runner)

    def _not_finite(self, checked: Checked, question: Question) -> Culprit:
        """An end that is NaN or infinite, because a number on the way became too large or for no reason known."""
        steps = sorted(checked.span.steps(self.reader).items(), key=lambda entry: order(entry[0]))
        culprit = overflow_inside([replace(_right(step), rows=step.rows) for _, step in steps], question)
        if culprit is None:
            return not_finite(question)
        shown = None if culprit.site == checked.site else checked.site
        return replace(culprit, explanation=f"{way_of(checked)}: {culprit.explanation}", shown_at=shown)

    def _named(self, checked: Checked, best: _Tried, others: list[_Tried], size: float) -> Culprit:
        _, left, mistake = best
        self.found.append(mistake)
        words = f"{way_of(checked)}: {mistake.explanation}"
        most = AMBIGUOUS * max(left, 1e-12 * size)
        close = dict.fromkeys(f"{other.site} {other.cause}" for same, off, other in others if same and off <= most)
        close.pop(f"{mistake.site} {mistake.cause}", None)
        if close:
            words += f"; {', '.join(list(close)[:2])} would explain it as well"
        runner = next((runner_up(entry, size) for entry in others if entry[2].cause != mistake.cause), None)
        site, shares = mistake.site or checked.site, whole_share(mistake.factor)
        shown = None if site == checked.site else checked.site
        culprit = Culprit(site, mistake.factor, mistake.cause, words, mistake.tensor, left / size, shares, runner)
        return replace(culprit, shown_at=shown, setting=mistake.setting)

    def _levels(self, checked: Checked, question: Question) -> Iterator[Iterator[Mistake]]:
        """What is tried together; the next only if nothing of it reproduces the end.

        One bias that is left out is common, and tried at once: a long span does not leave enough for all in one place.
        """
        steps = checked.span.steps(self.reader)
        yield self._known(checked, steps)
        biases = [[site] for site in steps if isinstance(self.reader.at(site).kind, Bias)]
        yield self._in_places(checked, steps, biases, lambda mistake: mistake.cause == "bias_missing")
        yield chain(
            _of_the_end(checked, question), self._in_places(checked, steps, _kinds(self.reader, checked.span.inside))
        )
        sites = sorted(checked.span.inside, key=order)
        layers = dict.fromkeys(site.layer for site in sites)
        kinds = list(_kinds(self.reader, checked.span.inside))
        yield self._in_places(
            checked, steps, ([site for site in kind if site.layer == n] for n in layers for kind in kinds)
        )
        yield self._in_places(checked, steps, ([site] for kind in kinds for site in kind))

    def _known(self, checked: Checked, steps: Mapping[Site, Step]) -> Iterator[Mistake]:
        """The mistakes that were found before, in all the stages of this span that could have them."""
        for found in self.found:
            kinds = (
                [] if found.site is None else [kind for kind in _kinds(self.reader, steps) if _like(found.site, kind)]
            )
            yield from self._in_places(checked, steps, kinds, partial(_is_like, found))

    def _in_places(
        self,
        checked: Checked,
        steps: Mapping[Site, Step],
        places: Iterable[list[Site]],
        chosen: Callable[[Mistake], bool] | None = None,
    ) -> Iterator[Mistake]:
        """Every mistake of the first stage of a place, made in all of its stages, with the end that comes of it."""
        values = {site: Part(step.y, step.rows) for site, step in steps.items()}
        seen = set()
        for place in places:
            sites = [site for site in place if site in steps]
            if not sites or tuple(sites) in seen:
                continue
            seen.add(tuple(sites))
            rest = checked.span.rest(sites[0], values)
            for mistake in _imagined(steps[sites[0]]):
                left_out = chosen is not None and not chosen(mistake)
                if left_out or np.array_equal(mistake.predicted, steps[sites[0]].y):
                    continue
                self.left -= _work(self.reader, rest)
                if self.left <= 0:
                    return
                made = _Made(self.reader, frozenset(sites), sites[0], mistake)
                end = rest.run(self.reader, made).of(checked.rows)
                yield replace(mistake, predicted=np.asarray(end, dtype=np.float64), exact=True)


def _outcomes(question: Question, candidates: Iterable[Mistake]) -> Iterator[_Tried]:
    """What becomes of every mistake; ends of many channels are not kept."""
    for mistake in candidates:
        left = float(np.linalg.norm(question.y - mistake.predicted))
        if np.isfinite(left):
            yield question.reproduces(mistake), left, replace(mistake, predicted=_NOTHING)


def _best_first(tried: list[_Tried]) -> list[_Tried]:
    """The most convincing first: of those that come about as close, the one that takes least, then the first tried."""
    exact = [entry for entry in tried if entry[0]]
    rank = min((entry[2].rank for entry in exact), default=0)
    least = min((left for _, left, mistake in exact if mistake.rank == rank), default=0.0)

    def key(entry: _Tried) -> tuple[bool, int, bool, float]:
        reproduces, left, mistake = entry
        close = reproduces and left <= AMBIGUOUS * least
        return not reproduces, mistake.rank if reproduces else 0, not close, 0.0 if close else left

    return sorted(tried, key=key)


def _of_the_end(checked: Checked, question: Question) -> Iterator[Mistake]:
    """Mistakes of the stage that was recorded; its inputs were not, so nothing is left free to fit them."""
    for mistake in mistakes(question, imagined=True):
        if mistake.rank != FREE and not mistake.rounded:
            yield replace(mistake, site=mistake.site or checked.site)


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
            like = (found for found in _imagined(step) if _key(found) == _key(made))
            found = next(like, None)
            return step.y if found is None else np.asarray(found.predicted, dtype=step.y.dtype)
        return np.asarray(made.predicted, dtype=step.y.dtype)


def way_of(checked: Checked) -> str:
    """The span of a stage in words."""
    start = max(checked.span.start, key=order, default=None)
    count = len(checked.span.inside)
    many = f"{count} stage{'s' * (count != 1)} not recorded"
    return f"between {'the token ids' if start is None else start} and {checked.site}, {many}"


def _off(checked: Checked) -> str:
    off = f"{format_value(checked.relative)} of its norm" if np.isfinite(checked.relative) else "all of it"
    return f"{off} off, {format_value(checked.off)} times what rounding can cause"


def _key(mistake: Mistake) -> _Key:
    """What two mistakes of different layers have in common if they are one."""
    layer = "" if mistake.site is None else f"layers.{mistake.site.layer}."
    return mistake.cause, mistake.explanation.replace(layer, "layers.") if layer else mistake.explanation


def _is_like(one: Mistake, other: Mistake) -> bool:
    return _key(one) == _key(other)


def _imagined(step: Step) -> Iterator[Mistake]:
    """Mistakes that take nothing from the record, at a stage that has none."""
    for mistake in mistakes(_right(step), imagined=True):
        if mistake.rank == NAMED and not mistake.rounded:
            yield replace(mistake, site=mistake.site or step.site)


def _right(step: Step) -> Question:
    """A stage that has no record, as if it were recorded as it should be."""
    x, known = ({name: np.asarray(value, np.float64) for name, value in values.items()} for values in step[1:3])
    right = np.asarray(step.y, dtype=np.float64)
    return Question(step.at, x, known, right, right, np.ones_like(right))


def _kinds(reader: Reader, sites: Iterable[Site]) -> Iterator[list[Site]]:
    """The stages that a mistake may concern at once, in execution order."""
    ordered = sorted(sites, key=order)
    for kind in _FIRST:
        found = [site for site in ordered if isinstance(reader.at(site).kind, kind)]
        names = dict.fromkeys(site.stage for site in reversed(found))  # products nearer to the end first
        if kind in _TOGETHER:
            yield found
        else:
            yield from ([site for site in found if site.stage == name] for name in names)
    yield [site for site in ordered if isinstance(reader.at(site).kind, Embed)]


def _like(site: Site, kind: Sequence[Site]) -> bool:
    """Whether what is wrong with a stage may be wrong with these, which are like it in other layers."""
    return any(site.stage == other.stage for other in kind)


def _work(reader: Reader, span: Span) -> float:
    """How long a run through a span takes, in multiplications."""
    total = 0.0
    for site in span.stages:
        at = reader.at(site)
        weights = at.stage.weights if isinstance(at.kind, Product) else ()
        if isinstance(at.kind, ProductsApart):
            weights = at.stage.weights[: at.kind.runs]
        shapes = [at.model.weight(name).shape for name in weights]
        total += _ANY_STAGE + len(reader.tokens) * sum(float(np.prod(shape)) for shape in shapes)
    return total
