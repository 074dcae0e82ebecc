"""Stored quantized rows to integers: codes, group scales, group mins and half-precision factors (ggml-quants.c).

A row of n elements unpacks into codes int8 (n,), scales and mins int16, d and dmin float32 per block. What a code
means is the same for everyone who reads it:

    Q4_0, Q5_0, Q8_0   value = d * code                                      blocks of 32
    Q4_K, Q5_K         value = (d * scale) * code - (dmin * min)             blocks of 256, groups of 32
    Q6_K               value = (d * scale) * (code - 32)                     blocks of 256, groups of 16
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from kernels.compiler import helper
from kernels.vectors import F32, HALF, I8, I16, I32, Vectors, array_intrinsic
from kernels.weight import BLOCKS, TensorType

# Numba treats these as compile-time constants; enum members would not be.
Q4_0, Q5_0, Q8_0 = int(TensorType.Q4_0), int(TensorType.Q5_0), int(TensorType.Q8_0)
Q4_K, Q5_K, Q6_K = int(TensorType.Q4_K), int(TensorType.Q5_K), int(TensorType.Q6_K)


@dataclass(frozen=True)
class _Block:
    """Where the block being unpacked stands: pointers into the row and the outputs, and its number."""

    v: Vectors
    type: TensorType
    number: Any
    raw: Any
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
        return self.v.load(I8, lanes, self.raw, self.at(BLOCKS[self.type].bytes, offset))

    def put(self, codes: Any, offset: int) -> None:  # noqa: ANN401
        """Codes of the elements from `offset` on."""
        self.v.store(codes, self.codes, self.at(BLOCKS[self.type].elements, offset))

    def put_factor(self, factors: Any, offset: int) -> None:  # noqa: ANN401
        """The half-precision number at a byte offset, as float32."""
        bits = self.v.b.bitcast(self.bytes(2, offset), HALF)
        self.v.b.store(self.v.b.fpext(bits, F32), self.v.b.gep(factors, [self.number]))


def _emit_q8_0(block: _Block) -> None:
    block.put_factor(block.d, 0)
    block.put(block.bytes(32, 2), 0)


def _emit_q4_0(block: _Block) -> None:
    v, nibbles = block.v, block.bytes(16, 2)
    block.put_factor(block.d, 0)
    codes = v.joined(v.masked(nibbles, 15), v.shifted(nibbles, 4))
    block.put(v.b.sub(codes, v.constant(I8, 32, 8)), 0)


def _emit_q5_0(block: _Block) -> None:
    from llvmlite import ir

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
    from llvmlite import ir

    v = block.v
    block.put_factor(block.d, 208)
    scales = v.b.sext(block.bytes(16, 192), ir.VectorType(I16, 16))
    v.store(scales, block.scales, block.at(16, 0))
    for half in range(2):
        low = [block.bytes(32, 64 * half), block.bytes(32, 64 * half + 32)]
        high = block.bytes(32, 128 + 32 * half)
        for part in range(4):
            nibble = v.shifted(low[part % 2], 4) if part >= 2 else v.masked(low[part % 2], 15)
            bits = v.masked(v.shifted(high, 2 * part), 3)
            block.put(v.b.or_(nibble, v.shifted(bits, -4)), 128 * half + 32 * part)


def _emit_scales_and_mins(block: _Block) -> None:
    """The 12 bytes of eight 6-bit scales and eight 6-bit mins, four at a time in 32-bit words (`get_scale_min_k4`)."""
    from llvmlite import ir

    v, b = block.v, block.v.b
    block.put_factor(block.d, 0)
    block.put_factor(block.dmin, 2)
    words = [b.bitcast(block.bytes(4, 4 + 4 * i), I32) for i in range(3)]

    def bits(word: Any, shift: int, mask: int) -> Any:  # noqa: ANN401
        return b.and_(b.lshr(word, I32(shift)), I32(mask * 0x01010101))

    upper = [b.shl(bits(words[i], 6, 3), I32(4)) for i in (0, 1)]
    scales = bits(words[0], 0, 63), b.or_(bits(words[2], 0, 15), upper[0])
    mins = bits(words[1], 0, 63), b.or_(bits(words[2], 4, 15), upper[1])
    for halves, target in ((scales, block.scales), (mins, block.mins)):
        parts = [b.bitcast(half, ir.VectorType(I8, 4)) for half in halves]
        v.store(b.zext(v.joined(*parts), ir.VectorType(I16, 8)), target, block.at(8, 0))


def _unpacker(type: TensorType, emit: Callable[[_Block], None]) -> Callable[..., None]:
    def body(builder: Any, blocks: Any, *pointers: Any) -> None:  # noqa: ANN401
        from numba.core import cgutils

        with cgutils.for_range(builder, blocks) as loop:
            emit(_Block(Vectors(builder), type, loop.index, *pointers))

    return array_intrinsic(7, types.void, body)


_unpack_q8_0 = _unpacker(TensorType.Q8_0, _emit_q8_0)
_unpack_q4_0 = _unpacker(TensorType.Q4_0, _emit_q4_0)
_unpack_q5_0 = _unpacker(TensorType.Q5_0, _emit_q5_0)
_unpack_q4_k = _unpacker(TensorType.Q4_K, _emit_q4_k)
_unpack_q5_k = _unpacker(TensorType.Q5_K, _emit_q5_k)
_unpack_q6_k = _unpacker(TensorType.Q6_K, _emit_q6_k)

Buffers = tuple[
    NDArray[np.int8], NDArray[np.int16], NDArray[np.int16], NDArray[np.float32], NDArray[np.float32]
]  # codes, scales, mins, d, dmin


@helper()
def row_buffers(n: int) -> Buffers:
    """Room for the integers of one row of n elements, of any quantized type."""
    small, blocks = n // 16, n // 32
    return (
        np.empty(n, np.int8),
        np.empty(small, np.int16),
        np.empty(small, np.int16),
        np.empty(blocks, np.float32),
        np.empty(blocks, np.float32),
    )


@helper()
def unpack_row(type: int, raw: NDArray[np.uint8], n: int, buffers: Buffers) -> None:
    """Unpack one stored row of n elements of a quantized type."""
    codes, scales, mins, d, dmin = buffers
    if type == Q4_K:
        _unpack_q4_k(n // 256, raw, codes, scales, mins, d, dmin)
    elif type == Q6_K:
        _unpack_q6_k(n // 256, raw, codes, scales, mins, d, dmin)
    elif type == Q5_K:
        _unpack_q5_k(n // 256, raw, codes, scales, mins, d, dmin)
    elif type == Q8_0:
        _unpack_q8_0(n // 32, raw, codes, scales, mins, d, dmin)
    elif type == Q4_0:
        _unpack_q4_0(n // 32, raw, codes, scales, mins, d, dmin)
    else:
        _unpack_q5_0(n // 32, raw, codes, scales, mins, d, dmin)
