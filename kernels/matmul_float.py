"""x @ W.T over dequantized weights: float32, float64, and float32 in APR's order of sums.

Each thread dequantizes two stored rows at a time into a buffer that stays in cache and multiplies them with all
tokens, so that a matrix is read once and never stands dequantized in memory.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import kernel
from kernels.dequantize import dequantize_row
from kernels.float_dot import APR, FLOAT32, FLOAT64, Scheme, tile_dot
from kernels.parallel import over_rows
from kernels.tiles import over_tokens
from kernels.unpack import row_buffers
from kernels.weight import Weight

_LEAST = 16  # rows worth a thread


def _multiply(scheme: Scheme) -> tuple[Callable[..., None], Callable[..., None]]:
    """Functions of (tokens, n, w, x, out, columns, r) that multiply one row, and two rows, with all tokens."""
    one, two = (over_tokens(partial(tile_dot, scheme, rows)) for rows in (1, 2))
    return one, two


_one_f32, _two_f32 = _multiply(FLOAT32)
_one_f64, _two_f64 = _multiply(FLOAT64)
_one_apr, _two_apr = _multiply(APR)


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_f32(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float32], out: NDArray[np.float32], start: int, stop: int
) -> None:
    w, buffers = np.empty((2, x.shape[1]), np.float32), row_buffers(x.shape[1])
    for r in range(start, stop, 2):
        together = min(2, stop - r)
        for i in range(together):
            dequantize_row(type, rows[r + i], w[i], buffers)
        if together == 2:
            _two_f32(x.shape[0], x.shape[1], w, x, out, out.shape[1], r)
        else:
            _one_f32(x.shape[0], x.shape[1], w, x, out, out.shape[1], r)


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_f32_apr(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float32], out: NDArray[np.float32], start: int, stop: int
) -> None:
    w, buffers = np.empty((2, x.shape[1]), np.float32), row_buffers(x.shape[1])
    for r in range(start, stop, 2):
        together = min(2, stop - r)
        for i in range(together):
            dequantize_row(type, rows[r + i], w[i], buffers)
        if together == 2:
            _two_apr(x.shape[0], x.shape[1], w, x, out, out.shape[1], r)
        else:
            _one_apr(x.shape[0], x.shape[1], w, x, out, out.shape[1], r)


@kernel("void(int64, uint8[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64)")
def _matmul_f64(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float64], out: NDArray[np.float64], start: int, stop: int
) -> None:
    n = x.shape[1]
    row, w, buffers = np.empty(n, np.float32), np.empty((2, n), np.float64), row_buffers(n)
    for r in range(start, stop, 2):
        together = min(2, stop - r)
        for i in range(together):
            dequantize_row(type, rows[r + i], row, buffers)
            w[i] = row
        if together == 2:
            _two_f64(x.shape[0], x.shape[1], w, x, out, out.shape[1], r)
        else:
            _one_f64(x.shape[0], x.shape[1], w, x, out, out.shape[1], r)


def matmul_f32(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """x @ W.T: x float32 (tokens, in), weight of shape (out, in); returns float32 (tokens, out)."""
    out = np.empty((len(x), weight.shape[0]), dtype=np.float32)
    over_rows(lambda a, b: _matmul_f32(int(weight.type), weight.rows, x, out, a, b), weight.shape[0], _LEAST)
    return out


def matmul_f32_apr(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """The same in APR's order of sums: eight fma lanes (`f32_matmul` in aprender-serve)."""
    out = np.empty((len(x), weight.shape[0]), dtype=np.float32)
    over_rows(lambda a, b: _matmul_f32_apr(int(weight.type), weight.rows, x, out, a, b), weight.shape[0], _LEAST)
    return out


def matmul_f64(x: NDArray[np.float64], weight: Weight) -> NDArray[np.float64]:
    """x @ W.T in float64 over the float32 values of the weight; x float64 (tokens, in), returns (tokens, out)."""
    out = np.empty((len(x), weight.shape[0]), dtype=np.float64)
    over_rows(lambda a, b: _matmul_f64(int(weight.type), weight.rows, x, out, a, b), weight.shape[0], _LEAST)
    return out
