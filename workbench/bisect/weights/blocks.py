"""One block of a stored tensor, taken apart for whoever wants to see what is in it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat
from kernels.packed.packed import Packed
from kernels.rows.dequantize import dequantize_rows
from kernels.rows.fields import codes, fields
from kernels.weight import TensorType


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One block: value i is d * scales[s] * (codes[i] - zero + shifts[t]) - dmin * mins[s] + least.

    s is the sub-block of i, and t the place of i among the shifts.

    raw : as stored; empty of values that are made of several stored parts, whose d is the scale that they share and
    whose scales are those of single elements where they share none. d, dmin, least : floats; None where the format has
    none. scales, mins : integers of the sub-blocks; empty where the format has none. shifts : float32, empty where the
    format has none. codes : as stored, or what they stand for; empty for a float format.
    values : what the block stands for, float32, bit for bit as ggml dequantizes it.
    """

    raw: bytes
    d: np.float32 | None
    dmin: np.float32 | None
    least: np.float32 | None
    scales: NDArray[np.int32] | NDArray[np.float32]
    mins: NDArray[np.int32]
    shifts: NDArray[np.float32]
    codes: NDArray[np.int32]
    zero: int
    values: NDArray[np.float32]


def read_parts(packed: Packed, row: int, most: int) -> Iterator[Block]:
    """Take a row that is stored in parts apart: runs of columns of one group, or of `most` where groups are no runs."""
    taken = packed.taken(np.array([row]))
    values, groups = packed.made_of(taken)[0], packed.groups
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    if len(starts) > len(np.unique(groups)):
        starts = np.arange(0, len(groups), most)
    none, shifts = np.zeros(0, np.int32), np.zeros(0, np.float32)
    for start, stop in zip(starts, [*starts[1:], len(groups)], strict=True):
        here = slice(start, stop)
        scales, one = taken.scales[0, here], len(np.unique(groups[here])) == 1
        least = None if taken.offsets is None else taken.offsets[0, start]
        zero = 0 if taken.zeros is None else int(taken.zeros[0, start])
        codes = taken.codes[0, here].astype(np.int32)
        yield Block(
            b"",
            scales[0] if one else None,
            None,
            least,
            none if one else scales,
            none,
            shifts,
            codes,
            zero,
            values[here],
        )


def read_block(type: TensorType, raw: bytes) -> Block:
    """Take one block of a quantized row apart; of a float row any number of values."""
    format, stored = type.format, np.frombuffer(raw, np.uint8).reshape(1, -1)
    if not isinstance(format, BlockFormat):
        none = np.zeros(0, np.int32)
        elements = len(raw) // format.block.bytes
        shifts, values = np.zeros(0, np.float32), dequantize_rows(type, stored, elements)[0]
        return Block(raw, None, None, None, none, none, shifts, none, 0, values)
    found, stored_codes = fields(format, stored), codes(format, stored)[0]
    d, (dmin, least) = found.d[0], (None if halves is None else halves[0] for halves in (found.dmin, found.least))
    scales, mins, shifts, size = found.scales[0], found.mins[0], found.shifts[0], format.group
    values = (stored_codes - format.zero).astype(np.float32)
    if shifts.size:
        values += np.repeat(shifts, format.shifted)
    values = values * np.repeat(d * scales.astype(np.float32), size)
    if dmin is not None:
        values -= np.repeat(dmin * mins.astype(np.float32), size)
    if least is not None:
        values += least
    return Block(raw, d, dmin, least, scales, mins, shifts, stored_codes, format.zero, values)
