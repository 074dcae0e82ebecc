"""Stored rows to numbers: ggml's `dequantize_row_*` for every supported type (ggml-quants.c), bit for bit.

A few hundred values at a time, so that a matmul can dequantize into a small buffer that stays in cache.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.formats.unpack import emit_unpack, row_buffers
from kernels.machine.compiler import kernel
from kernels.machine.parallel import over_rows
from kernels.machine.vectors import F32, I8, I16, I32, Vectors, array_intrinsic
from kernels.weight import BLOCKS, TensorType, Weight

_LANES = 16  # floats converted at once


class _Rule(NamedTuple):
    """How codes become values: group elements have one scale, `per_block` groups one d; `offset` is taken from codes.

    With `per_block` 0 there are no scales but d.
    """

    group: int
    per_block: int = 0
    offset: int = 0
    has_min: bool = False


_RULES = {TensorType.Q4_K: _Rule(32, 8, has_min=True), TensorType.Q5_K: _Rule(32, 8, has_min=True)}
_RULES |= {TensorType.Q6_K: _Rule(16, 16, offset=32)}
_SMALL = _Rule(32)


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

        for kind in TensorType:
            choice.add_case(type.type(int(kind)), b.append_basic_block())
            b.position_at_end(choice.cases[-1][1])
            if BLOCKS[kind].elements == 1:
                _emit_floats(v, kind, n, raw, put)
            else:
                emit_unpack(b, kind, n, raw, n.type(0), *buffers)
                _emit_scaled(v, _RULES.get(kind, _SMALL), n, buffers, put)
            b.branch(end)
        b.position_at_end(end)

    return array_intrinsic(11, types.void, body)


def _emit_floats(v: Vectors, kind: TensorType, n: Any, raw: Any, put: Callable[[Any, Any], None]) -> None:  # noqa: ANN401
    b, size = v.b, BLOCKS[kind].bytes

    def move(first: Any, lanes: int) -> None:  # noqa: ANN401
        """Widen `lanes` values from value `first` on to float32."""
        stored = v.load(I8, size * lanes, raw, b.mul(first, n.type(size)))
        if kind == TensorType.F16:
            value = v.from_half(v.as_lanes(stored, I16))
        elif kind == TensorType.BF16:
            value = b.zext(v.as_lanes(stored, I16), ir.VectorType(I32, lanes))
            value = v.as_lanes(v.shifted(value, -16), F32, 32)
        else:
            value = v.as_lanes(stored, F32, 32)
        put(value, first)

    whole = b.and_(n, n.type(-_LANES))
    with cgutils.for_range(b, b.udiv(n, n.type(_LANES))) as loop:
        move(b.mul(loop.index, n.type(_LANES)), _LANES)
    with cgutils.for_range(b, b.sub(n, whole)) as loop:
        move(b.add(whole, loop.index), 1)


def _emit_scaled(v: Vectors, rule: _Rule, n: Any, buffers: tuple[Any, ...], put: Callable[[Any, Any], None]) -> None:  # noqa: ANN401
    b, (codes, scales, mins, d, dmin) = v.b, buffers

    def number(array: Any, at: Any) -> Any:  # noqa: ANN401
        value = b.load(b.gep(array, [at]))
        return value if value.type == F32 else b.sitofp(b.trunc(value, I16), F32)

    with cgutils.for_range(b, b.udiv(n, n.type(rule.group))) as loop:
        g = loop.index
        block = b.udiv(g, g.type(rule.per_block)) if rule.per_block else g
        scale = number(d, block)
        if rule.per_block:
            scale = b.fmul(scale, number(scales, g))
        at = b.mul(g, g.type(rule.group))
        code = v.load(I8, rule.group, codes, at)
        if rule.offset:
            code = b.sub(code, v.constant(I8, rule.group, rule.offset))
        value = b.fmul(v.splat(scale, rule.group), v.to_float(v.signed(code, I32)))
        if rule.has_min:
            value = b.fsub(value, v.splat(b.fmul(number(dmin, block), number(mins, g)), rule.group))
        put(value, at)


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


def dequantize(weight: Weight) -> NDArray[np.float32]:
    """All values of a tensor, float32, in its own shape."""
    out = np.empty((len(weight.rows), weight.shape[-1]), dtype=np.float32)
    over_rows(lambda start, stop: _dequantize_rows(int(weight.type), weight.rows, out, start, stop), len(out), least=8)
    return out.reshape(weight.shape)
