"""Quantized weights of which an engine misreads the same columns of every block, as by a wrong layout of the scales.

Each group of columns that share a scale adds its part to the output; a factor is fitted to each part. Several runs of
rows are fitted by themselves, so that what they disagree by tells how far the factors are known. One product of few
tokens may leave it open; all products whose weights have the type tell it together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kernels.formats.format import BlockFormat
from kernels.graph import Values
from kernels.kinds.embed import Embed
from kernels.kinds.product import Product
from kernels.weight import TensorType, Weight
from workbench.bisect.mistakes.mistake import Flags, Question, least_squares
from workbench.bisect.mistakes.products import parts
from workbench.bisect.weights.steps import Stored

COLUMNS = "columns"  # first word of the setting of a culprit that misreads columns
_FOLDS, _ROWS = 8, 1024  # parts of the rows that are fitted by themselves; rows that are looked at
_SURE, _UNSURE = 6.0, 3.0  # standard errors of a factor that is not 1, and of one that may be


@dataclass(frozen=True, eq=False)
class ColumnFactors:
    """By how much every group of columns counts too much, and the standard errors of that; columns of a group."""

    type: TensorType
    more: Values
    error: Values
    group: int


def wrong_tensors(question: Question) -> list[tuple[str, Flags]]:
    """The matrices of a stage that make wrong channels, with all channels that they make."""
    return [(name, part) for name, part in _tensors(question) if question.wrong_channels[part].any()]


def _tensors(question: Question) -> Iterator[tuple[str, Flags]]:
    """Every matrix of the stage with the channels that it makes; an embedding makes all of them."""
    if isinstance(question.at.kind, Embed):
        yield question.tensors[0], np.ones(question.right.shape[1], dtype=bool)
    elif isinstance(question.at.kind, Product):
        yield from parts(question)


def column_factors(question: Question, name: str, part: Flags) -> ColumnFactors | None:
    """The factors of a tensor's column groups; None where the type has no blocks, or there is too little to tell."""
    weight = question.at.model.weight(name)
    format = weight.type.format
    if not isinstance(format, BlockFormat) or weight.shape[1] % format.block.elements:
        return None
    # columns that share a scale, or of a block with one scale those that stand in the same half of its bytes
    period, group = format.block.elements, format.group if format.groups else format.group // 2
    shares, left = _shares(question, weight, part, period, group)
    folds = min(_FOLDS, shares.shape[2])
    found = []
    for fold in range(folds):
        some = shares[:, :, fold::folds].reshape(len(shares), -1)
        factors = least_squares(some @ some.T, some @ left[:, fold::folds].reshape(-1))
        if factors is None:
            return None
        found.append(factors)
    if folds < 3:
        return None
    return ColumnFactors(weight.type, np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / folds**0.5, group)


def misread_columns(found: Sequence[ColumnFactors]) -> str | None:
    """Words for the columns that count too much or too little, if some surely do and all others surely do not."""
    if not found or len({factors.type for factors in found}) > 1:
        return None
    weights = np.stack([1 / np.maximum(factors.error, 1e-30) ** 2 for factors in found])
    more = (np.stack([factors.more for factors in found]) * weights).sum(axis=0) / weights.sum(axis=0)
    error = weights.sum(axis=0) ** -0.5
    wrong, right = np.abs(more) > _SURE * error, np.abs(more) <= _UNSURE * error
    if not wrong.any() or not right.any() or not (wrong | right).all():
        return None
    if not ((np.abs(more) + _UNSURE * error)[right].max() < np.abs(more)[wrong].min()):
        return None  # as wrong as the others, for all that is known
    factors, group = 1 + more[wrong], found[0].group
    shown = (
        f"{factors.min():.2g}"
        if np.ptp(factors) < _UNSURE * error.max()
        else f"{factors.min():.2g} to {factors.max():.2g}"
    )
    period = found[0].type.block.elements
    return f"{_runs(wrong, group)} of every block of {period} are scaled wrongly, on average {shown} times"


def _shares(question: Question, weight: Weight, part: Flags, period: int, group: int) -> tuple[Values, Values]:
    """What every group of columns adds to the output (groups, tokens, rows), and how far the output is off."""
    groups = np.arange(weight.shape[1]) % period // group
    off = (question.y - question.right)[:, part]
    if isinstance(question.at.kind, Embed):  # every token is a row, its channels are the columns
        right, groups = question.right, question.at.kind.part(groups)
        return np.stack([(right * (groups == g)).T for g in range(period // group)]), off.T
    rows = np.unique(np.linspace(0, weight.shape[0] - 1, _ROWS).astype(np.int64))
    values, x = Stored.of(weight, rows).values.astype(np.float64), question.x["x"]
    shares = [x[:, groups == g] @ values[:, groups == g].T for g in range(period // group)]
    return np.stack(shares), off[:, rows]


def _runs(wrong: Flags, group: int) -> str:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wrong, [False]]).astype(np.int8)))
    ranges = [f"{start * group} to {end * group - 1}" for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return f"columns {' and '.join(ranges)}"
