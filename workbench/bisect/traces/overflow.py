"""Values beyond the largest number of the type that an engine keeps: infinite, NaN, or stuck at the largest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.graph import Values
from kernels.kinds.attention import Attention
from kernels.kinds.product import Product
from kernels.precision import FLOAT16, Precision
from workbench.bisect.mistakes.heads import Heads
from workbench.bisect.mistakes.mistake import Flags, Question
from workbench.bisect.verdict import Culprit
from workbench.bisect.weights.check import row_chunks
from workbench.bisect.weights.steps import Stored
from workbench.cells.limit import LIMIT


@dataclass(frozen=True, eq=False)
class _Reached:
    """The largest magnitude that is kept on the way to every element of a stage's output, and what it is.

    summed : it is a sum or a score on the way, not the element itself.
    """

    what: str
    sizes: Values
    summed: bool = True


def overflow(question: Question) -> tuple[Flags, Precision, Culprit] | None:
    """The elements that overflowed, of which type, and the culprit; None where not all NaN and infinite ones did.

    The engine's own type is tried, and half precision, which a kernel may use inside of a run in a wider one.
    """
    y, right = question.y, question.right
    strange = ~np.isfinite(y) & np.isfinite(right)
    for kept in dict.fromkeys((question.kept, FLOAT16)):
        stuck = (np.abs(y) >= kept.largest * (1 - 2 * kept.unit)) & np.isfinite(y)
        stuck &= np.abs(right) > kept.largest * (1 + LIMIT * kept.unit)
        lost = strange | stuck
        if not lost.any():
            continue
        for reached in _reached(question, strange):
            if (reached.sizes[lost] * (1 + LIMIT * kept.unit) >= kept.largest).all():
                return lost, kept, _culprit(question, lost, reached, kept)
    return None


def overflow_inside(stages: Sequence[Question], end: Question) -> Culprit | None:
    """The first stage on the way to an end that was recorded whose right values are too large for the engine's type.

    stages : those of the way in execution order, as they should be. None unless every token that is NaN or infinite at
    the end follows from it, or from later ones besides, and every token that it loses is among them.
    """
    recorded = end.tokens(np.arange(len(end.y)))
    lost = recorded[~np.isfinite(end.y).all(axis=1)]
    ways = [(n, reached) for n, stage in enumerate(stages) for reached in _reached(stage, np.ones_like(stage.y, bool))]
    for kept in dict.fromkeys((end.kept, FLOAT16)):
        first: Culprit | None = None
        gone = np.zeros(len(end.at.tokens), dtype=bool)  # tokens that are lost by what was looked at so far
        for n, reached in sorted(ways, key=lambda way: way[1].summed):  # exact values tell more than sums on the way
            stage, beyond = stages[n], reached.sizes > kept.largest * (1 + LIMIT * kept.unit)
            tokens = stage.tokens(np.flatnonzero(beyond.any(axis=1)))
            if not len(tokens) or not np.isin(recorded[np.isin(recorded, tokens)], lost).all():
                continue
            spread = any(later.at.kind.over_tokens for later in stages[n:])
            gone[tokens] = True
            gone[(tokens.min() if _causal(stages) else 0) :] |= spread
            words = _words(stage, beyond, reached, kept)
            first = first or Culprit(stage.site, "numerics", "overflow", words, setting=(kept.name,))
            if gone[lost].all():
                return first
    return None


def _causal(stages: Sequence[Question]) -> bool:
    """Whether no token sees those behind it."""
    return all(stage.at.kind.causal for stage in stages if isinstance(stage.at.kind, Attention))


def _culprit(question: Question, lost: Flags, reached: _Reached, kept: Precision) -> Culprit:
    token, channel = np.argwhere(lost)[0]
    found = question.y[token, channel]
    words = f"{_words(question, lost, reached, kept)} and {'NaN' if np.isnan(found) else f'{found:.6g}'} was kept"
    return Culprit(question.site, "numerics", "overflow", words, setting=(kept.name,))


def _words(question: Question, lost: Flags, reached: _Reached, kept: Precision) -> str:
    token, channel = (int(place) for place in np.argwhere(lost)[0])
    at = question.tokens(np.array([token]))[0]
    return (
        f"{int(lost.sum())} of {lost.size} values are beyond {kept.largest:.6g}, the largest of {kept.name}: first at "
        f"token {at}, channel {channel}, where {reached.what} {reached.sizes[token, channel]:.6g}"
    )


def _reached(question: Question, strange: Flags) -> list[_Reached]:
    """The exact value itself; else the largest sum that may stand on the way to it."""
    found = [_Reached("the exact value is", np.abs(question.right), summed=False)]
    if isinstance(question.at.kind, Product) and strange.any():
        found.append(_Reached("the magnitudes that are added up come to", _magnitudes(question)))
    if isinstance(question.at.kind, Attention) and strange.any():
        found.append(_Reached("the largest product of a query and a key is", _scores(question)))
    return found


def _magnitudes(question: Question) -> Values:
    x, weights = np.abs(question.x["x"]), question.at.weights()
    parts = (
        np.abs(Stored.of(weight, rows).values.astype(np.float64)) for weight in weights for rows in row_chunks(weight)
    )
    return np.concatenate([x @ part.T for part in parts], axis=1)


def _scores(question: Question) -> Values:
    """The largest |q k| of every token and head, before it is scaled."""
    heads, count = Heads.of(question), len(question.y)
    seen = np.tri(count, dtype=bool)
    largest = [
        np.where(seen, np.abs(heads.q[:, head] @ heads.k[:, shared].T), 0).max(axis=1)
        for head, shared in enumerate(heads.owners().tolist())
    ]
    return np.repeat(np.stack(largest, axis=1), heads.q.shape[2], axis=1)
