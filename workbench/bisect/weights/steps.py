"""How far a stored value may be from the value it was made of: the steps of its own format.

Every quantizer of ggml picks the nearest code for the scales it has settled on, so a value with a code inside the
range lies within half a step of its source, whatever search found the scales and with whatever importance weights. A
value at an end of the range may have been cut off: its source lies anywhere beyond it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.formats.dequantize import dequantize_rows
from kernels.weight import TensorType, Weight

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

_ULP = {TensorType.F32: 2.0**-23, TensorType.F16: 2.0**-10, TensorType.BF16: 2.0**-7}
_SMALLEST = {TensorType.F32: 2.0**-149, TensorType.F16: 2.0**-24, TensorType.BF16: 2.0**-133}  # denormal steps
HALF_ROUNDING = np.float32(2.0**-25)  # of a scale that half precision can only hold as a denormal
# Q4_0 and Q5_0 round with one scale and store another, fitted to the rounded codes: by so much as a rule (fits.py).
FITTED_SCALE = np.float32(0.06)
_FITTED_CODES = {TensorType.Q4_0: 16, TensorType.Q5_0: 32}
_TOP = {TensorType.Q4_K: 15, TensorType.Q5_K: 31}


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Stored values and where their sources may lie; all arrays are (rows, columns).

    values : float32. width : half a step, float32. lowest, highest : codes at the ends of the range, beyond which
    sources were cut off; None for types that cut nothing off. fitted : number of codes where the scale of every block
    of 32 may be another one than the codes were rounded with, 0 for other types. top : highest code of types that may
    level a sub-block of 32 though its values are far apart (levelled.py), 0 for other types.
    """

    values: Floats
    width: Floats
    lowest: Flags | None = None
    highest: Flags | None = None
    fitted: int = 0
    top: int = 0

    @classmethod
    def of(cls, weight: Weight, rows: NDArray[np.int64] | slice = slice(None)) -> "Stored":
        """The chosen rows of a stored tensor; a vector is one row."""
        raw = np.ascontiguousarray(weight.rows[rows])
        values = dequantize_rows(weight.type, raw, weight.shape[-1])
        if weight.type in _ULP:
            return cls(values, _half_ulp(values, weight.type))
        blocks = raw.reshape(-1, _BLOCK_BYTES[weight.type])
        size, half, low, high = _GRIDS[weight.type](blocks)
        groups = values.reshape(-1, size)
        width = np.repeat(half.reshape(-1, 1), size, axis=1)
        if weight.type in _FITTED_CODES:
            width += np.abs(groups) * FITTED_SCALE
        if weight.type == TensorType.Q8_0:  # its scale is rounded to half precision after the codes are made
            width += np.abs(groups) * np.float32(2.0**-11)
            return cls(values, width.reshape(values.shape))
        ranged = (low != high).reshape(-1, 1)  # without a step there is no range to be cut off at
        lowest, highest = (((groups == edge.reshape(-1, 1)) & ranged).reshape(values.shape) for edge in (low, high))
        fitted, top = _FITTED_CODES.get(weight.type, 0), _TOP.get(weight.type, 0)
        return cls(values, width.reshape(values.shape), lowest, highest, fitted, top)

    @property
    def half_step(self) -> Floats:
        """The width without what a fit of the scale may add."""
        return np.asarray(self.width - np.abs(self.values) * np.float32(FITTED_SCALE if self.fitted else 0))

    def scaled(self, factor: float) -> "Stored":
        """The same times a factor."""
        low, high = (self.lowest, self.highest) if factor > 0 else (self.highest, self.lowest)
        values, width = self.values * np.float32(factor), self.width * np.float32(abs(factor))
        if not factor:
            return Stored(values, width, fitted=self.fitted)
        return replace(self, values=values, width=width, lowest=low, highest=high)

    def moved(self, rearrange: Callable[[NDArray[Any]], NDArray[Any]]) -> "Stored":
        """The same values elsewhere."""
        low, high = (None if x is None else rearrange(x) for x in (self.lowest, self.highest))
        return Stored(rearrange(self.values), rearrange(self.width), low, high, self.fitted, self.top)

    def exactly(self, values: Floats) -> "Stored":
        """Other values, known without rounding, in the place of these."""
        return Stored(values.astype(np.float32, copy=False), np.zeros_like(self.width))

    def where(self, mask: Flags, other: "Stored") -> "Stored":
        """These values where the mask holds, the other ones elsewhere."""
        low, high = (
            None if x is None and y is None else np.where(mask, _flags(x, mask), _flags(y, mask))
            for x, y in ((self.lowest, other.lowest), (self.highest, other.highest))
        )
        values, width = np.where(mask, self.values, other.values), np.where(mask, self.width, other.width)
        return Stored(values, width, low, high, max(self.fitted, other.fitted), max(self.top, other.top))

    def blocks(self, rows: NDArray[np.int64], blocks: NDArray[np.int64], size: int) -> "Stored":
        """Chosen blocks of `size` columns as rows."""
        return self.moved(lambda x: x.reshape(len(x), -1, size)[rows, blocks])


def _flags(flags: Flags | None, like: Flags) -> Flags:
    return np.zeros_like(like) if flags is None else flags


def _half_ulp(values: Floats, type: TensorType) -> Floats:
    power = (values.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)  # the power of two below |value|
    return np.asarray(np.maximum(power * np.float32(_ULP[type] / 2), np.float32(_SMALLEST[type] / 2)))


_Grid = tuple[int, Floats, Floats, Floats]  # values per group; of every group half a step, lowest and highest value


def _half(blocks: NDArray[np.uint8], at: int) -> Floats:
    result: Floats = blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)
    return result


def _grid_45_0(blocks: NDArray[np.uint8], codes: int) -> _Grid:
    step = _half(blocks, 0)
    ends = step * np.float32(-codes // 2), step * np.float32(codes // 2 - 1)
    half = np.abs(step) * np.float32(0.5) + HALF_ROUNDING * (codes // 2)
    return 32, half, np.minimum(*ends), np.maximum(*ends)


def _grid_q8_0(blocks: NDArray[np.uint8]) -> _Grid:
    step = np.abs(_half(blocks, 0))
    denormal = HALF_ROUNDING * np.float32(127) * (step < 2.0**-14)
    return 32, step * np.float32(0.5) + HALF_ROUNDING + denormal, step, step


def _grid_q45_k(blocks: NDArray[np.uint8], top: int) -> _Grid:
    d, dmin, packed = _half(blocks, 0), _half(blocks, 2), blocks[:, 4:16].astype(np.int32)
    scales = np.concatenate([packed[:, :4] & 63, (packed[:, 8:12] & 15) | ((packed[:, 0:4] >> 6) << 4)], axis=1)
    mins = np.concatenate([packed[:, 4:8] & 63, (packed[:, 8:12] >> 4) | ((packed[:, 4:8] >> 6) << 4)], axis=1)
    step, offset = d * scales.astype(np.float32), dmin * mins.astype(np.float32)
    ends = -offset, step * np.float32(top) - offset
    lost = _lost_scale(d, 63) * np.float32(top) + _lost_scale(dmin, 63)
    return 32, np.where(step == 0, lost, np.abs(step) * np.float32(0.5)), np.minimum(*ends), np.maximum(*ends)


def _grid_q6_k(blocks: NDArray[np.uint8]) -> _Grid:
    d, scales = _half(blocks, 208), blocks[:, 192:208].view(np.int8).astype(np.float32)
    step = d * scales
    ends = step * np.float32(-32), step * np.float32(31)
    lost = _lost_scale(d, 128) * np.float32(64)  # importance weights may fit a scale down to half of what rounded codes
    return 16, np.where(step == 0, lost, np.abs(step) * np.float32(0.5)), np.minimum(*ends), np.maximum(*ends)


def _lost_scale(d: Floats, top: int) -> Floats:
    """The largest scale of a sub-block that rounds to 0: half a unit, or any up to `top` units where the unit is 0.

    All values between the ends of such a sub-block become one, so each is off by up to the whole range of codes.
    """
    unit = np.abs(d)
    return np.where(unit == 0, top * HALF_ROUNDING, (unit + HALF_ROUNDING) * np.float32(0.5))


_BLOCK_BYTES = {
    TensorType.Q4_0: 18,
    TensorType.Q5_0: 22,
    TensorType.Q8_0: 34,
    TensorType.Q4_K: 144,
    TensorType.Q5_K: 176,
    TensorType.Q6_K: 210,
}
_GRIDS = {
    TensorType.Q4_0: lambda blocks: _grid_45_0(blocks, 16),
    TensorType.Q5_0: lambda blocks: _grid_45_0(blocks, 32),
    TensorType.Q8_0: _grid_q8_0,
    TensorType.Q4_K: lambda blocks: _grid_q45_k(blocks, _TOP[TensorType.Q4_K]),
    TensorType.Q5_K: lambda blocks: _grid_q45_k(blocks, _TOP[TensorType.Q5_K]),
    TensorType.Q6_K: _grid_q6_k,
}
