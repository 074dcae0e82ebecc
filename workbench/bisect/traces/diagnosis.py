"""From a recorded stage that is wrong to the mistake that reproduces it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from kernels.graph import At, Values
from kernels.kinds.apart import ProductsApart
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.choice import Choice
from kernels.kinds.embed import Embed
from kernels.kinds.norm import Norm
from kernels.kinds.product import Product
from workbench.bisect.mistakes.catalogue import mistakes
from workbench.bisect.mistakes.mistake import Mistake, Question, ranked, within
from workbench.bisect.traces.overflow import overflow
from workbench.bisect.traces.stages import Checked, Reader
from workbench.bisect.traces.unnamed import UNNAMED, unnamed
from workbench.bisect.verdict import Culprit, Factor, RunnerUp, same_setting
from workbench.bisect.weights.check import row_chunks
from workbench.bisect.weights.steps import Stored
from workbench.cells.limit import LIMIT

# Times what rounding the weights costs: a whole stage, and a single channel, whose few tokens tell less.
_SURELY, _PERHAPS = 2.0, 6.0
AMBIGUOUS = 3.0  # another mistake that leaves less than this many times as much explains the record as well


def diagnose(reader: Reader, checked: Checked, rounded: bool = False, known: Sequence[Culprit] = ()) -> list[Culprit]:
    """Name the mistakes that make the recorded stage of the right one: of several tensors, or settings, several.

    rounded : the trace is one of the weights before they were rounded to the model's formats. known : culprits of
    earlier stages; one setting that is wrong in every layer is found as the same in each.
    """
    question = question_of(reader, checked)
    if rounded and question.restored is not None:
        cost = question.restored / 3**0.5  # of values that lie evenly over a step
        cost = np.maximum(cost, np.sqrt(np.square(cost).mean(axis=1, keepdims=True)))  # they may have been other values
        most = _SURELY * float(np.linalg.norm(cost)) + LIMIT * float(np.linalg.norm(question.noise))
        question = replace(question, noise=question.noise + _PERHAPS / LIMIT * cost, most=most)
    if not np.isfinite(question.right).all():
        return [_not_finite_in_model(question)]
    beyond = overflow(question)
    if beyond is not None:
        lost, kept, culprit = beyond
        rest = replace(question, y=np.where(lost, question.right, question.y))
        allowed = rest.noise + kept.unit * np.abs(rest.right) + kept.least
        return [culprit] if within(rest.y - rest.right, allowed) else [culprit, *_culprits(rest, known)]
    if not np.isfinite(question.y).all():
        return [not_finite(question)]
    whole = _culprits(question, known)
    if isinstance(question.at.kind, ProductsApart) and whole[0].cause in UNNAMED:
        return [culprit for part in _of_experts(question) for culprit in _culprits(part, known)] or whole
    if whole[0].factor != "weights" or len(question.parts) < 2:
        return whole
    parts = [culprit for part in _of_tensors(question) for culprit in _culprits(part, known)]
    named = [culprit for culprit in parts if culprit.cause not in UNNAMED]
    return whole if not named else named + ([culprit for culprit in parts if culprit.cause in UNNAMED])


def _of_tensors(question: Question) -> Iterator[Question]:
    """The question about every tensor of a stage apart, as Q, K and V: the other parts are taken to be right."""
    for part in question.parts.values():
        if question.wrong_channels[part].any():
            y = question.right.copy()
            y[:, part] = question.y[:, part]
            alone = replace(question, y=y)
            if alone.wrong:
                yield alone


def _of_experts(question: Question) -> Iterator[Question]:
    """The question about every expert apart, as one of its product."""
    kind = question.at.kind
    assert isinstance(kind, ProductsApart)
    y, right, noise = (x.reshape(len(x), kind.runs, -1) for x in (question.y, question.right, question.noise))
    for pairs in kind.routed(question.at, question.x):
        place, x = (pairs.tokens, pairs.runs), {"x": kind.read(question.x["x"], pairs)}
        alone = replace(
            question,
            at=pairs.at,
            x=x,
            known={},
            y=y[place],
            right=right[place],
            noise=noise[place],
            restored=cost_of_storage(pairs.at, x, len(x["x"])),
            rows=question.tokens(pairs.tokens),
        )
        if alone.wrong:
            yield alone


def _culprits(question: Question, known: Sequence[Culprit]) -> list[Culprit]:
    """The mistake that makes the recorded stage of the right one, with the runner-up, or that none does."""
    tried = ranked(question, mistakes(question), partial(_is_known, known=known))
    size = float(np.linalg.norm(question.y)) or 1.0
    if not tried or not tried[0][0]:
        return [unnamed(question, size, runner_up(tried[0], size) if tried else None)]
    _, left, best = tried[0]
    site = best.site or question.site
    other = next((entry for entry in tried[1:] if entry[2].cause != best.cause), None)
    words = best.explanation
    equal = other is not None and other[0] and other[2].rank <= best.rank
    if other is not None and equal and other[1] <= AMBIGUOUS * max(left, 1e-12 * size):
        words += f"; {other[2].cause} would explain it as well ({other[2].explanation})"
    runner = None if other is None else runner_up(other, size)
    first = Culprit(site, best.factor, best.cause, words, best.tensor, left / size, whole_share(best.factor), runner)
    first = replace(first, setting=best.setting)
    further = [
        Culprit(site, more.factor, more.cause, more.explanation, None, left / size, setting=more.setting)
        for more in best.also
    ]
    return [first, *further]


def _is_known(mistake: Mistake, known: Sequence[Culprit]) -> bool:
    """Whether a mistake is that of an earlier stage, and tells the same about a setting; of several, all of them."""
    settings = [(mistake.cause, mistake.factor, mistake.setting)]
    settings += [(more.cause, more.factor, more.setting) for more in mistake.also]
    return all(
        bool(setting)
        and any(
            (cause, factor) == (culprit.cause, culprit.factor) and same_setting(setting, culprit.setting)
            for culprit in known
            if culprit.setting
        )
        for cause, factor, setting in settings
    )


def question_of(reader: Reader, checked: Checked) -> Question:
    """A wrong stage as the candidates see it."""
    at, inputs = checked.at, checked.inputs
    rounding = 0.0
    if isinstance(at.kind, Product | ProductsApart):
        with_codes, without = (at.kind.rounding(at, inputs, checked.right, codes) for codes in (True, False))
        rounding = max(with_codes**2 - without**2, 0.0) ** 0.5 / checked.right.size**0.5
    wide = {name: np.asarray(x, dtype=np.float64) for name, x in inputs.items()}
    known = {name: np.asarray(x, dtype=np.float64) for name, x in checked.known.items()}
    y, right = (np.asarray(x, dtype=np.float64) for x in (checked.y, checked.right))
    kept = reader.precision(at.stage)
    restored = cost_of_storage(at, wide, len(y))
    spanned, rows = checked.spanned, checked.rows
    return Question(at, wide, known, y, right, checked.noise, rounding, restored, kept, rows=rows, spanned=spanned)


def cost_of_storage(at: At, inputs: Mapping[str, Values], count: int) -> Values | None:
    """What storing the stage's weights once more in their own formats may add to every element of the output."""
    if isinstance(at.kind, ProductsApart):
        out = np.zeros((count, at.kind.runs, at.stage.channels // at.kind.runs))
        for pairs in at.kind.routed(at, inputs):
            read = {"x": at.kind.read(inputs["x"], pairs)}
            out[pairs.tokens, pairs.runs] = cost_of_storage(pairs.at, read, len(read["x"]))
        return out.reshape(count, -1)
    if isinstance(at.kind, Choice | Attention):
        return None
    product = isinstance(at.kind, Product)
    weights = [
        at.model.weight(name) for name in (at.stage.weights if product else at.stage.tensors) if name in at.model
    ]
    if not weights:
        return None
    if isinstance(at.kind, Embed):
        rows = np.array(at.tokens)
        widths_of_rows = at.kind.part(Stored.of(weights[0], rows).width[:count])
        return np.asarray(widths_of_rows, dtype=np.float64) * at.kind.scale
    widths = (Stored.of(weight, part).width.astype(np.float64) for weight in weights for part in row_chunks(weight))
    if product:
        x = np.square(inputs["x"])
        return np.concatenate([np.sqrt(x @ np.square(width).T) for width in widths], axis=1)
    if isinstance(at.kind, Bias):
        return np.repeat(np.concatenate(list(widths), axis=1), count, axis=0)
    if not isinstance(at.kind, Norm):
        return None  # of recurrent layers, whose few further tensors stay floats
    x = np.abs(at.kind.centred(at.kind.rows(inputs["x"])))
    size = np.maximum(np.sqrt(np.square(x).mean(axis=1, keepdims=True)), 1e-30)
    return np.asarray(x / size * next(widths) * abs(at.kind.times) + sum(widths)).reshape(count, -1)


def not_finite(question: Question) -> Culprit:
    """A stage of which some values are NaN or infinite."""
    count = int((~np.isfinite(question.y)).sum())
    words = f"{count} of {question.y.size} values are NaN or infinite, which its inputs do not explain"
    return Culprit(question.site, "graph", "unknown", words, setting=(words,))


def _not_finite_in_model(question: Question) -> Culprit:
    """Finite inputs and other values than those of the trace: the model's own weights are at fault."""
    count = int((~np.isfinite(question.right)).sum())
    tensor = next((name for name in question.tensors if not np.isfinite(_row_norms(question.at, name)).all()), None)
    words = (
        f"the model's own weights make {count} of {question.y.size} values NaN or infinite, which the trace's are not"
    )
    return Culprit(question.site, "weights", "corrupted_blocks", words, tensor)


def _row_norms(at: At, name: str) -> Values:
    return at.path.row_norms(at.model.weight(name))


def runner_up(entry: tuple[bool, float, Mistake], size: float) -> RunnerUp:
    """A mistake that was tried, as a culprit tells of the next best."""
    return RunnerUp(entry[2].cause, entry[1] / size, entry[0])


def whole_share(factor: Factor) -> dict[str, float | None]:
    """The shares of the factors where one mistake is all there is."""
    shares: dict[str, float | None] = dict.fromkeys(("input", "weights", "numerics", "config", "graph"), 0.0)
    return shares | {factor: 1.0}
