"""The right values with fewer bits than the format holds: cut off or rounded."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import FloatFormat
from workbench.bisect.weights.question import Prediction, Question, Region, Rows
from workbench.bisect.weights.steps import Floats, Stored

_NAMES = {10: "F16 or TF32", 7: "BF16", 3: "FP8 E4M3", 2: "FP8 E5M2"}


def truncated(q: Question) -> Iterator[Prediction]:
    """Fewer mantissa bits than the type has: cut off, or rounded, at the last bit that any value uses."""
    format = q.wrong.type.format
    if not isinstance(format, FloatFormat):
        return
    for region in q.regions():
        mask = np.broadcast_to(region.of(q.sample), (len(q.sample), q.wrong.shape[-1]))
        bits = np.bitwise_or.reduce(q.b(q.sample).values.view(np.uint32)[mask], initial=np.uint32(0))
        kept = 23 - trailing_zeros(int(bits))
        if not 0 < kept <= min(format.mantissa, 22):
            continue
        name = name_of_bits(kept)
        for words, change in _ways(kept):
            yield Prediction(
                "dtype_truncated",
                f"{q.what} is {words} {name}{region.words}",
                partial(_rounded, q, change, region),
            )


def _rounded(q: Question, change: Callable[[Floats], Floats], region: Region, rows: Rows) -> Stored:
    return _with_values(q, rows, change, region.of(rows))


def name_of_bits(kept: int) -> str:
    """The float format that keeps so many bits of the mantissa."""
    return _NAMES.get(kept, f"{kept} bits after the point")


def trailing_zeros(bits: int) -> int:
    """Bits at the end of a float32's mantissa that are zero."""
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
