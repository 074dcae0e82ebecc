"""From a recorded stage that is wrong to the mistake that reproduces it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from kernels.paths import Array
from kernels.stages import Site
from workbench.bisect.customs import tensors_of
from workbench.bisect.floor import MATMUL_INPUT, predicted_error
from workbench.bisect.recorded import Checked, Reader
from workbench.bisect.runtime_mistakes.catalogue import mistakes
from workbench.bisect.runtime_mistakes.mistake import Mistake, Question, Values, ranked
from workbench.bisect.steps import Stored
from workbench.bisect.verdict import LIMIT, Culprit
from workbench.bisect.weight_check import row_chunks

# Times what rounding the weights costs: a whole stage, and a single channel, whose few tokens tell less.
_SURELY, _PERHAPS = 2.0, 6.0
_AMBIGUOUS = 3.0  # another mistake that leaves less than this many times as much explains the record as well


def diagnose(reader: Reader, checked: Checked, rounded: bool = False) -> list[Culprit]:
    """Name the mistakes that make the recorded stage of the right one; several only where it has several tensors.

    rounded : the trace is one of the weights before they were rounded to the model's formats.
    """
    question = question_of(reader, checked)
    if rounded and question.restored is not None:
        cost = question.restored / 3**0.5  # of values that lie evenly over a step
        cost = np.maximum(cost, np.sqrt(np.square(cost).mean(axis=1, keepdims=True)))  # they may have been other values
        most = _SURELY * float(np.linalg.norm(cost)) + LIMIT * float(np.linalg.norm(question.noise))
        question = replace(question, noise=question.noise + _PERHAPS / LIMIT * cost, most=most)
    if not np.isfinite(question.y).all():
        return [_not_finite(question)]
    whole = _culprit(question)
    if whole.factor != "weights" or question.stage not in ("qkv_matmul", "qkv_bias"):
        return [whole]
    return [_culprit(part) for part in _of_tensors(question)] or [whole]


def _of_tensors(question: Question) -> Iterator[Question]:
    """The question about Q, K and V apart: the other parts are taken to be right."""
    sizes = (question.config.q_size, question.config.kv_size, question.config.kv_size)
    ends = np.cumsum(sizes)
    for start, end in zip(ends - sizes, ends, strict=True):
        if question.wrong_channels[start:end].any():
            y = question.right.copy()
            y[:, start:end] = question.y[:, start:end]
            yield replace(question, y=y)


def _culprit(question: Question) -> Culprit:
    """The mistake that makes the recorded stage of the right one, with the runner-up, or that none does."""
    tried = ranked(question, mistakes(question))
    size = float(np.linalg.norm(question.y)) or 1.0
    if not tried or not tried[0][0]:
        runner = _runner(tried[0], size) if tried else None
        return _unknown(question, size, runner)
    _, left, best = tried[0]
    site = best.site or question.site
    other = next((entry for entry in tried[1:] if entry[2].cause != best.cause), None)
    words = best.explanation
    if other is not None and other[0] and other[1] <= _AMBIGUOUS * max(left, 1e-12 * size):
        words += f"; {other[2].cause} would explain it as well ({other[2].explanation})"
    runner = None if other is None else _runner(other, size)
    return Culprit(site, best.factor, best.cause, words, best.tensor, left / size, _whole(best), runner)


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
    restored = _restored(reader, checked.site, wide, len(y))
    return Question(checked.site, at, wide, known, y, right, checked.noise, rounding, restored, kept)


def _restored(reader: Reader, site: Site, inputs: Mapping[str, Values], count: int) -> Values | None:
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


def _not_finite(question: Question) -> Culprit:
    count = int((~np.isfinite(question.y)).sum())
    words = f"{count} of {question.y.size} values are NaN or infinite, which its inputs do not explain"
    return Culprit(question.site, "graph", "unknown", words)


def _unknown(question: Question, size: float, runner: dict[str, Any] | None) -> Culprit:
    wrong = question.wrong_channels
    count, residual = int(wrong.sum()), question.gap / size
    tensor = question.tensors[0] if question.tensors else None
    if tensor is not None and question.stage in MATMUL_INPUT and count <= wrong.size // 2 and question.rest_is_right:
        tensor = _tensor_of(question, wrong)
        words = f"{count} of {wrong.size} rows of the weight act as if damaged; all others are right"
        return Culprit(question.site, "weights", "corrupted_blocks", words, tensor, residual, {}, runner)
    words = f"{count} of {wrong.size} channels are wrong and no known mistake reproduces them"
    if question.stage == "qkv_bias":
        return Culprit(question.site, "weights", "bias_wrong", words, tensor, residual, {}, runner)
    factor = "weights" if tensor is not None else "graph"
    return Culprit(question.site, factor, "unknown", words, tensor, residual, {}, runner)  # type: ignore[arg-type]


def _tensor_of(question: Question, wrong: Array) -> str:
    start, first = 0, int(np.flatnonzero(wrong)[0])
    for name in question.tensors:
        start += question.at.model.weight(name).shape[0]
        if first < start:
            return name
    return question.tensors[0]


def _runner(entry: tuple[bool, float, Mistake], size: float) -> dict[str, Any]:
    return {"cause": entry[2].cause, "residual": entry[1] / size, "reproduces": entry[0]}


def _whole(mistake: Mistake) -> dict[str, float | None]:
    shares: dict[str, float | None] = dict.fromkeys(("input", "weights", "numerics", "config", "graph"), 0.0)
    return shares | {mistake.factor: 1.0}
