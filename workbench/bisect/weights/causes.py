"""The catalogue of mistakes that make one tensor from others, each a prediction of the wrong side's tensor.

A mistake is accepted only if what it predicts agrees with the wrong tensor within the rounding of the stored formats,
or within that of a coarser grid that the wrong tensor lies on, so a cause is never a matter of likeness. No side is the
reference: what does not explain B from A may explain A from B.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kernels.graph import Model
from kernels.rows.reach import BLOCK
from workbench.bisect.weights.check import (
    LIMIT,
    ONCE,
    ROUNDED_ONCE,
    WeightCheck,
    excess_of,
    rounded_once,
    row_chunks,
    strangers,
)
from workbench.bisect.weights.decays import decays_otherwise
from workbench.bisect.weights.factors import changed, scaled, scaled_within_steps, scales, sign_flipped
from workbench.bisect.weights.fused_rows import rank_by_rank
from workbench.bisect.weights.judging import Judge, WeightCause
from workbench.bisect.weights.low_rank import low_rank
from workbench.bisect.weights.misread_parts import misread_parts
from workbench.bisect.weights.offsets import group_offset, norm_offset
from workbench.bisect.weights.other_tensors import other_tensors
from workbench.bisect.weights.points import on_grid
from workbench.bisect.weights.question import Prediction, Question, Rows
from workbench.bisect.weights.rearrangements import permuted_rope, rows_permuted, transposed
from workbench.bisect.weights.rounded_twice import first_type
from workbench.bisect.weights.roundings import truncated
from workbench.bisect.weights.steps import Stored
from workbench.tensors.nonfinite import LARGEST_HALF

_Candidates = Callable[[Question], Iterator[Prediction]]
_FEW_BLOCKS, _FAR = 8, 2 * LIMIT  # of BLOCK values, a super-block; steps of both formats


def weight_causes(
    name: str, a: Model, b: Model, verdict: WeightCheck, touched: bool = False, known: Sequence[str] = ()
) -> list[WeightCause]:
    """Every mistake of the catalogue for one differing tensor, best first; never empty: the last one says unknown.

    verdict : of the plain comparison. touched : the tensor is known to be changed though its format would explain it.
    known : causes found in other tensors; they are tried first, and one that explains this tensor too is its cause.
    Of a tensor whose formats explain all nothing is tried.
    What has to be searched for is tried only where nothing else explains the tensor. A mistake with a coarser rounding
    on top is two, and nothing beside one; what agrees within rounding is nothing beside what agrees exactly.
    """
    sides = (("B", a, b), ("A", b, a))
    judges = [Judge(Question(name, side, right, wrong.weight(name), verdict, touched)) for side, right, wrong in sides]
    if verdict.explained and not touched:
        return [WeightCause("unknown", f"{name} differs by no more than its formats explain", verdict.rel_rms, False)]
    for judge in judges:
        if (found := _rounded_twice(judge.question)) is not None:
            return [found, _unknown(judges[0].question)]
    for judge in judges:  # of parts, whichever side has them: what else may explain it stands for less
        if (found := _first_explained(judge, misread_parts)) is not None:
            return [found, _unknown(judges[0].question)]
    for judge in judges:
        if (found := _known_again(judge, known)) is not None:
            return [found, _unknown(judges[0].question)]
    tried: list[WeightCause] = []
    for candidates in (_AT_ONCE, _SEARCHED):
        for judge in judges:
            tried += judge.rounding_alone() if candidates is _AT_ONCE else []
            for prediction in (prediction for candidate in candidates for prediction in candidate(judge.question)):
                if not any(cause.explained and cause.cause == prediction.cause for cause in tried):
                    tried.append(judge.judged(prediction))
            if any(cause.explained for cause in tried):
                break
        if any(cause.explained for cause in tried):
            break
    explained = sorted(
        (c for c in tried if c.explained),
        key=lambda c: (c.rounded, c.residual > 0, c.cause not in known, _SIMPLEST_FIRST.index(c.cause)),
    )
    explained = [
        c for c in explained if (c.rounded, c.residual > 0) <= (explained[0].rounded, explained[0].residual > 0)
    ]
    rest = sorted((c for c in tried if not c.explained), key=lambda c: c.residual)
    return [*explained, *_damaged(judges[0].question), *rest, _unknown(judges[0].question)]


_SIMPLEST_FIRST = (
    "zeroed",
    "recurrence",
    "overflow",
    "sign_flipped",
    "norm_offset",
    "scaled",
    "permuted_rope",
    "gate_up_swapped",
    "qk_swapped",
    "tied_embedding",
    "expert_order",
    "wrong_layer",
    "transposed",
    "rows_permuted",
    "dtype_truncated",
    "requantized",
    "group_offset",
    "low_rank",
)


def _first_explained(judge: Judge, candidates: _Candidates) -> WeightCause | None:
    """The first mistake of a kind that explains the tensor with no coarser rounding on top."""
    judged = map(judge.judged, candidates(judge.question))
    return next((found for found in judged if found.explained and not found.rounded), None)


def _known_again(judge: Judge, known: Sequence[str]) -> WeightCause | None:
    """A known cause that explains the tensor; with a coarser rounding on top only if that alone does not."""
    candidates = [candidate for cause in known for candidate in _OF_CAUSE.get(cause, ())]
    for prediction in (prediction for candidate in candidates for prediction in candidate(judge.question)):
        found = judge.judged(prediction)
        if found.explained and found.cause in known and not (found.rounded and judge.rounding_alone()):
            return found
    return None


def _rounded_twice(q: Question) -> WeightCause | None:
    """The right values in another type before the wrong one's; these two roundings leave nothing else to be found."""
    if (first := first_type(q)) is None:
        return None
    words = f"{q.what} was rounded to {first.name} first, then to {q.wrong.type.name}"
    return WeightCause("requantized", words, q.verdict.rel_rms, True)


def _zeroed(q: Question) -> Iterator[Prediction]:
    for region in q.regions():
        if not q.b(q.sample).values[np.broadcast_to(region.of(q.sample), (len(q.sample), q.wrong.shape[-1]))].any():
            yield Prediction("zeroed", f"{q.what} is zero{region.words}", changed(q, region, lambda a: a.scaled(0.0)))
            return


def _overflow(q: Question) -> Iterator[Prediction]:
    """Values beyond the largest that half precision holds."""
    if q.wrong.type.name != "F16":
        return

    def rows_of(rows: Rows) -> Stored:
        before = q.a(rows)
        beyond = np.abs(before.values) > LARGEST_HALF
        return before.exactly(np.copysign(np.float32(np.inf), before.values)).where(beyond, before)

    words = f"values of {q.what} that are beyond {LARGEST_HALF:.0f}, the largest number of F16, became infinite"
    yield Prediction("overflow", words, rows_of)


def _damaged(q: Question) -> Iterator[WeightCause]:
    """A minority of blocks is wrong, or some values are no numbers, and all others agree."""
    minority = 0 < float(q.verdict.affected.mean()) <= 0.5 and not q.is_vector
    if (minority and _stands_out(q)) or (not np.isfinite(q.verdict.worst) and _only_numbers_lost(q)):
        words = f"{q.name} is damaged {q.where()}; everything else agrees within rounding"
        yield WeightCause("corrupted_blocks", words, 0.0, True)


def _stands_out(q: Question) -> bool:
    """Whether the affected blocks are far off or few, and all others differ as rounding makes them.

    Values that were rounded twice are a little too far off, in blocks that chance picks all over a tensor. How far off
    values of points of a grid are tells nothing; there a block is far off that is no copy of the other side's.
    """
    total, count, off_once, worst, points = 0.0, 0, 0, [], False
    for part in row_chunks(q.wrong):
        rows = np.arange(part.start, part.stop)
        a, b, affected = q.a(rows), q.b(rows), q.verdict.affected[rows]
        excess, points = excess_of(a, b), on_grid(a, b)
        off = np.maximum.reduceat(excess, np.arange(0, excess.shape[1], BLOCK), axis=1)
        worst.append(np.where(strangers(a, b), np.float32(np.inf), np.float32(0) if points else off)[affected])
        sound = ~np.repeat(affected, BLOCK, axis=1)[:, : excess.shape[1]]
        total += float(np.square(excess[sound], dtype=np.float64).sum())
        off_once += int((excess[sound] > ONCE).sum())
        count += int(sound.sum())
    far = np.concatenate(worst)
    if points:
        return float(np.median(far)) > _FAR
    few = far.size <= _FEW_BLOCKS and rounded_once(off_once, count, fitted=False)
    return total <= ROUNDED_ONCE * count and (few or float(np.median(far)) > _FAR)


def _only_numbers_lost(q: Question) -> bool:
    """Whether one side has values that are not finite, and all that are finite on both agree."""
    lost = False
    for part in row_chunks(q.wrong):
        a, b = q.a(np.arange(part.start, part.stop)), q.b(np.arange(part.start, part.stop))
        finite = np.isfinite(a.values) & np.isfinite(b.values)
        lost |= not finite.all()
        if (excess_of(a, b)[finite] > LIMIT).any():
            return False
    return lost


def _unknown(q: Question) -> WeightCause:
    cause = "bias_wrong" if q.name.endswith(".bias") else "unknown"
    words = f"{q.name} differs {q.where()} and no known mistake makes one side's values from the other's"
    return WeightCause(cause, words, q.verdict.rel_rms, cause == "bias_wrong")


_OF_CAUSE: dict[str, tuple[_Candidates, ...]] = {
    "sign_flipped": (sign_flipped,),
    "scaled": (scaled,),
    "permuted_rope": (permuted_rope,),
    "transposed": (transposed,),
    "rows_permuted": (rank_by_rank,),
    "group_offset": (group_offset,),
    "low_rank": (low_rank,),
}
_AT_ONCE: tuple[_Candidates, ...] = (
    _zeroed,
    _overflow,
    sign_flipped,
    norm_offset,
    decays_otherwise,
    scaled,
    permuted_rope,
    other_tensors,
    rank_by_rank,
    transposed,
    truncated,
    group_offset,
)
_SEARCHED: tuple[_Candidates, ...] = (scaled_within_steps, scales, rows_permuted, low_rank)
