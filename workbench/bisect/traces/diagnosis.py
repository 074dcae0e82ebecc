"""From a recorded stage that is wrong to the mistake that reproduces it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kernels.stages import Site
from workbench.bisect.mistakes.catalogue import mistakes
from workbench.bisect.mistakes.mistake import Mistake, Question, Values, ranked, within
from workbench.bisect.models.floor import MATMUL_INPUT, predicted_error
from workbench.bisect.traces.noise import row_norms
from workbench.bisect.traces.overflow import overflow
from workbench.bisect.traces.stages import Checked, Reader
from workbench.bisect.traces.unnamed import UNNAMED, unnamed
from workbench.bisect.verdict import Culprit, same_setting
from workbench.bisect.weights.check import row_chunks
from workbench.bisect.weights.conversion import tensors_of
from workbench.bisect.weights.steps import Stored
from workbench.cells.decomposition import LIMIT

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
    if whole[0].factor != "weights" or question.stage not in ("qkv_matmul", "qkv_bias"):
        return whole
    parts = [culprit for part in _of_tensors(question) for culprit in _culprits(part, known)]
    named = [culprit for culprit in parts if culprit.cause not in UNNAMED]
    return whole if not named else named + ([culprit for culprit in parts if culprit.cause in UNNAMED])


def _of_tensors(question: Question) -> Iterator[Question]:
    """The question about Q, K and V apart: the other parts are taken to be right."""
    sizes = (question.config.q_size, question.config.kv_size, question.config.kv_size)
    ends = np.cumsum(sizes)
    for start, end in zip(ends - sizes, ends, strict=True):
        if question.wrong_channels[start:end].any():
            y = question.right.copy()
            y[:, start:end] = question.y[:, start:end]
            yield replace(question, y=y)


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
    first = Culprit(
        site, best.factor, best.cause, words, best.tensor, left / size, whole_share(best), runner, setting=best.setting
    )
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
    at, inputs = reader.at(checked.site), checked.inputs
    rounding = 0.0
    if checked.site.stage in MATMUL_INPUT:
        with_codes = predicted_error(checked.site.stage, at, inputs, checked.right)
        without = predicted_error(checked.site.stage, at, inputs, checked.right, rounded=False)
        rounding = max(with_codes**2 - without**2, 0.0) ** 0.5 / checked.right.size**0.5
    wide = {name: np.asarray(x, dtype=np.float64) for name, x in inputs.items()}
    known = {name: np.asarray(x, dtype=np.float64) for name, x in checked.known.items()}
    y, right = (np.asarray(x, dtype=np.float64) for x in (checked.y, checked.right))
    kept = reader.precision(checked.site.stage)
    restored = cost_of_storage(reader, checked.site, wide, len(y))
    return Question(checked.site, at, wide, known, y, right, checked.noise, rounding, restored, kept, rows=checked.rows)


def cost_of_storage(reader: Reader, site: Site, inputs: Mapping[str, Values], count: int) -> Values | None:
    """What storing the stage's weights once more in their own formats may add to every element of the output."""
    model = reader.model
    names = [name for name in tensors_of(site) if name in model and not name.endswith("o_proj.bias")]
    if not names:
        return None
    if site.stage == "embedding":
        return np.asarray(Stored.of(model.weight(names[0]), np.array(reader.tokens)).width[:count], dtype=np.float64)
    weights = [model.weight(name) for name in names]
    widths = (Stored.of(weight, part).width.astype(np.float64) for weight in weights for part in row_chunks(weight))
    if site.stage in MATMUL_INPUT:
        x = np.square(inputs[MATMUL_INPUT[site.stage]])
        return np.concatenate([np.sqrt(x @ np.square(width).T) for width in widths], axis=1)
    if site.stage == "qkv_bias":
        return np.repeat(np.concatenate(list(widths), axis=1), count, axis=0)
    x = np.abs(next(iter(inputs.values())))
    size = np.maximum(np.sqrt(np.square(x).mean(axis=1, keepdims=True)), 1e-30)
    return np.asarray(x / size * next(widths))


def not_finite(question: Question) -> Culprit:
    """A stage of which some values are NaN or infinite."""
    count = int((~np.isfinite(question.y)).sum())
    words = f"{count} of {question.y.size} values are NaN or infinite, which its inputs do not explain"
    return Culprit(question.site, "graph", "unknown", words, setting=(words,))


def _not_finite_in_model(question: Question) -> Culprit:
    """Finite inputs and other values than those of the trace: the model's own weights are at fault."""
    count = int((~np.isfinite(question.right)).sum())
    tensor = next((name for name in question.tensors if not np.isfinite(row_norms(question.at, name)).all()), None)
    words = (
        f"the model's own weights make {count} of {question.y.size} values NaN or infinite, which the trace's are not"
    )
    return Culprit(question.site, "weights", "corrupted_blocks", words, tensor)


def runner_up(entry: tuple[bool, float, Mistake], size: float) -> dict[str, Any]:
    """A mistake that was tried, as a culprit tells of the next best."""
    return {"cause": entry[2].cause, "residual": entry[1] / size, "reproduces": entry[0]}


def whole_share(mistake: Mistake) -> dict[str, float | None]:
    """The shares of the factors where one mistake is all there is."""
    shares: dict[str, float | None] = dict.fromkeys(("input", "weights", "numerics", "config", "graph"), 0.0)
    return shares | {mistake.factor: 1.0}
