"""The right values with fewer digits than the format holds: floats cut or rounded, or quantized more coarsely."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.weight import BLOCKS, TensorType
from workbench.bisect.steps import Floats, Stored
from workbench.bisect.weight_check import BLOCK
from workbench.bisect.weight_question import Prediction, Question, Region, Rows

_MANTISSA = {TensorType.F32: 23, TensorType.F16: 10, TensorType.BF16: 7}
_NAMES = {10: "F16 or TF32", 7: "BF16", 3: "FP8 E4M3", 2: "FP8 E5M2"}
_LIKENESS = 0.5  # relative RMS beyond which no rounding is recognised
_FEWER = 0.97  # share of different values that tells a grid from chance, where it is certain
_SIGMAS = 6.0


def truncated(q: Question) -> Iterator[Prediction]:
    """Fewer mantissa bits than the type has: cut off, or rounded, at the last bit that any value uses."""
    if q.wrong.type not in _MANTISSA:
        return
    for region in q.regions():
        mask = np.broadcast_to(region.of(q.sample), (len(q.sample), q.wrong.shape[-1]))
        bits = np.bitwise_or.reduce(q.b(q.sample).values.view(np.uint32)[mask], initial=np.uint32(0))
        kept = 23 - _trailing_zeros(int(bits))
        if not 0 < kept <= min(_MANTISSA[q.wrong.type], 22):
            continue
        name = _NAMES.get(kept, f"{kept} bits after the point")
        for words, change in _ways(kept):
            yield Prediction(
                "dtype_truncated",
                f"{q.what} is {words} {name}{region.words}",
                partial(_rounded, q, change, region),
            )


def _rounded(q: Question, change: Callable[[Floats], Floats], region: Region, rows: Rows) -> Stored:
    return _with_values(q, rows, change, region.of(rows))


def _trailing_zeros(bits: int) -> int:
    return 23 if not bits & 0x7FFFFF else (bits & -bits).bit_length() - 1


def _ways(kept: int) -> Iterator[tuple[str, Callable[[Floats], Floats]]]:
    yield "cut off at", lambda x: cut(x, kept)
    yield "rounded to", lambda x: rounded(x, kept)
    if kept <= 10:
        yield "rounded to half precision's range of", lambda x: rounded(x, kept, -14)
    if kept == 3:
        yield "rounded to the range of", lambda x: rounded(x, kept, -6)


def cut(x: Floats, kept: int) -> Floats:
    """The values with all but `kept` mantissa bits cleared."""
    return (x.view(np.uint32) & np.uint32(0xFFFFFFFF << (23 - kept) & 0xFFFFFFFF)).view(np.float32)


def rounded(x: Floats, kept: int, smallest: int = -126) -> Floats:
    """The values rounded half to even to `kept` mantissa bits; 2^smallest is the least power with all of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        power = np.maximum(np.frexp(np.abs(x))[1] - 1, smallest)
        step = np.ldexp(1.0, power - kept)
        result: Floats = (np.round(x.astype(np.float64) / step) * step).astype(np.float32)
    return result


def _with_values(q: Question, rows: Rows, change: Callable[[Floats], Floats], where: NDArray[np.bool_]) -> Stored:
    """The right values changed; one whose source may lie on either side of an edge may come out on either side."""
    before = q.a(rows)
    values, low, high = (change(before.values + off) for off in (np.float32(0), -before.width, before.width))
    with np.errstate(invalid="ignore"):
        width = np.maximum(np.abs(low - values), np.abs(high - values))
    changed = Stored(values, np.where(np.isfinite(width), width, 0))
    return changed.where(np.broadcast_to(where, before.values.shape), before)


def requantized(q: Question) -> Iterator[tuple[str, str, float, bool]]:
    """Values on a coarser grid than the type they are stored in; (cause, words, residual, reproduces).

    What such a grid was cannot be told from A alone, so it is recognised by what it leaves: differences that are small
    beside the largest value of every run of 32, and many more equal values than A has once rounded like B.
    """
    if q.is_vector or q.wrong.shape[-1] % BLOCK:
        return
    if q.touched and q.verdict.explained:
        words = f"{q.what} is rounded otherwise than the tensors around it, within the steps of {q.wrong.type.name}"
        yield "requantized", words, q.verdict.rel_rms, True
        return
    rows = q.affected_rows if len(q.affected_rows) <= len(q.all_rows) else q.all_rows
    a, b = q.a(rows), q.b(rows)
    d = (b.values - a.values).astype(np.float64)
    size, off = float(np.linalg.norm(b.values.astype(np.float64))), float(np.linalg.norm(d))
    if not np.isfinite(off) or not 0 < off < _LIKENESS * size:
        return
    largest = np.abs(a.values.reshape(-1, BLOCK)).max(axis=1, keepdims=True)
    small = (np.abs(d).reshape(-1, BLOCK) <= 0.6 * np.maximum(largest, 1e-30)).all()
    step = 2 * np.maximum(b.width, 1e-30)
    like_b = a.values if BLOCKS[q.wrong.type].elements == 1 else (np.round(a.values / step) * step).astype(np.float32)
    fewer = any(_has_fewer(b.values, like_b, run) for run in (BLOCK, b.values.shape[1]))
    words = f"{q.what} has fewer different values than {q.wrong.type.name} keeps: it was quantized more coarsely before"
    yield "requantized", words, off / size, bool(small and fewer)


def _has_fewer(values: Floats, others: Floats, run: int) -> bool:
    """Whether runs of consecutive values hold fewer different magnitudes than runs of the other values do."""
    counts, most = (_different(x.reshape(-1, run)) for x in (values, others))
    lost = most - counts
    certain = lost.mean() > _SIGMAS * lost.std() / len(lost) ** 0.5
    return bool(counts.mean() <= _FEWER * most.mean() and (certain or len(lost) == 1))


def _different(runs: Floats) -> NDArray[np.int64]:
    ordered = np.sort(np.abs(runs), axis=1)
    return np.asarray((np.diff(ordered, axis=1) > 1e-6 * ordered[:, 1:]).sum(axis=1))
