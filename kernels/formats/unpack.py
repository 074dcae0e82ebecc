"""Stored quantized rows to integers: codes, group scales, group mins and half-precision factors (ggml-quants.c).

A row of n elements unpacks into codes int8 (n,), scales int32, mins int16, d and dmin float32 per block. A scale is
there twice, in the upper and in the lower half of its 32 bits, as the dot products want it. What a code means is the
same for everyone who reads it:

    Q4_0, Q5_0, Q8_0   value = d * code                                      blocks of 32
    Q4_K, Q5_K         value = (d * scale) * code - (dmin * min)             blocks of 256, groups of 32
    Q6_K               value = (d * scale) * (code - 32), min = -32 * scale  blocks of 256, groups of 16
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.machine.compiler import helper
from kernels.machine.vectors import I8, I16, I32, Vectors, array_intrinsic
from kernels.weight import BLOCKS, TensorType

# Numba treats these as compile-time constants; enum members would not be.
Q4_K, Q5_K, Q6_K = int(TensorType.Q4_K), int(TensorType.Q5_K), int(TensorType.Q6_K)


@dataclass(frozen=True)
class _Block:
    """The block being unpacked: where its bytes are, pointers to the outputs, and its number in them."""

    v: Vectors
    type: TensorType
    raw: Any
    number: Any
    codes: Any
    scales: Any
    mins: Any
    d: Any
    dmin: Any

    def at(self, per_block: int, extra: int) -> Any:  # noqa: ANN401
        """Index of element `extra` of this block in an array with `per_block` elements per block."""
        i64 = self.number.type
        return self.v.b.add(self.v.b.mul(self.number, i64(per_block)), i64(extra))

    def bytes(self, lanes: int, offset: int) -> Any:  # noqa: ANN401
        """Bytes of the block."""
        return self.v.load(I8, lanes, self.raw, self.number.type(offset))

    def put(self, codes: Any, offset: int) -> None:  # noqa: ANN401
        """Codes of the elements from `offset` on."""
        self.v.store(codes, self.codes, self.at(BLOCKS[self.type].elements, offset))

    def put_scales(self, scales: Any) -> None:  # noqa: ANN401
        """All scales of the block, given as int16 lanes."""
        v, wide = self.v, ir.VectorType(I32, scales.type.count)
        low = v.b.zext(scales, wide)
        v.store(v.b.or_(low, v.shifted(low, -16)), self.scales, self.at(scales.type.count, 0))

    def put_factor(self, factors: Any, offset: int) -> None:  # noqa: ANN401
        """The half-precision number at a byte offset, as float32."""
        self.v.store(self.v.from_half(self.v.as_lanes(self.bytes(2, offset), I16)), factors, self.number)


def _emit_q8_0(block: _Block) -> None:
    block.put_factor(block.d, 0)
    block.put(block.bytes(32, 2), 0)


def _emit_q4_0(block: _Block) -> None:
    v, nibbles = block.v, block.bytes(16, 2)
    block.put_factor(block.d, 0)
    codes = v.joined(v.masked(nibbles, 15), v.shifted(nibbles, 4))
    block.put(v.b.sub(codes, v.constant(I8, 32, 8)), 0)


def _emit_q5_0(block: _Block) -> None:
    v, nibbles = block.v, block.bytes(16, 6)
    block.put_factor(block.d, 0)
    fifth = v.b.zext(v.b.bitcast(block.bytes(4, 2), ir.VectorType(ir.IntType(1), 32)), ir.VectorType(I8, 32))
    codes = v.b.or_(v.joined(v.masked(nibbles, 15), v.shifted(nibbles, 4)), v.shifted(fifth, -4))
    block.put(v.b.sub(codes, v.constant(I8, 32, 16)), 0)


def _emit_q4_k(block: _Block) -> None:
    v = block.v
    _emit_scales_and_mins(block)
    for pair in range(4):
        nibbles = block.bytes(32, 16 + 32 * pair)
        block.put(v.masked(nibbles, 15), 64 * pair)
        block.put(v.shifted(nibbles, 4), 64 * pair + 32)


def _emit_q5_k(block: _Block) -> None:
    v, fifth = block.v, block.bytes(32, 16)
    _emit_scales_and_mins(block)
    for pair in range(4):
        nibbles = block.bytes(32, 48 + 32 * pair)
        for half, low in enumerate((v.masked(nibbles, 15), v.shifted(nibbles, 4))):
            bit = v.masked(v.shifted(fifth, 2 * pair + half), 1)
            block.put(v.b.or_(low, v.shifted(bit, -4)), 64 * pair + 32 * half)


def _emit_q6_k(block: _Block) -> None:
    v = block.v
    block.put_factor(block.d, 208)
    scales = v.signed(block.bytes(16, 192), I16)
    block.put_scales(scales)
    v.store(v.b.mul(scales, v.constant(I16, 16, -32)), block.mins, block.at(16, 0))
    for half in range(2):
        low = [block.bytes(32, 64 * half), block.bytes(32, 64 * half + 32)]
        high = block.bytes(32, 128 + 32 * half)
        for part in range(4):
            nibble = v.shifted(low[part % 2], 4) if part >= 2 else v.masked(low[part % 2], 15)
            bits = v.masked(v.shifted(high, 2 * part), 3)
            block.put(v.b.or_(nibble, v.shifted(bits, -4)), 128 * half + 32 * part)


def _emit_scales_and_mins(block: _Block) -> None:
    """The 12 bytes of eight 6-bit scales and eight 6-bit mins, four at a time in 32-bit words (`get_scale_min_k4`)."""
    v, b = block.v, block.v.b
    block.put_factor(block.d, 0)
    block.put_factor(block.dmin, 2)
    words = [b.bitcast(block.bytes(4, 4 + 4 * i), I32) for i in range(3)]

    def bits(word: Any, shift: int, mask: int) -> Any:  # noqa: ANN401
        return b.and_(b.lshr(word, I32(shift)), I32(mask * 0x01010101))

    upper = [b.shl(bits(words[i], 6, 3), I32(4)) for i in (0, 1)]
    scales = bits(words[0], 0, 63), b.or_(bits(words[2], 0, 15), upper[0])
    mins = bits(words[1], 0, 63), b.or_(bits(words[2], 4, 15), upper[1])

    def joined(halves: tuple[Any, Any]) -> Any:  # noqa: ANN401
        return b.zext(v.joined(*(b.bitcast(half, ir.VectorType(I8, 4)) for half in halves)), ir.VectorType(I16, 8))

    block.put_scales(joined(scales))
    v.store(joined(mins), block.mins, block.at(8, 0))


_EMIT: dict[TensorType, Callable[[_Block], None]] = {
    TensorType.Q4_0: _emit_q4_0,
    TensorType.Q5_0: _emit_q5_0,
    TensorType.Q8_0: _emit_q8_0,
    TensorType.Q4_K: _emit_q4_k,
    TensorType.Q5_K: _emit_q5_k,
    TensorType.Q6_K: _emit_q6_k,
}


def emit_unpack(b: Any, kind: TensorType, n: Any, raw: Any, first: Any, *outputs: Any) -> None:  # noqa: ANN401
    """Emit the loop that unpacks n elements; pointers and counts are LLVM values, `outputs` as row_buffers has them."""
    elements, size = BLOCKS[kind]
    with cgutils.for_range(b, b.udiv(n, n.type(elements))) as loop:
        block = b.gep(raw, [b.mul(loop.index, n.type(size))])
        _EMIT[kind](_Block(Vectors(b), kind, block, b.add(first, loop.index), *outputs))


def unpacker(*kinds: TensorType) -> Callable[..., None]:
    """A kernel function of (type, n, raw, start, first, codes, scales, mins, d, dmin); type is one of `kinds`.

    It unpacks n elements from byte `start` of raw on into the buffers, where their first block is number `first`. One
    function serves all types because a call of a compiled function with arrays costs Numba atomic reference counts.
    """

    def body(b: Any, type: Any, n: Any, raw: Any, start: Any, first: Any, *outputs: Any) -> None:  # noqa: ANN401
        end = b.append_basic_block()
        choice = b.switch(type, end)
        for kind in kinds:
            choice.add_case(type.type(int(kind)), b.append_basic_block())
            b.position_at_end(choice.cases[-1][1])
            emit_unpack(b, kind, n, b.gep(raw, [start]), first, *outputs)
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
