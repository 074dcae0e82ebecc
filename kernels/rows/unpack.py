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

from kernels.formats.format import BlockFormat
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
        single = self.v.b.bitcast(self.bytes(at, count // 8).vector, ir.VectorType(ir.IntType(1), count))
        return _Lanes(self.v, self.v.b.zext(single, ir.VectorType(I8, count)))

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

    def number(self, format: BlockFormat) -> Any:  # noqa: ANN401
        """The scale of the block, as one lane of float32."""
        return self.exponent(format.d) if format.exponent else self.half(format.d)

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

    v.store(block.number(format), d, number)
    for at in (format.dmin, format.least):
        if at is not None:
            v.store(block.half(at), dmin, number)
    if format.scales is not None:
        of_groups = format.scales(block).wide
        low = b.zext(of_groups, ir.VectorType(I32, format.groups))
        v.store(b.or_(low, v.shifted(low, -16)), scales, of_block(format.groups))
        if not format.dot.signed:
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
        np.empty(n // 16, np.int16),
        np.empty(n // 32, np.float32),
        np.empty(n // 32, np.float32),
    )
