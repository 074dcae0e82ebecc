"""Stored rows to float32: ggml's `dequantize_row_*` for every supported type (ggml-quants.c), bit for bit.

One row at a time, so that a matmul can dequantize a row into a small buffer that stays in cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite.ir import VectorType
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from kernels.compiler import helper, kernel
from kernels.machine import half_to_float
from kernels.parallel import over_rows
from kernels.unpack import Q4_K, Q5_K, Q6_K, Buffers, row_buffers, unpacker
from kernels.vectors import F32 as F32_TYPE
from kernels.vectors import I8, I16, I32, Vectors, array_intrinsic
from kernels.weight import BLOCKS, TensorType, Weight

_unpack = unpacker(*(type for type in TensorType if BLOCKS[type].elements > 1))

F32, F16, BF16 = int(TensorType.F32), int(TensorType.F16), int(TensorType.BF16)


@helper()
def dequantize_row(type: int, raw: NDArray[np.uint8], out: NDArray[np.float32], buffers: Buffers) -> None:
    """Write the float32 values of one stored row into `out`, whose size is the row's element count."""
    n = out.size
    if type == F32:
        out[:] = raw.view(np.float32)
    elif type == F16:
        bits = raw.view(np.uint16)
        for i in range(n):
            out[i] = half_to_float(bits[i])
    elif type == BF16:
        bits, words = raw.view(np.uint16), out.view(np.uint32)
        for i in range(n):
            words[i] = np.uint32(bits[i]) << np.uint32(16)
    else:
        codes, scales, mins, d, dmin = buffers
        _unpack(type, n, raw, 0, 0, codes, scales, mins, d, dmin)
        _scale_codes(type, out, buffers)


def _scaler(group: int, per_block: int, offset: int, has_min: bool) -> Callable[..., None]:
    """A function of (groups, codes, scales, mins, d, dmin, out) that multiplies codes out.

    group : elements with one scale. per_block : groups with one d; 0 if d is the only scale. offset : taken from codes.
    """

    def body(b: Any, groups: Any, codes: Any, scales: Any, mins: Any, d: Any, dmin: Any, out: Any) -> None:  # noqa: ANN401
        v = Vectors(b)

        def number(array: Any, at: Any) -> Any:  # noqa: ANN401
            value = b.load(b.gep(array, [at]))
            return value if value.type == F32_TYPE else b.sitofp(b.trunc(value, I16), F32_TYPE)

        with cgutils.for_range(b, groups) as loop:
            g = loop.index
            block = b.udiv(g, g.type(per_block)) if per_block else g
            scale = number(d, block)
            if per_block:
                scale = b.fmul(scale, number(scales, g))
            at = b.mul(g, g.type(group))
            code = v.load(I8, group, codes, at)
            if offset:
                code = b.sub(code, v.constant(I8, group, offset))
            value = b.fmul(v.splat(scale, group), v.to_float(b.sext(code, VectorType(I32, group))))
            if has_min:
                value = b.fsub(value, v.splat(b.fmul(number(dmin, block), number(mins, g)), group))
            v.store(value, out, at)

    return array_intrinsic(7, types.void, body)


_scale_q45_k = _scaler(32, 8, 0, has_min=True)
_scale_q6_k = _scaler(16, 16, 32, has_min=False)
_scale_32 = _scaler(32, 0, 0, has_min=False)


@helper()
def _scale_codes(type: int, out: NDArray[np.float32], buffers: Buffers) -> None:
    codes, scales, mins, d, dmin = buffers
    if type in (Q4_K, Q5_K):
        _scale_q45_k(out.size // 32, codes, scales, mins, d, dmin, out)
    elif type == Q6_K:
        _scale_q6_k(out.size // 16, codes, scales, mins, d, dmin, out)
    else:
        _scale_32(out.size // 32, codes, scales, mins, d, dmin, out)


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], int64, int64)")
def _dequantize_rows(type: int, rows: NDArray[np.uint8], out: NDArray[np.float32], start: int, stop: int) -> None:
    buffers = row_buffers(out.shape[1])
    for r in range(start, stop):
        dequantize_row(type, rows[r], out[r], buffers)


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
