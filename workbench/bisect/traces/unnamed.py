"""What can be said of a wrong stage that no mistake of the catalogue reproduces: where in it the wrong values are."""

from dataclasses import replace

import numpy as np

from kernels.kinds.bias import Bias
from workbench.bisect.mistakes.mistake import Question
from workbench.bisect.mistakes.some_tokens import where_words, wrong_elements
from workbench.bisect.traces.misread import COLUMNS, column_factors, misread_columns, wrong_tensors
from workbench.bisect.verdict import Culprit, Factor, RunnerUp

UNNAMED = ("unknown", "corrupted_blocks")


def unnamed(question: Question, size: float, runner: RunnerUp | None) -> Culprit:
    """The culprit where nothing reproduces the record: some tokens, some columns, some rows, or all of it."""
    site, residual = question.site, question.gap / size
    if question.spares_tokens:
        part = wrong_elements(question)
        sizes = [float(np.sqrt(np.square(x[part]).mean())) for x in (question.y, question.right)]
        words = f"the output is {sizes[0]:.3g} in place of {sizes[1]:.3g} (root mean square) {where_words(question)}"
        return Culprit(site, "graph", "unknown", words, None, residual, {}, runner, setting=(words,))
    wrong = question.wrong_channels
    parts = wrong_tensors(question)
    if not parts:
        factor: Factor = "weights" if question.tensors else "graph"
        cause = "bias_wrong" if isinstance(question.at.kind, Bias) and question.tensors else "unknown"
        tensor = question.tensors[0] if question.tensors else None
        words = f"{int(wrong.sum())} of {wrong.size} channels are wrong and no known mistake reproduces them"
        return Culprit(site, factor, cause, words, tensor, residual, {}, runner)
    found = Culprit(site, "weights", "unknown", "", parts[0][0], residual, {}, runner)
    columns = misread_columns([factors for name, part in parts if (factors := column_factors(question, name, part))])
    if columns is not None:
        return replace(found, cause="corrupted_blocks", explanation=columns, setting=(COLUMNS, columns))
    rows = [f"{int(wrong[part].sum())} of {int(part.sum())} rows of {_short(name)}" for name, part in parts]
    others = ~wrong & np.logical_or.reduce([part for _, part in parts])
    if all(2 * wrong[part].sum() <= part.sum() for _, part in parts) and question.is_right(others):
        words = f"{', '.join(rows)} act as if damaged; all others are right"
        return replace(found, cause="corrupted_blocks", explanation=words)
    return replace(found, explanation=f"{', '.join(rows)} are wrong and no known mistake reproduces them")


def _short(name: str) -> str:
    return name.split(".")[-2] if name.count(".") > 1 else name
