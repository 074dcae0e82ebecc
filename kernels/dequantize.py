"""Stored rows to float32: ggml's `dequantize_row_*` for every supported type (ggml-quants.c), bit for bit.

One row at a time, so that a matmul can dequantize a row into a small buffer that stays in cache.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import helper, kernel
from kernels.machine import half_to_float
from kernels.parallel import over_rows
from kernels.unpack import Q4_K, Q5_K, Q6_K, Buffers, row_buffers, unpack_row
from kernels.weight import TensorType, Weight

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
        unpack_row(type, raw, n, buffers)
        _scale_codes(type, out, buffers)


@helper()
def _scale_codes(type: int, out: NDArray[np.float32], buffers: Buffers) -> None:
    codes, scales, mins, d, dmin = buffers
    if type in (Q4_K, Q5_K):
        for g in range(out.size // 32):
            scale, least = d[g // 8] * np.float32(scales[g]), dmin[g // 8] * np.float32(mins[g])
            for i in range(32 * g, 32 * g + 32):
                out[i] = scale * np.float32(codes[i]) - least
    elif type == Q6_K:
        for g in range(out.size // 16):
            scale = d[g // 16] * np.float32(scales[g])
            for i in range(16 * g, 16 * g + 16):
                out[i] = scale * np.float32(codes[i] - np.int8(32))
    else:
        for g in range(out.size // 32):
            for i in range(32 * g, 32 * g + 32):
                out[i] = d[g] * np.float32(codes[i])


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
