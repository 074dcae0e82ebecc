"""The catalogue of mistakes that make one tensor from others, each a prediction of the wrong side's tensor.

A mistake is accepted only if what it predicts agrees with the wrong tensor within the rounding of the stored formats,
so a cause is never a matter of likeness. No side is the reference: what does not explain B from A may explain A from B.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from kernels.forward import Model
from workbench.bisect.other_tensors import other_tensors
from workbench.bisect.rearrangements import permuted_rope, rows_permuted, transposed
from workbench.bisect.roundings import requantized, truncated
from workbench.bisect.steps import Stored
from workbench.bisect.weight_check import WeightCheck
from workbench.bisect.weight_question import Prediction, Question, Region, Rows


@dataclass(frozen=True, slots=True)
class WeightCause:
    """A mistake that was tried.

    cause : slug. explanation : one sentence. residual : relative RMS left between prediction and tensor.
    explained : whether the residual is only rounding.
    """

    cause: str
    explanation: str
    residual: float
    explained: bool


def weight_causes(name: str, a: Model, b: Model, verdict: WeightCheck, touched: bool = False) -> list[WeightCause]:
    """Every mistake of the catalogue for one differing tensor, best first; never empty: the last one says unknown.

    verdict : of the plain comparison. touched : the tensor is known to be changed though its format would explain it.
    """
    sides = (("B", a, b), ("A", b, a))
    questions = [Question(name, side, right, wrong.weight(name), verdict, touched) for side, right, wrong in sides]
    tried: list[WeightCause] = []
    for question in questions:
        tried += [_tried(question, prediction) for prediction in _predictions(question)]
        tried += [WeightCause(*found) for found in requantized(question)]
        if any(cause.explained for cause in tried):
            break
    damaged = _damaged(questions[0])
    explained = sorted((c for c in tried if c.explained), key=lambda c: _SIMPLEST_FIRST.index(c.cause))
    rest = sorted((c for c in tried if not c.explained), key=lambda c: c.residual)
    return [*explained, *damaged, *rest, _unknown(questions[0])]


def _tried(question: Question, prediction: Prediction) -> WeightCause:
    residual, explained = question.judge(prediction)
    return WeightCause(prediction.cause, prediction.explanation, residual, explained)


_SIMPLEST_FIRST = (
    "zeroed",
    "sign_flipped",
    "norm_offset",
    "scaled",
    "permuted_rope",
    "gate_up_swapped",
    "qk_swapped",
    "tied_embedding",
    "wrong_layer",
    "transposed",
    "rows_permuted",
    "dtype_truncated",
    "requantized",
)


def _predictions(q: Question) -> Iterator[Prediction]:
    for candidate in _CANDIDATES:
        yield from candidate(q)


def _zeroed(q: Question) -> Iterator[Prediction]:
    for region in q.regions():
        if not q.b(q.sample).values[np.broadcast_to(region.of(q.sample), (len(q.sample), q.wrong.shape[-1]))].any():
            yield Prediction("zeroed", f"{q.what} is zero{region.words}", _changed(q, region, lambda a: a.scaled(0.0)))
            return


def _sign_flipped(q: Question) -> Iterator[Prediction]:
    for region in q.regions():
        words = f"{q.what} has the opposite sign{region.words}"
        yield Prediction("sign_flipped", words, _changed(q, region, lambda a: a.scaled(-1.0)))


def _scaled(q: Question) -> Iterator[Prediction]:
    """One common factor; people scale by round numbers, which rounding noise blurs in the fit."""
    for region in q.regions():
        fitted = _fitted_factor(q, region)
        if fitted is None:
            continue
        for factor in dict.fromkeys((round(fitted, 2), round(fitted, 3), fitted)):
            if factor not in (0.0, 1.0, -1.0) and abs(factor - fitted) < 0.01 * abs(fitted):
                words = f"{q.what} is multiplied by {factor:.6g}{region.words}"
                yield Prediction("scaled", words, _changed(q, region, partial(Stored.scaled, factor=factor)))


def _fitted_factor(q: Question, region: Region) -> float | None:
    """The factor between the two least-squares slopes over a region."""
    rows = q.all_rows if region.across else q.all_rows[region.mask[q.all_rows]]
    if not len(rows):
        return None
    mask = np.broadcast_to(region.of(rows), (len(rows), q.wrong.shape[-1]))
    a, b = (stored.values[mask].astype(np.float64) for stored in (q.a(rows), q.b(rows)))
    aa, ab, bb = float(a @ a), float(a @ b), float(b @ b)
    if not (aa and ab and np.isfinite(aa + bb)):
        return None
    # The side that is rounded more coarsely is the one whose errors bend its own slope.
    slope = ab / aa if _coarse(q.a(rows)) <= _coarse(q.b(rows)) else bb / ab
    return slope if 1e-4 < abs(slope) < 1e4 else None


def _coarse(stored: Stored) -> float:
    return float(np.square(stored.width, dtype=np.float64).mean())


def _norm_offset(q: Question) -> Iterator[Prediction]:
    if not q.name.endswith("norm.weight"):
        return
    row = np.zeros(1, dtype=np.int64)
    fitted = float((q.b(row).values.astype(np.float64) - q.a(row).values).mean())
    offset = round(fitted) if abs(fitted - round(fitted)) < 1e-3 else fitted
    if offset and np.isfinite(offset):
        words = f"{q.what} is off by {offset:+.6g}, as if a norm stored as w{-offset:+.6g} were taken for w"
        yield Prediction("norm_offset", words, lambda rows: _plus(q.a(rows), offset))


def _plus(stored: Stored, offset: float) -> Stored:
    values = stored.values + np.float32(offset)
    ulp = np.spacing(np.maximum(np.abs(values), np.abs(stored.values)))
    return Stored(values, stored.width + ulp)


def _changed(q: Question, region: Region, change: Callable[[Stored], Stored]) -> Callable[[Rows], Stored]:
    def rows_of(rows: Rows) -> Stored:
        before = q.a(rows)
        return change(before).where(np.broadcast_to(region.of(rows), before.values.shape), before)

    return rows_of


def _damaged(q: Question) -> Iterator[WeightCause]:
    """A minority of blocks is wrong and all others agree."""
    share = float(q.verdict.affected.mean())
    if 0 < share <= 0.5 and not q.is_vector:
        words = f"{q.name} is damaged {q.where()}; everything else agrees within rounding"
        yield WeightCause("corrupted_blocks", words, 0.0, True)


def _unknown(q: Question) -> WeightCause:
    cause = "bias_wrong" if q.name.endswith(".bias") else "unknown"
    words = f"{q.name} differs {q.where()} and no known mistake makes one side's values from the other's"
    return WeightCause(cause, words, q.verdict.rel_rms, cause == "bias_wrong")


_CANDIDATES: tuple[Callable[[Question], Iterator[Prediction]], ...] = (
    _zeroed,
    _sign_flipped,
    _norm_offset,
    _scaled,
    permuted_rope,
    other_tensors,
    transposed,
    rows_permuted,
    truncated,
)
