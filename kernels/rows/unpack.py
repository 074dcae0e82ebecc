"""Stored quantized rows to integers: codes, group scales, group mins and half-precision factors.

A row of n elements unpacks into codes int8 (n,), scales int32, mins int16, d and dmin float32 per block; the least
value of a block is in the place of dmin. A scale is there twice, in the upper and in the lower half of its 32 bits, as
the dot products want it. Codes have their zero taken off where a block has one scale; with scales of groups they stand
as stored, and min is -zero * scale where the format has no mins of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.formats.format import SHIFT, BlockFormat
from kernels.formats.grids import Grid
from kernels.machine.compiler import helper
from kernels.machine.vectors import F32, I8, I16, I32, Vectors, array_intrinsic


class _Lanes:
    """8-bit lanes of an LLVM vector; four of them are one 32-bit word, which can be shifted at once."""

    def __init__(self, v: Vectors, value: Any, *, signed: bool = False) -> None:  # noqa: ANN401
        self.v, self.value, self.is_signed = v, value, signed

    def __and__(self, mask: int) -> "_Lanes":
        if self.value.type == I32:
            return _Lanes(self.v, self.v.b.and_(self.value, I32(mask * 0x01010101)))
        return _Lanes(self.v, self.v.masked(self.value, mask))

    def __or__(self, other: "_Lanes") -> "_Lanes":
        return _Lanes(self.v, self.v.b.or_(self.value, other.value))

    def __xor__(self, other: "_Lanes") -> "_Lanes":
        return _Lanes(self.v, self.v.b.xor(self.value, other.value))

    def __lshift__(self, bits: int) -> "_Lanes":
        if self.value.type == I32:
            return _Lanes(self.v, self.v.b.shl(self.value, I32(bits))) & (0xFF << bits & 0xFF)
        return _Lanes(self.v, self.v.shifted(self.value, -bits))

    def __rshift__(self, bits: int) -> "_Lanes":
        if self.value.type == I32:
            return _Lanes(self.v, self.v.b.lshr(self.value, I32(bits))) & (0xFF >> bits)
        return _Lanes(self.v, self.v.shifted(self.value, bits))

    @property
    def vector(self) -> Any:  # noqa: ANN401
        """The lanes as a vector of bytes."""
        four = self.value.type == I32
        return self.v.b.bitcast(self.value, ir.VectorType(I8, 4)) if four else self.value

    @property
    def wide(self) -> Any:  # noqa: ANN401
        """The lanes as int16."""
        widen = self.v.b.sext if self.is_signed else self.v.b.zext
        return widen(self.vector, ir.VectorType(I16, self.vector.type.count))


@dataclass(frozen=True)
class _Stored:
    """The block that begins at `raw`."""

    v: Vectors
    raw: Any

    def bytes(self, at: int, count: int) -> _Lanes:
        stored = self.v.load(I8, count, self.raw, ir.Constant(ir.IntType(64), at))
        return _Lanes(self.v, self.v.b.bitcast(stored, I32) if count == 4 else stored)

    def signed(self, at: int, count: int) -> _Lanes:
        return _Lanes(self.v, self.bytes(at, count).vector, signed=True)

    def bits(self, at: int, count: int) -> _Lanes:
        return self.spread(self.bytes(at, count // 8))

    def joined(self, *lanes: _Lanes) -> _Lanes:
        vectors = [each.vector for each in lanes]
        while len(vectors) > 1:
            vectors = [self.v.joined(*pair) for pair in zip(vectors[::2], vectors[1::2], strict=True)]
        return _Lanes(self.v, vectors[0])

    def zipped(self, *lanes: _Lanes) -> _Lanes:
        vector, count = self.joined(*lanes).vector, lanes[0].vector.type.count
        places = [place * count + n for n in range(count) for place in range(len(lanes))]
        return _Lanes(self.v, self.v.pick(vector, vector, places))

    def less(self, lanes: _Lanes, number: int) -> _Lanes:
        vector = lanes.vector
        return _Lanes(self.v, self.v.b.sub(vector, self.v.constant(I8, vector.type.count, number)), signed=True)

    def looked_up(self, table: tuple[int, ...], lanes: _Lanes) -> _Lanes:
        return _Lanes(self.v, self.v.looked_up(table, lanes.vector), signed=True)

    def repeated(self, number: int, count: int) -> _Lanes:
        return _Lanes(self.v, self.v.constant(I8, count, number))

    def ternary(self, lanes: _Lanes, place: int) -> _Lanes:
        v, vector = self.v, lanes.vector
        count = vector.type.count
        wide = v.b.zext(v.b.mul(vector, v.constant(I8, count, 3**place)), ir.VectorType(I16, count))
        high = v.shifted(v.b.mul(wide, v.constant(I16, count, 3)), 8)
        return _Lanes(v, v.b.trunc(high, vector.type))

    def parts(self, at: int, firsts: tuple[int, ...], width: int) -> _Lanes:
        v, count = self.v, len(firsts)
        word = v.b.bitcast(self.bytes(at, 4).vector, I32)
        shifts = ir.Constant(ir.VectorType(I32, count), list(firsts))
        found = v.masked(v.b.lshr(v.splat(word, count), shifts), (1 << width) - 1)
        return _Lanes(v, v.b.trunc(found, ir.VectorType(I8, count)))

    def spread(self, lanes: _Lanes) -> _Lanes:
        count = 8 * lanes.vector.type.count
        single = self.v.b.bitcast(lanes.vector, ir.VectorType(ir.IntType(1), count))
        return _Lanes(self.v, self.v.b.zext(single, ir.VectorType(I8, count)))

    def points(self, grid: Grid, low: _Lanes, high: _Lanes | None = None) -> _Lanes:
        """Each point is one integer of a table, read at its number."""
        v, b, count = self.v, self.v.b, low.vector.type.count
        point, wide = ir.IntType(8 * grid.length), ir.VectorType(I32, count)
        numbers = b.zext(low.vector, wide)
        if high is not None:
            numbers = b.or_(numbers, v.shifted(b.zext(high.vector, wide), -8))
        table = v.table(f"{len(grid.points)}x{grid.length}", point, [_as_integer(one) for one in grid.points])
        found = ir.Constant(ir.VectorType(point, count), ir.Undefined)
        for n in range(count):
            place = b.gep(table, [I32(0), b.extract_element(numbers, I32(n))])
            found = b.insert_element(found, b.load(place), I32(n))
        return _Lanes(v, v.as_lanes(found, I8), signed=True)

    def negated(self, lanes: _Lanes, flags: _Lanes) -> _Lanes:
        b, negative = self.v.b, self.v.b.neg(flags.vector)
        return _Lanes(self.v, b.sub(b.xor(lanes.vector, negative), negative), signed=True)

    def number(self, format: BlockFormat) -> Any:  # noqa: ANN401
        """The scale of the block in its unit, as one lane of float32; of groups with floats, one for each."""
        if format.d_as == "UE4M3":
            return self.eights(format.d, format.groups)
        if format.d_as == "E8M0":
            return self.exponent(format.d)
        found = self.nibbles(format.d) if format.d_as == "nibbles" else self.half(format.d)
        return found if format.unit == 1 else self.v.b.fmul(found, self.v.constant(F32, 1, format.unit))

    def eights(self, at: int, count: int) -> Any:  # noqa: ANN401
        """Unsigned floats of 8 bits, halved as ggml has them: the upper bits of a float32 after its sign; 0x7F is 0.

        The exponent is off by 119; a product sets that right, and is exact for denormal ones as well.
        """
        v, b = self.v, self.v.b
        stored = b.zext(self.bytes(at, count).vector, ir.VectorType(I32, count))
        bits = b.bitcast(v.shifted(v.masked(stored, 0x7F), -20), ir.VectorType(F32, count))
        scaled = b.fmul(bits, v.constant(F32, count, 2.0**119))
        none = b.icmp_unsigned("==", stored, v.constant(I32, count, 0x7F))
        return b.select(none, v.constant(F32, count, 0.0), scaled)

    def nibbles(self, at: int) -> Any:  # noqa: ANN401
        """The half-precision number that is the highest four bits of four words."""
        high = self.joined(*(self.parts(word, (12, 28), 4) for word in (at, at + 4))).vector
        even, odd = (self.v.pick(high, high, [first, first + 2]) for first in (0, 1))
        together = self.v.b.or_(even, self.v.shifted(odd, -4))
        return self.v.from_half(self.v.as_lanes(together, I16))

    def half(self, at: int) -> Any:  # noqa: ANN401
        """The half-precision number at a byte offset, as one lane of float32."""
        return self.v.from_half(self.v.as_lanes(self.bytes(at, 2).value, I16))

    def exponent(self, at: int) -> Any:  # noqa: ANN401
        """2^(e - 128), of the byte e at an offset; the two least ones are denormal numbers."""
        b, lane = self.v.b, ir.VectorType(I32, 1)
        e = b.zext(self.bytes(at, 1).vector, lane)
        normal = self.v.shifted(b.sub(e, self.v.constant(I32, 1, 1)), -23)
        denormal = b.shl(self.v.constant(I32, 1, 1 << 21), e)
        bits = b.select(b.icmp_unsigned("<", e, self.v.constant(I32, 1, 2)), denormal, normal)
        return b.bitcast(bits, ir.VectorType(F32, 1))


def _as_integer(point: tuple[int, ...]) -> int:
    """Its coordinates as the bytes of an integer, the first one lowest."""
    return int.from_bytes(bytes(number & 0xFF for number in point), "little")


def emit_unpack(b: Any, format: BlockFormat, n: Any, raw: Any, first: Any, *outputs: Any) -> None:  # noqa: ANN401
    """Emit the loop that unpacks n elements; pointers and counts are LLVM values, `outputs` as row_buffers has them."""
    elements, size = format.block
    with cgutils.for_range(b, b.udiv(n, n.type(elements))) as loop:
        block = _Stored(Vectors(b), b.gep(raw, [b.mul(loop.index, n.type(size))]))
        _emit_block(block, format, b.add(first, loop.index), *outputs)


def _emit_block(
    block: _Stored,
    format: BlockFormat,
    number: Any,  # noqa: ANN401
    codes: Any,  # noqa: ANN401
    scales: Any,  # noqa: ANN401
    mins: Any,  # noqa: ANN401
    d: Any,  # noqa: ANN401
    dmin: Any,  # noqa: ANN401
) -> None:
    v, b = block.v, block.v.b

    def of_block(count: int, extra: int = 0) -> Any:  # noqa: ANN401
        """Index of item `extra` of this block, of `count` for every block."""
        return b.add(b.mul(number, number.type(count)), number.type(extra))

    scale = block.number(format)
    v.store(scale, d, of_block(scale.type.count))
    for at in (format.dmin, format.least):
        if at is not None:
            v.store(block.half(at), dmin, number)
    if format.scales is not None:
        of_groups = format.scales(block).wide
        low = b.zext(of_groups, ir.VectorType(I32, format.groups))
        v.store(b.or_(low, v.shifted(low, -16)), scales, of_block(format.groups))
        if format.shifts is not None:
            _emit_shifts(block, format, of_groups, of_block, mins, dmin, number)
        elif not format.dot.signed:
            zeros = v.constant(I16, format.groups, -format.zero)
            least = b.mul(of_groups, zeros) if format.mins is None else format.mins(block).wide
            v.store(least, mins, of_block(format.groups))
    at = 0
    for lanes in format.codes(block):
        value, count = lanes.vector, lanes.vector.type.count
        if format.zero and (format.dot.signed or not format.groups):
            value = b.sub(value, v.constant(I8, count, format.zero))
        v.store(value, codes, of_block(format.block.elements, at))
        at += count


def _emit_shifts(
    block: _Stored,
    format: BlockFormat,
    scales: Any,  # noqa: ANN401
    of_block: Callable[[int], Any],
    mins: Any,  # noqa: ANN401
    dmin: Any,  # noqa: ANN401
    number: Any,  # noqa: ANN401
) -> None:
    """What codes are moved by, as mins: SHIFT * d times the scale or its opposite."""
    assert format.shifts is not None
    v, b, down = block.v, block.v.b, format.shifts(block).wide
    count = down.type.count
    repeated = v.pick(scales, scales, [n * format.groups // count for n in range(count)])
    up = b.sub(down, b.xor(down, v.constant(I16, count, 1)))  # 1 downward, -1 upward
    v.store(b.mul(repeated, up), mins, of_block(count))
    v.store(b.fmul(block.number(format), v.constant(F32, 1, SHIFT)), dmin, number)


def unpacker(*formats: BlockFormat) -> Callable[..., None]:
    """A kernel function of (type, n, raw, start, first, codes, scales, mins, d, dmin); type is that of one of them.

    It unpacks n elements from byte `start` of raw on into the buffers, where their first block is number `first`. One
    function serves all types because a call of a compiled function with arrays costs Numba atomic reference counts.
    """

    def body(b: Any, type: Any, n: Any, raw: Any, start: Any, first: Any, *outputs: Any) -> None:  # noqa: ANN401
        end = b.append_basic_block()
        choice = b.switch(type, end)
        for format in formats:
            choice.add_case(type.type(format.number), b.append_basic_block())
            b.position_at_end(choice.cases[-1][1])
            emit_unpack(b, format, n, b.gep(raw, [start]), first, *outputs)
            b.branch(end)
        b.position_at_end(end)

    return array_intrinsic(10, types.void, body)


Buffers = tuple[
    NDArray[np.int8], NDArray[np.int32], NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]
]  # codes, scales, mins, d, dmin


@helper()
def row_buffers(n: int) -> Buffers:
    """Room for the integers of n elements of any quantized type; nothing in it yet."""
    return (
        np.empty(n, np.int8),
        np.empty(n // 4, np.int32),  # of which scales need at most a quarter (packed_dot.py uses the rest)
        np.empty(n // 8, np.int16),
        np.empty(n // 16, np.float32),
        np.empty(n // 32, np.float32),
    )
