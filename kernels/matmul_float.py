"""x @ W.T over dequantized weights, in float32 and in float64.

Each thread dequantizes one stored row at a time into a buffer that stays in cache and multiplies it with all tokens,
so that a matrix is read once and never stands dequantized in memory.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import kernel
from kernels.dequantize import dequantize_row
from kernels.parallel import over_rows
from kernels.unpack import row_buffers
from kernels.weight import Weight


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)", reassociate=True)
def _matmul_f32(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float32], out: NDArray[np.float32], start: int, stop: int
) -> None:
    tokens, n = x.shape
    row, buffers = np.empty(n, np.float32), row_buffers(n)
    for r in range(start, stop):
        dequantize_row(type, rows[r], row, buffers)
        for t in range(tokens):
            dot = np.float32(0)
            for i in range(n):
                dot += x[t, i] * row[i]
            out[t, r] = dot


@kernel("void(int64, uint8[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64)", reassociate=True)
def _matmul_f64(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float64], out: NDArray[np.float64], start: int, stop: int
) -> None:
    tokens, n = x.shape
    row, wide, buffers = np.empty(n, np.float32), np.empty(n, np.float64), row_buffers(n)
    for r in range(start, stop):
        dequantize_row(type, rows[r], row, buffers)
        for i in range(n):
            wide[i] = np.float64(row[i])
        for t in range(tokens):
            dot = np.float64(0)
            for i in range(n):
                dot += x[t, i] * wide[i]
            out[t, r] = dot


def matmul_f32(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """X @ W.T: x float32 (tokens, in), weight of shape (out, in); returns float32 (tokens, out)."""
    out = np.empty((len(x), weight.shape[0]), dtype=np.float32)
    over_rows(lambda a, b: _matmul_f32(int(weight.type), weight.rows, x, out, a, b), weight.shape[0], least=16)
    return out


def matmul_f64(x: NDArray[np.float64], weight: Weight) -> NDArray[np.float64]:
    """X @ W.T in float64 over the float32 values of the weight; x float64 (tokens, in), returns (tokens, out)."""
    out = np.empty((len(x), weight.shape[0]), dtype=np.float64)
    over_rows(lambda a, b: _matmul_f64(int(weight.type), weight.rows, x, out, a, b), weight.shape[0], least=16)
    return out
