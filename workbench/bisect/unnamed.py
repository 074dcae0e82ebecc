"""What can be said of a wrong stage that no mistake of the catalogue reproduces: where in it the wrong values are."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from kernels.weight import BLOCKS, TensorType, Weight
from workbench.bisect.floor import MATMUL_INPUT
from workbench.bisect.runtime_mistakes.mistake import Flags, Question, Values, least_squares
from workbench.bisect.runtime_mistakes.products import stage_input
from workbench.bisect.runtime_mistakes.some_tokens import where_words
from workbench.bisect.steps import Stored
from workbench.bisect.verdict import Culprit, Factor

UNNAMED = ("unknown", "corrupted_blocks")
COLUMNS = "columns"  # first word of the setting of a culprit that misreads the same columns of every block
# Columns of a block that share a scale, or the half of a byte.
_SHARED = {TensorType.Q4_K: 32, TensorType.Q5_K: 32}
_OTHERWISE = 16
_FOLDS, _ROWS = 8, 1024  # parts of the rows that must agree; rows that are looked at
_SURE, _UNSURE = 6.0, 3.0  # standard errors of a factor that is not 1, and of one that may be
_APART = 4.0  # times that the factors of misread columns stand out of those of the others


def unnamed(question: Question, size: float, runner: dict[str, Any] | None) -> Culprit:
    """The culprit where nothing reproduces the record: some tokens, some columns, some rows, or all of it."""
    site, residual = question.site, question.gap / size
    if question.spares_tokens:
        words = f"the output is wrong {where_words(question)}"
        return Culprit(site, "graph", "unknown", words, None, residual, {}, runner, (words,))
    wrong = question.wrong_channels
    parts = [part for part in _tensors(question) if wrong[part[1]].any()]
    if not parts:
        factor: Factor = "weights" if question.tensors else "graph"
        cause = "bias_wrong" if site.stage == "qkv_bias" and question.tensors else "unknown"
        tensor = question.tensors[0] if question.tensors else None
        words = f"{int(wrong.sum())} of {wrong.size} channels are wrong and no known mistake reproduces them"
        return Culprit(site, factor, cause, words, tensor, residual, {}, runner)
    found = Culprit(site, "weights", "unknown", "", parts[0][0], residual, {}, runner)
    columns = dict.fromkeys(filter(None, (_columns(question, name, part) for name, part in parts)))
    if columns:
        words = next(iter(columns))
        return replace(found, cause="corrupted_blocks", explanation=words, setting=(COLUMNS, words))
    rows = [f"{int(wrong[part].sum())} of {int(part.sum())} rows of {_short(name)}" for name, part in parts]
    others = ~wrong & np.logical_or.reduce([part for _, part in parts])
    if all(2 * wrong[part].sum() <= part.sum() for _, part in parts) and question.is_right(others):
        words = f"{', '.join(rows)} act as if damaged; all others are right"
        return replace(found, cause="corrupted_blocks", explanation=words)
    return replace(found, explanation=f"{', '.join(rows)} are wrong and no known mistake reproduces them")


def _short(name: str) -> str:
    return name.split(".")[-2] if name.count(".") > 1 else name


def _tensors(question: Question) -> Iterator[tuple[str, Flags]]:
    """Every matrix of the stage with the channels that it makes; an embedding makes all of them."""
    count, start = question.right.shape[1], 0
    if question.site.stage == "embedding":
        yield question.tensors[0], np.ones(count, dtype=bool)
    if question.site.stage not in MATMUL_INPUT:
        return
    for name in question.tensors:
        if name.endswith(".weight"):
            part = np.zeros(count, dtype=bool)
            part[start : start + question.at.model.weight(name).shape[0]] = True
            start += int(part.sum())
            yield name, part


def _columns(question: Question, name: str, part: Flags) -> str | None:
    """Words for the columns of every quantization block that count with another factor, if only some of them do.

    A factor is fitted to what each group of columns adds to the output, by several parts of the rows independently: the
    groups that all parts agree on are wrong, and the others must be right within what the parts disagree by.
    """
    weight = question.at.model.weight(name)
    period = BLOCKS[weight.type].elements
    if period == 1 or weight.shape[1] % period:
        return None
    group = _SHARED.get(weight.type, _OTHERWISE)
    shares, left = _shares(question, weight, part, period, group)
    folds = min(_FOLDS, shares.shape[2])
    if folds < 3:
        return None
    found = []
    for fold in range(folds):
        some = shares[:, :, fold::folds].reshape(len(shares), -1)
        factors = least_squares(some @ some.T, some @ left[:, fold::folds].reshape(-1))
        if factors is None:
            return None
        found.append(factors)
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / folds**0.5
    off = np.abs(mean)
    wrong = off > _SURE * error
    right = off <= np.maximum(_UNSURE * error, off[wrong].min() / _APART if wrong.any() else 0)
    if not wrong.any() or wrong.all() or not (wrong | right).all() or off[wrong & ~right].size == 0:
        return None
    wrong &= ~right
    factors = 1 + mean[wrong]
    shown = f"{factors.min():.2g}" if np.ptp(factors) < 0.02 else f"{factors.min():.2g} to {factors.max():.2g}"
    return f"{_runs(wrong, group)} of every block of {period} are scaled wrongly, on average {shown} times"


def _shares(question: Question, weight: Weight, part: Flags, period: int, group: int) -> tuple[Values, Values]:
    """What every group of columns adds to the output (groups, tokens, rows), and how far the output is off."""
    groups = np.arange(weight.shape[1]) % period // group
    off = (question.y - question.right)[:, part]
    if question.site.stage == "embedding":  # every token is a row, its channels are the columns
        right = question.right
        return np.stack([(right * (groups == g)).T for g in range(period // group)]), off.T
    rows = np.unique(np.linspace(0, weight.shape[0] - 1, _ROWS).astype(np.int64))
    values, x = Stored.of(weight, rows).values.astype(np.float64), stage_input(question)
    shares = [x[:, groups == g] @ values[:, groups == g].T for g in range(period // group)]
    return np.stack(shares), off[:, rows]


def _runs(wrong: Flags, group: int) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wrong, [False]]).astype(np.int8)))
    ranges = [f"{start * group} to {end * group - 1}" for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return f"columns {' and '.join(ranges)}"
