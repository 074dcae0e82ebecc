"""Stored blocks taken apart in NumPy, many at once, with a name for every field.

The kernels unpack whole rows and keep nothing of it; this is for whoever wants to see what is in a block.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import EIGHT_UNIT, SHIFT, BlockFormat
from kernels.formats.grids import Grid

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """The fields of blocks but for the codes. d, dmin, least : (blocks,), d in its unit; None where there are none.

    scales, mins : int32 (blocks, groups); of a format without groups one scale that is 1, and no mins. shifts : float32
    (blocks, shifts), what codes are moved by; empty where they are not.
    """

    d: NDArray[np.float32]
    dmin: NDArray[np.float32] | None
    least: NDArray[np.float32] | None
    scales: NDArray[np.int32]
    mins: NDArray[np.int32]
    shifts: NDArray[np.float32]


def fields(format: BlockFormat, blocks: Bytes) -> Fields:
    """Take uint8 (blocks, bytes of one) apart."""
    stored = _Stored(blocks)
    scales: NDArray[Any] = np.ones((len(blocks), 1), np.int8)
    if format.d_as == "UE4M3":
        scales = _eights(blocks[:, format.d : format.d + format.groups])
    elif format.scales is not None:
        scales = np.asarray(format.scales(stored))
    mins = np.zeros((len(blocks), 0), np.int8) if format.mins is None else format.mins(stored)
    dmin, least = (None if at is None else _halves(blocks, at) for at in (format.dmin, format.least))
    flags = np.zeros((len(blocks), 0), np.uint8) if format.shifts is None else format.shifts(stored)
    shifts = np.where(flags, -SHIFT, SHIFT).astype(np.float32)
    integers = np.asarray(mins).astype(np.int32)
    return Fields(_numbers(format, blocks), dmin, least, scales.astype(np.int32), integers, shifts)


def codes(format: BlockFormat, blocks: Bytes) -> NDArray[np.int32]:
    """The codes of all elements as stored, (blocks, elements of one)."""
    return np.concatenate([np.asarray(lanes) for lanes in format.codes(_Stored(blocks))], axis=1).astype(np.int32)


def bytes_of_codes(format: BlockFormat) -> NDArray[np.intp]:
    """Which bytes of a block the codes are made of."""
    each = 255 * np.eye(format.block.bytes, dtype=np.uint8)
    return np.flatnonzero((codes(format, each) != codes(format, np.zeros_like(each))).any(axis=1))


def _halves(blocks: Bytes, at: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)[:, 0].astype(np.float32)


def _numbers(format: BlockFormat, blocks: Bytes) -> NDArray[np.float32]:
    """The scale of every block, in its unit."""
    if format.d_as == "E8M0":
        return _exponents(blocks[:, format.d])
    if format.d_as == "UE4M3":
        return np.full(len(blocks), EIGHT_UNIT, np.float32)
    if format.d_as == "nibbles":
        high = blocks[:, format.d + 1 : format.d + 8 : 2] >> 4
        return _halves(np.asarray(high[:, ::2] | high[:, 1::2] << 4), 0)
    halves = _halves(blocks, format.d)
    return halves if format.unit == 1 else halves * np.float32(format.unit)


def _eights(stored: Bytes) -> NDArray[np.int32]:
    """Unsigned floats with four bits of exponent and three of mantissa, in units of 2^-10; 0x7F is 0, as in ggml."""
    exponent, mantissa = (stored >> 3 & 15).astype(np.int32), (stored & 7).astype(np.int32)
    return np.where(stored == 0x7F, 0, np.where(exponent == 0, mantissa, (8 + mantissa) << np.maximum(exponent - 1, 0)))


def _exponents(stored: Bytes) -> NDArray[np.float32]:
    """2^(e - 128)."""
    return np.ldexp(np.float32(1), stored.astype(np.int32) - 128)


@dataclass(frozen=True)
class _Stored:
    """Bytes of blocks as `kernels.formats.format.Stored`, lanes being arrays (blocks, count)."""

    blocks: Bytes

    def bytes(self, at: int, count: int) -> Any:  # noqa: ANN401
        return self.blocks[:, at : at + count]

    def signed(self, at: int, count: int) -> Any:  # noqa: ANN401
        return self.bytes(at, count).view(np.int8)

    def bits(self, at: int, count: int) -> Any:  # noqa: ANN401
        return np.unpackbits(self.bytes(at, count // 8), axis=1, bitorder="little")

    def joined(self, *lanes: Any) -> Any:  # noqa: ANN401
        return np.concatenate(lanes, axis=1)

    def zipped(self, *lanes: Any) -> Any:  # noqa: ANN401
        return np.stack(lanes, axis=2).reshape(len(self.blocks), -1)

    def less(self, lanes: Any, number: int) -> Any:  # noqa: ANN401
        return lanes.view(np.int8) - np.int8(number)

    def looked_up(self, table: tuple[int, ...], lanes: Any) -> Any:  # noqa: ANN401
        return np.array(table, np.int8)[lanes]

    def repeated(self, number: int, count: int) -> Any:  # noqa: ANN401
        return np.full((len(self.blocks), count), number, np.uint8)

    def ternary(self, lanes: Any, place: int) -> Any:  # noqa: ANN401
        left = lanes * np.uint8(3**place)
        return (left.astype(np.uint16) * 3 >> 8).astype(np.uint8)

    def parts(self, at: int, firsts: tuple[int, ...], width: int) -> Any:  # noqa: ANN401
        words = np.ascontiguousarray(self.bytes(at, 4)).view("<u4")
        return (words >> np.array(firsts, np.uint32) & np.uint32((1 << width) - 1)).astype(np.uint8)

    def spread(self, lanes: Any) -> Any:  # noqa: ANN401
        return np.unpackbits(lanes, axis=1, bitorder="little")

    def points(self, grid: Grid, low: Any, high: Any = None) -> Any:  # noqa: ANN401
        numbers = low if high is None else low | high.astype(np.int32) << 8
        return np.array(grid.points, np.int8)[numbers].reshape(len(self.blocks), -1)

    def negated(self, lanes: Any, flags: Any) -> Any:  # noqa: ANN401
        return np.where(flags, -lanes, lanes)
