"""Stored values that are no numbers: NaN and infinity, in a float or in the scale of a block.

A value of a quantized type is not finite exactly where a scale of its block is not, so only the scales are looked at;
where these are powers of two, the largest of them times a code may be beyond float32.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat, FloatFormat
from kernels.weight import TensorType, Weight

LARGEST_HALF = 65504.0
_OVERFLOWING = 253  # exponent whose power of two times the largest code is beyond float32
_MANTISSA = 23  # bits, of float32
_CHUNK = 1 << 20  # bytes that are looked at at once: what fits into a cache
_OVER = (np.greater_equal, np.greater)  # infinity: not finite, NaN


@dataclass(frozen=True, slots=True)
class NonFinite:
    """How many values of a tensor are NaN or infinite, and the first of them in canonical order.

    count, of : values not finite, and values in all; nan : those of `count` whose own float, or a scale of whose
    block, is NaN. columns : first and last column of the first place, a whole block where its scale is at fault.
    """

    type: TensorType
    count: int
    of: int
    nan: int
    row: int
    columns: tuple[int, int]

    @property
    def words(self) -> str:
        """What is found and where, to follow the name of the tensor."""
        kind = "NaN" if self.nan == self.count else "infinite" if not self.nan else "NaN or infinite"
        first, last = self.columns
        where = f"column {first}" if first == last else f"columns {first} to {last}, whose block has such a scale"
        are = f"{self.count} of {self.of} values are {kind}" if self.count > 1 else f"1 of {self.of} values is {kind}"
        return f"{are}, first in row {self.row}, {where}"


def nonfinite(weight: Weight) -> NonFinite | None:
    """What of a stored tensor is NaN or infinite; None where every value is a number."""
    block = 1 if getattr(weight.type.format, "d_as", "") == "E8M0" else weight.type.block.elements
    count, nan, places = 0, 0, list[tuple[int, int]]()
    for start, bad, bad_nan in _chunks(weight):
        count, nan = count + block * int(bad.sum()), nan + block * int(bad_nan.sum())
        rows = np.flatnonzero(bad.any(axis=1))
        places += zip(_canonical(weight, rows + start).tolist(), bad[rows].argmax(axis=1).tolist(), strict=True)
    if not places:
        return None
    row, column = min(places)
    columns = column * block, column * block + block - 1
    return NonFinite(weight.type, count, int(np.prod(weight.shape)), nan, row, columns)


def _canonical(weight: Weight, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    return rows if weight.order is None else np.argsort(weight.order)[rows]


_Flags = NDArray[np.bool_]


def _chunks(weight: Weight) -> Iterator[tuple[int, _Flags, _Flags]]:
    """First row, and which values (or blocks) of every row are not finite and which are NaN; only where some are."""
    step = max(1, _CHUNK // weight.stored.shape[1])
    for start in range(0, len(weight.stored), step):
        rows = weight.stored[start : start + step]
        parts, infinite = _floats(weight, rows)
        doubled = [np.left_shift(part, 1) for part in parts]
        if any(part.size and part.max() >= infinite for part in doubled):
            bad, bad_nan = (np.any([over(part, infinite) for part in doubled], axis=0) for over in _OVER)
            yield start, bad, bad_nan


def _floats(weight: Weight, rows: NDArray[np.uint8]) -> tuple[list[NDArray[Any]], int]:
    """The bits of the floats that decide, each (rows, places), and twice the bits of their infinity.

    Doubling drops the sign; NaN lies above infinity.
    """
    format = weight.type.format
    if isinstance(format, FloatFormat) and (format.saturates or format.mantissa > _MANTISSA):  # values as they are used
        return [_dequantized(weight, rows).view(np.uint32)], 2 * 0x7F800000
    if isinstance(format, FloatFormat):
        return [rows.view(f"u{format.block.bytes}")], 2 * format.infinity
    assert isinstance(format, BlockFormat)
    if format.d_as == "E8M0":
        large = bool((rows[:, format.d :: format.block.bytes] >= _OVERFLOWING).any())
        return ([_dequantized(weight, rows).view(np.uint32)] if large else []), 2 * 0x7F800000
    if format.d_as == "UE4M3":
        return [], 0xF800  # which is never that large
    blocks = rows.view(np.uint16).reshape(len(rows), -1, format.block.bytes // 2)
    if format.d_as == "nibbles":
        high = blocks[:, :, format.d // 2 : format.d // 2 + 4] >> np.uint16(12)
        return [np.bitwise_or.reduce(high << np.arange(0, 16, 4, dtype=np.uint16), axis=2)], 0xF800
    return [blocks[:, :, at // 2] for at in format.factors], 0xF800


def _dequantized(weight: Weight, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    from kernels.rows.dequantize import dequantize_rows

    return dequantize_rows(weight.type, np.ascontiguousarray(rows), weight.shape[-1])


def overflow_words(found: NonFinite, weight: Weight, other: Weight) -> str:
    """That the other side's value is beyond what half precision holds, where that is why; else nothing.

    found : of `weight`, stored in F16. other : the same tensor of the other side.
    """
    if found.type.name != "F16" or found.count == found.nan or other.shape != weight.shape:
        return ""
    value = _dequantized(other, other.rows[found.row : found.row + 1])
    source = abs(float(value[0, found.columns[0]]))
    if not np.isfinite(source) or source < LARGEST_HALF:
        return ""
    return f": the other side holds {source:.6g} there, beyond {LARGEST_HALF:.0f}, the largest number of F16"
