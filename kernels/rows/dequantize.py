"""Stored rows to numbers: ggml's `dequantize_row_*` for every supported type (ggml-quants.c), bit for bit.

A few hundred values at a time, so that a matmul can dequantize into a small buffer that stays in cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.formats import all_formats
from kernels.formats.format import SHIFT, BlockFormat, FloatFormat
from kernels.machine.compiler import kernel
from kernels.machine.memory import scratch
from kernels.machine.parallel import over_rows
from kernels.machine.vectors import F32, I8, I16, I32, Vectors, array_intrinsic
from kernels.rows.unpack import emit_unpack, row_buffers
from kernels.weight import TensorType, Weight

_LANES = 16  # floats converted at once


def dequantizer(element: Any) -> Callable[..., None]:  # noqa: ANN401
    """A kernel function of (type, n, raw, start, out, at, codes, scales, mins, d, dmin).

    It writes the n values that begin at byte `start` of raw to out[at], out[at + 1] ...; `element` is the LLVM type of
    out. The rest are buffers as unpack.py makes them, with room for n.
    """

    def body(b: Any, type: Any, n: Any, raw: Any, start: Any, out: Any, at: Any, *buffers: Any) -> None:  # noqa: ANN401
        """Branch on the type, one case each; a type that has none writes nothing."""
        v, end = Vectors(b), b.append_basic_block()
        raw, out = b.gep(raw, [start]), b.gep(out, [at])
        choice = b.switch(type, end)

        def put(values: Any, index: Any) -> None:  # noqa: ANN401
            wide = values if element == F32 else b.fpext(values, ir.VectorType(element, values.type.count))
            v.store(wide, out, index)

        for format in all_formats():
            choice.add_case(type.type(format.number), b.append_basic_block())
            b.position_at_end(choice.cases[-1][1])
            if isinstance(format, FloatFormat):
                _emit_floats(v, format, n, raw, put)
            else:
                assert isinstance(format, BlockFormat)
                emit_unpack(b, format, n, raw, n.type(0), *buffers)
                _emit_scaled(v, format, n, buffers, put)
            b.branch(end)
        b.position_at_end(end)

    return array_intrinsic(11, types.void, body)


def _emit_floats(v: Vectors, format: FloatFormat, n: Any, raw: Any, put: Callable[[Any, Any], None]) -> None:  # noqa: ANN401
    b, size = v.b, format.block.bytes

    def move(first: Any, lanes: int) -> None:  # noqa: ANN401
        """Widen `lanes` values from value `first` on to float32."""
        stored = v.load(I8, size * lanes, raw, b.mul(first, n.type(size)))
        if size == 8:
            value = b.fptrunc(v.as_lanes(stored, ir.DoubleType(), 64), ir.VectorType(F32, lanes))
        elif size == 4:
            value = v.as_lanes(stored, F32, 32)
        elif format.saturates:
            value = _from_eights(v, stored)
        elif size == 1:
            value = v.from_half(v.shifted(b.zext(stored, ir.VectorType(I16, lanes)), -8))
        elif format.exponent == 5:
            value = v.from_half(v.as_lanes(stored, I16))
        else:
            value = b.zext(v.as_lanes(stored, I16), ir.VectorType(I32, lanes))
            value = v.as_lanes(v.shifted(value, -16), F32, 32)
        put(value, first)

    whole = b.and_(n, n.type(-_LANES))
    with cgutils.for_range(b, b.udiv(n, n.type(_LANES))) as loop:
        move(b.mul(loop.index, n.type(_LANES)), _LANES)
    with cgutils.for_range(b, b.sub(n, whole)) as loop:
        move(b.add(whole, loop.index), 1)


def _from_eights(v: Vectors, stored: Any) -> Any:  # noqa: ANN401
    """8-bit floats with 4 bits of exponent: one of 2^(e - 7) is off by 120, which a product sets right, exactly."""
    b, wide = v.b, ir.VectorType(I32, stored.type.count)
    bits = b.zext(stored, wide)
    sign, rest = v.shifted(v.masked(bits, 0x80), -24), v.shifted(v.masked(bits, 0x7F), -20)
    scaled = b.fmul(v.as_lanes(rest, F32, 32), v.constant(F32, wide.count, 2.0**120))
    nan = b.icmp_unsigned("==", v.masked(bits, 0x7F), v.constant(I32, wide.count, 0x7F))
    found = b.select(nan, v.constant(I32, wide.count, 0x7FC00000), b.bitcast(scaled, wide))
    return b.bitcast(b.or_(sign, found), ir.VectorType(F32, wide.count))


def _emit_scaled(
    v: Vectors,
    format: BlockFormat,
    n: Any,  # noqa: ANN401
    buffers: tuple[Any, ...],
    put: Callable[[Any, Any], None],
) -> None:
    b, (codes, scales, mins, d, dmin), size = v.b, buffers, format.group

    def number(array: Any, at: Any) -> Any:  # noqa: ANN401
        value = b.load(b.gep(array, [at]))
        return value if value.type == F32 else b.sitofp(b.trunc(value, I16), F32)

    with cgutils.for_range(b, b.udiv(n, n.type(size))) as loop:
        g = loop.index
        block = b.udiv(g, g.type(format.groups)) if format.scales is not None else g
        scale = number(d, block)
        if format.scales is not None:
            scale = b.fmul(scale, number(scales, g))
        at = b.mul(g, g.type(size))
        code = v.load(I8, size, codes, at)
        if format.zero and format.groups and not format.dot.signed:
            code = b.sub(code, v.constant(I8, size, format.zero))
        value = v.to_float(v.signed(code, I32))
        if format.shifts is not None:
            value = b.fadd(value, _shifts(v, format, g, buffers[2]))
        value = b.fmul(v.splat(scale, size), value)
        if format.mins is not None:
            value = b.fsub(value, v.splat(b.fmul(number(dmin, block), number(mins, g)), size))
        if format.least is not None:
            value = b.fadd(value, v.splat(number(dmin, block), size))
        put(value, at)


def _shifts(v: Vectors, format: BlockFormat, group: Any, mins: Any) -> Any:  # noqa: ANN401
    """What the codes of a group are moved by."""
    b, size = v.b, format.group
    count = size // format.shifted
    taken_off = v.load(I16, count, mins, b.mul(group, group.type(count)))
    down, shift = (v.constant(F32, count, sign * SHIFT) for sign in (-1, 1))
    moved = b.select(b.icmp_signed(">", taken_off, v.constant(I16, count, 0)), down, shift)
    return v.pick(moved, moved, [n // format.shifted for n in range(size)])


dequantize_row = dequantizer(F32)


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], int64, int64)")
def _dequantize_rows(type: int, rows: NDArray[np.uint8], out: NDArray[np.float32], start: int, stop: int) -> None:
    n, length = out.shape[1], rows.shape[1]
    codes, scales, mins, d, dmin = row_buffers(n)
    for r in range(start, stop):
        dequantize_row(type, n, rows, r * length, out, r * n, codes, scales, mins, d, dmin)


def dequantize_rows(type: TensorType, rows: NDArray[np.uint8], elements: int) -> NDArray[np.float32]:
    """float32 (rows, elements) of stored rows, each holding `elements` values; on the calling thread only."""
    out = np.empty((len(rows), elements), dtype=np.float32)
    _dequantize_rows(int(type), rows, out, 0, len(rows))
    return out


def at_hand(use: str, type: TensorType, rows: NDArray[np.uint8], elements: int) -> NDArray[np.float32]:
    """The same in memory that the calling thread keeps, until it asks for `use` again."""
    out = scratch(use, (len(rows), elements), np.float32)
    _dequantize_rows(int(type), rows, out, 0, len(rows))
    return out


def dequantize(weight: Weight) -> NDArray[np.float32]:
    """All values of a tensor, float32, in its own shape."""
    rows = weight.rows
    out = np.empty((len(rows), weight.shape[-1]), dtype=np.float32)

    def share(start: int, stop: int) -> None:
        _dequantize_rows(int(weight.type), rows[start:stop], out[start:stop], 0, stop - start)

    over_rows(share, len(out), least=8)
    return out.reshape(weight.shape)


_CHUNK = 1 << 16  # values that a thread holds dequantized


@kernel("void(float32[:, ::1], float64[::1])", reassociate=True)
def _lengths(values: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    for r in range(len(values)):
        energy = 0.0
        for i in range(values.shape[1]):
            energy += np.float64(values[r, i]) * np.float64(values[r, i])
        out[r] = np.sqrt(energy)


def row_norms(weight: Weight) -> NDArray[np.float64]:
    """Euclidean norm of every row of a tensor, float64 (rows,)."""
    rows, columns, out = weight.rows, weight.shape[-1], np.empty(len(weight.rows))
    some = max(1, _CHUNK // columns)

    def share(start: int, stop: int) -> None:
        for first in range(start, stop, some):
            last = min(first + some, stop)
            stored = np.ascontiguousarray(rows[first:last])
            _lengths(at_hand("values", weight.type, stored, columns), out[first:last])

    over_rows(share, len(out), least=some)
    return out
