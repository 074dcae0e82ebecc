"""Stored blocks taken apart in NumPy, many at once, with a name for every field.

The kernels unpack whole rows and keep nothing of it; this is for whoever wants to see what is in a block.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.formats.format import BlockFormat

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Fields:
    """The fields of blocks but for the codes. d, dmin, least : (blocks,), None where the format has none.

    scales, mins : int32 (blocks, groups); of a format without groups one scale that is 1, and no mins.
    """

    d: NDArray[np.float32]
    dmin: NDArray[np.float32] | None
    least: NDArray[np.float32] | None
    scales: NDArray[np.int32]
    mins: NDArray[np.int32]


def fields(format: BlockFormat, blocks: Bytes) -> Fields:
    """Take uint8 (blocks, bytes of one) apart."""
    stored = _Stored(blocks)
    scales = np.ones((len(blocks), 1), np.int8) if format.scales is None else format.scales(stored)
    mins = np.zeros((len(blocks), 0), np.int8) if format.mins is None else format.mins(stored)
    dmin, least = (None if at is None else _halves(blocks, at) for at in (format.dmin, format.least))
    integers = (np.asarray(found).astype(np.int32) for found in (scales, mins))
    return Fields(
        _exponents(blocks[:, format.d]) if format.exponent else _halves(blocks, format.d), dmin, least, *integers
    )


def codes(format: BlockFormat, blocks: Bytes) -> NDArray[np.int32]:
    """The codes of all elements as stored, (blocks, elements of one)."""
    return np.concatenate([np.asarray(lanes) for lanes in format.codes(_Stored(blocks))], axis=1).astype(np.int32)


def bytes_of_codes(format: BlockFormat) -> NDArray[np.intp]:
    """Which bytes of a block the codes are made of."""
    each = 255 * np.eye(format.block.bytes, dtype=np.uint8)
    return np.flatnonzero((codes(format, each) != codes(format, np.zeros_like(each))).any(axis=1))


def _halves(blocks: Bytes, at: int) -> NDArray[np.float32]:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)[:, 0].astype(np.float32)


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
