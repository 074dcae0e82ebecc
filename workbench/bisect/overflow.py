"""Values beyond the largest number of the type that an engine keeps: infinite, NaN, or stuck at the largest."""

from dataclasses import dataclass

import numpy as np

from workbench.bisect.customs import tensors_of
from workbench.bisect.floor import MATMUL_INPUT
from workbench.bisect.precision import FLOAT16, Precision
from workbench.bisect.runtime_mistakes.heads import Heads
from workbench.bisect.runtime_mistakes.mistake import Flags, Question, Values
from workbench.bisect.steps import Stored
from workbench.bisect.verdict import LIMIT, Culprit
from workbench.bisect.weight_check import row_chunks


@dataclass(frozen=True, eq=False)
class _Reached:
    """The largest magnitude that is kept on the way to every element of a stage's output, and what it is."""

    what: str
    sizes: Values


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


def _culprit(question: Question, lost: Flags, reached: _Reached, kept: Precision) -> Culprit:
    token, channel = (int(place) for place in np.argwhere(lost)[0])
    found, at = question.y[token, channel], question.tokens(np.array([token]))[0]
    words = (
        f"{int(lost.sum())} of {lost.size} values are beyond {kept.largest:.6g}, the largest of {kept.name}: first at "
        f"token {at}, channel {channel}, where {reached.what} {reached.sizes[token, channel]:.6g} and "
        f"{'NaN' if np.isnan(found) else f'{found:.6g}'} was kept"
    )
    return Culprit(question.site, "numerics", "overflow", words, setting=(kept.name,))


def _reached(question: Question, strange: Flags) -> list[_Reached]:
    """The exact value itself; else the largest sum that may stand on the way to it."""
    found = [_Reached("the exact value is", np.abs(question.right))]
    if question.stage in MATMUL_INPUT and strange.any():
        found.append(_Reached("the magnitudes that are added up come to", _magnitudes(question)))
    if question.stage == "attention" and strange.any():
        found.append(_Reached("the largest product of a query and a key is", _scores(question)))
    return found


def _magnitudes(question: Question) -> Values:
    x, model = np.abs(question.x[MATMUL_INPUT[question.stage]]), question.at.model
    weights = (model.weight(name) for name in tensors_of(question.site) if name in model and name.endswith(".weight"))
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
    return np.repeat(np.stack(largest, axis=1), question.config.head_dim, axis=1)
