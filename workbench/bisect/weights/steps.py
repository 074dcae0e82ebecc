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

from kernels.formats.format import EIGHT_UNIT, BlockFormat, FloatFormat, Format
from kernels.packed.packed import Packed
from kernels.rows.dequantize import dequantize_rows
from kernels.rows.fields import codes, fields
from kernels.rows.reach import Reach, reaches
from kernels.weight import Weight
from workbench.bisect.weights.part_steps import steps, unequal

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

_MANTISSA = 23  # bits, of float32
HALF_ROUNDING = np.float32(2.0**-25)  # of a scale that half precision can only hold as a denormal
_HALF_ULP = np.float32(2.0**-11)  # of a number, that half precision may be off
# Where a scale is fitted, codes are rounded with one and another is stored: by so much as a rule (fits.py).
FITTED_SCALE = np.float32(0.06)
_POINTS_LEAN = 0.2  # by which a common factor of points of a grid may be off: 0.16 is the most found
_TERNARY_POINTS_LEAN = 0.22  # of IQ1, whose unit is fitted and then made 1.1125 or 1.125 times as large: 0.213 found


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Stored values and where their sources may lie; all arrays are (rows, columns).

    values : float32. width : half a step, float32. lowest, highest : codes at the ends of the range, beyond which
    sources were cut off; None for types that cut nothing off. fitted : number of codes where the scale of every block
    of 32 may be another one than the codes were rounded with, 0 for other types. line : whether that may be so of both
    the scale and the least value. top : highest code of types that may level a sub-block of `group` values though these
    are far apart (levelled.py), 0 for other types. lean : by which share of the values unequal steps may move a factor.
    flips : of points of a grid, how many of eight signs may be others; None for other types. carried : whether errors
    may have been carried over from value to value (carried.py). Of scales (scales.py) mean : how many values share one
    that is the mean of their magnitudes, 0 for other types; reached, shared : how far at least one source of so many
    values must lie, None where that is not known.
    """

    values: Floats
    width: Floats
    lowest: Flags | None = None
    highest: Flags | None = None
    fitted: int = 0
    line: bool = False
    top: int = 0
    group: int = 32
    lean: float = 0.0
    flips: int | None = None
    carried: bool = False
    mean: int = 0
    reached: Floats | None = None
    shared: int = 0

    @classmethod
    def of(cls, weight: Weight, rows: NDArray[np.int64] | slice = slice(None)) -> "Stored":
        """The chosen rows of a stored tensor; a vector is one row."""
        if isinstance(weight.stored, Packed):
            return _of_parts(weight.stored, np.arange(len(weight.stored))[rows])
        if weight.origin is not None:
            columns = weight.shape[-1]
            return cls.of(weight.origin, rows).moved(lambda x: x[:, :columns])
        raw, format = np.ascontiguousarray(weight.rows[rows]), weight.type.format
        if isinstance(format, BlockFormat) and format.grid is not None:
            return _on_grid(format, dequantize_rows(weight.type, raw, weight.shape[-1]), raw)
        values, width, ends = reaches(_reach(weight, raw), weight.shape[-1])
        if weight.less_one is not None and isinstance(weight.less_one.format, FloatFormat):
            width = width + half_ulp(values - np.float32(1), weight.less_one.format)
        if not isinstance(format, BlockFormat) or not format.cut:
            return cls(values, width, **rules(format))
        if format.scale_of == "mean":  # what its scale is too small for lies beyond it as well
            ends = np.where(values == 0, np.uint8(3), ends)
        stored = cls(values, width, ends & 1 != 0, ends & 2 != 0, **rules(format))
        return replace(stored, **_scale_of(format, raw, values.shape)) if format.scale_of else stored

    @property
    def half_step(self) -> Floats:
        """The width without what a fit of the scale may add."""
        return np.asarray(self.width - np.abs(self.values) * np.float32(FITTED_SCALE if self.fitted else 0))

    @property
    def reach(self) -> tuple[Floats, Floats, NDArray[np.uint8]]:
        """Values, widths and ends as kernels take them."""
        ends = np.zeros(self.values.shape, np.uint8)
        for flags, bit in ((self.lowest, 1), (self.highest, 2)):
            if flags is not None:
                ends |= flags * np.uint8(bit)
        values, width = (np.require(x, np.float32, ["C", "W"]) for x in (self.values, self.width))
        return values, width, ends

    @property
    def offset(self) -> bool:
        """Whether a block has a least value of its own, so that its range of codes is not about 0."""
        return self.line or self.top > 0

    def cut(self, sign: float) -> Flags:
        """Values beyond which, upward or downward, the source may lie anywhere."""
        flags = self.highest if sign > 0 else self.lowest
        return np.zeros(self.values.shape, dtype=bool) if flags is None else flags

    def scaled(self, factor: float) -> "Stored":
        """The same times a factor."""
        low, high = (self.lowest, self.highest) if factor > 0 else (self.highest, self.lowest)
        values, width = self.values * np.float32(factor), self.width * np.float32(abs(factor))
        if not factor:
            return Stored(values, width, fitted=self.fitted, line=self.line)
        reached = None if self.reached is None else self.reached * np.float32(abs(factor))
        return replace(self, values=values, width=width, lowest=low, highest=high, reached=reached)

    def moved(self, rearrange: Callable[[NDArray[Any]], NDArray[Any]]) -> "Stored":
        """The same values elsewhere, where nothing is known of whole blocks any more."""
        low, high = (None if x is None else rearrange(x) for x in (self.lowest, self.highest))
        values, width = rearrange(self.values), rearrange(self.width)
        return replace(self, values=values, width=width, lowest=low, highest=high, mean=0, reached=None)

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
        return Stored(values, width, low, high, **made_like(self, other))

    def blocks(self, rows: NDArray[np.int64], blocks: NDArray[np.int64], size: int) -> "Stored":
        """Chosen blocks of `size` columns as rows."""
        return self.moved(lambda x: x.reshape(len(x), -1, size)[rows, blocks])


def made_like(*sides: Stored) -> dict[str, Any]:
    """What holds of values that are some of each of these: the fields of `Stored` that are no arrays."""
    fitted, top, lean = (max(getattr(side, name) for side in sides) for name in ("fitted", "top", "lean"))
    group, line = min(side.group for side in sides), any(side.line for side in sides)
    flips = max((side.flips for side in sides if side.flips is not None), default=None)
    carried = any(side.carried for side in sides)
    made = {"fitted": fitted, "line": line, "top": top, "group": group, "lean": lean, "flips": flips}
    return made | {"carried": carried}


def _flags(flags: Flags | None, like: Flags) -> Flags:
    return np.zeros_like(like) if flags is None else flags


def _of_parts(packed: Packed, rows: NDArray[np.intp]) -> Stored:
    """The chosen rows of a tensor that is stored in parts."""
    return Stored(*steps(packed, packed.taken(rows)), lean=_lean(unequal(packed)), carried=packed.carried)


def half_ulp(values: Floats, format: FloatFormat) -> Floats:
    """How far a number may be from its nearest in a float type, or in float32 where that is coarser."""
    power = (values.view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)  # the power of two below |value|
    ulp = power * np.float32(2.0 ** (-min(format.mantissa, _MANTISSA) - 1))
    return np.asarray(np.maximum(ulp, np.float32(format.smallest / 2)))


def stored_reach(weight: Weight, rows: slice) -> Reach | None:
    """Consecutive rows as the one pass over two tensors takes them; None where a value says less, or more, of itself.

    Points of a grid, types of whose scales more is known, tensors that are stored in parts or were cut of others, and
    norms less 1 are such.
    """
    format, apart = weight.type.format, isinstance(weight.stored, Packed) or weight.origin is not None
    more = isinstance(format, BlockFormat) and (format.grid is not None or format.scale_of != "")
    if apart or more or weight.less_one is not None:
        return None
    return _reach(weight, np.require(weight.rows[rows], requirements=["C", "W"]))


def rules(format: Format) -> dict[str, Any]:
    """What a format says of all its values: the fields of `Stored` that are no arrays."""
    if not isinstance(format, BlockFormat):
        return {}
    line = format.fitted and format.least is not None
    found: dict[str, Any] = {"fitted": format.top + 1 if format.fitted and not line else 0, "line": line}
    if format.cut:
        found |= {"top": format.top if format.dmin is not None else 0, "group": min(format.group, 32)}
        found |= {"lean": _lean(format.levels)}
    return found


def _reach(weight: Weight, raw: NDArray[np.uint8]) -> Reach:
    """Rows with what their format says of every group of values; where steps are unequal, of every value."""
    format = weight.type.format
    if isinstance(format, FloatFormat):
        of_power, least = 2.0 ** (-min(format.mantissa, _MANTISSA) - 1), format.smallest / 2
        shares = np.array([0, 0, of_power, least, weight.step / 2], np.float32)
        return Reach(raw, np.array([weight.type, 0, 0]), shares, np.zeros((len(raw), 0, 4), np.float32))
    assert isinstance(format, BlockFormat)
    table, size = np.stack(_grid(format, raw.reshape(-1, format.block.bytes)), axis=-1), format.group
    if format.levels or (format.late and format.groups):
        table, size = np.repeat(table.reshape(-1, 4), size, axis=0).reshape(-1, size, 4), 1
        if format.levels:
            table[:, :, 0] *= _gaps(format, raw).reshape(table.shape[:2])
        if format.late and format.groups:
            table[:, :, 0] += _denormal_scale(format, raw, table.shape[:2])
    own = FITTED_SCALE if format.fitted and format.least is None else 0
    shares = np.array([own, _HALF_ULP if format.late else 0, 0, 0, 0], np.float32)
    numbers = np.array([weight.type, size, format.cut])
    groups = raw.shape[1] // format.block.bytes * (format.block.elements // size)
    return Reach(raw, numbers, shares, np.ascontiguousarray(table).reshape(len(raw), groups, 4))


def _grid(format: BlockFormat, blocks: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats, Floats]:
    """Of every group half a step, the values at the lower and upper end of the range of codes, and that of code 0."""
    found = fields(format, blocks)
    d, step = found.d[:, None], found.d[:, None] * found.scales.astype(np.float32)
    offset = np.zeros_like(step) if found.dmin is None else found.dmin[:, None] * found.mins.astype(np.float32)
    if found.least is not None:
        offset = -found.least[:, None]
    ends = tuple(step * np.float32(code) - offset for code in format.ends)
    half: Floats = np.abs(step) * np.float32(0.5)
    if format.groups:
        lost = _lost_scale(d, format.largest_scale) * np.float32(format.lost)
        if found.dmin is not None:
            lost = lost + _lost_scale(found.dmin[:, None], format.largest_scale)
        if format.d_as == "UE4M3":  # a scale below the smallest one there is
            lost = np.full_like(lost, EIGHT_UNIT * format.top)
        half = np.where(step == 0, lost, half)
    elif format.late:
        denormal = HALF_ROUNDING * np.float32(max(map(abs, format.ends))) * _is_denormal(d)
        half = half + HALF_ROUNDING + denormal + np.abs(offset) * _HALF_ULP
    else:
        half = half + HALF_ROUNDING * format.zero
    return half, np.minimum(*ends), np.maximum(*ends), -offset


def _on_grid(format: BlockFormat, values: Floats, raw: NDArray[np.uint8]) -> Stored:
    """A source has the sign of its value, or is a small one; it may be larger than its value by any factor."""
    found = fields(format, raw.reshape(-1, format.block.bytes))
    unit = np.abs(found.d[:, None] * found.scales.astype(np.float32))
    lost = HALF_ROUNDING * np.float32(format.largest_scale * format.top * format.unit)
    width: Floats = np.abs(values) + lost
    low, high = values < 0, values > 0
    if format.shifts is not None:  # codes are -1, 0 and 1, and of a value whose code is 0 nothing is certain
        steps = np.repeat(unit, format.group, axis=1).reshape(values.shape)
        zero = np.abs(values) < np.float32(0.5) * steps
        width += np.float32(0.6) * steps + lost  # what was beyond a code whose scale rounds to 0
        low, high = low | zero, high | zero
        return Stored(values, width, low, high, lean=_TERNARY_POINTS_LEAN, flips=1)
    # Scales are odd numbers, and what was rounded to one is at most 1 below it.
    share = (1 - 1 / found.scales.astype(np.float32)) * _at_least(np.abs(found.d))[:, None]
    reached = np.abs(values) * np.repeat(share, format.group, axis=1).reshape(values.shape)
    known: dict[str, Any] = {"reached": reached, "shared": format.group}
    return Stored(values, width, low, high, lean=_POINTS_LEAN, flips=int(format.even), **known)


def _scale_of(format: BlockFormat, raw: NDArray[np.uint8], shape: tuple[int, ...]) -> dict[str, Any]:
    """What is known of scales that are the mean or the largest of their block's magnitudes: fields of `Stored`."""
    size = format.block.elements
    if format.scale_of == "mean":
        return {"mean": size}
    d = np.abs(fields(format, raw.reshape(-1, format.block.bytes)).d)
    return {"reached": np.repeat(d * _at_least(d), size).reshape(shape), "shared": size}


def _at_least(d: Floats) -> Floats:
    """Which share of a stored scale it was at least, before half precision rounded it as a denormal number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(d > HALF_ROUNDING, 1 - HALF_ROUNDING / d, np.float32(0))


def _gaps(format: BlockFormat, raw: NDArray[np.uint8]) -> Floats:
    """The larger one of the distances between every code and its two neighbours, where levels are unequal."""
    levels = np.array(sorted(set(format.levels)))
    apart = np.diff(levels)
    larger = np.zeros(256, np.float32)
    larger[levels] = np.maximum(np.append(apart, 0), np.append(0, apart))  # negative levels from the end
    return np.asarray(larger[codes(format, raw.reshape(-1, format.block.bytes))])


def _lean(levels: tuple[float, ...]) -> float:
    """How far the values that become a level lie from it in the mean, where they are spread evenly; of levels within.

    As a share of the levels, weighted as a factor is: what the middle between both neighbours' bounds leans to a side.
    """
    if not levels:
        return 0.0
    ordered = np.array(sorted(set(levels)), np.float64)
    if ordered.size < 3:
        return 0.0
    within, shift = ordered[1:-1], (ordered[2:] - 2 * ordered[1:-1] + ordered[:-2]) / 4
    return float(abs((within * shift).sum()) / np.square(within).sum())


def _is_denormal(d: Floats) -> Floats:
    return (np.abs(d) < 2.0**-14).astype(np.float32)


def _denormal_scale(format: BlockFormat, raw: NDArray[np.uint8], shape: tuple[int, ...]) -> Floats:
    """What every value (groups, elements of one) may be off because its block's scale is a denormal number.

    The codes were rounded with the scale as it was: steps are as wrong as the scale is.
    """
    blocks = raw.reshape(-1, format.block.bytes)
    found = fields(format, blocks)
    unit = HALF_ROUNDING * _is_denormal(found.d[:, None]) * np.abs(found.scales).astype(np.float32)
    steps = np.abs(codes(format, blocks) - np.float32(format.zero)) + np.float32(format.gap / 2)
    return np.asarray(steps.reshape(shape) * unit.reshape(-1, 1))


def _lost_scale(d: Floats, top: int) -> Floats:
    """The largest scale of a group that rounds to 0: half a unit, or any up to `top` units where the unit is 0.

    All values between the ends of such a group become one, so each is off by up to the whole range of codes.
    """
    unit = np.abs(d)
    return np.where(unit == 0, top * HALF_ROUNDING, (unit + HALF_ROUNDING) * np.float32(0.5))
