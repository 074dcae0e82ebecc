"""x @ W.T over dequantized weights: float32, float64, and float32 in APR's order of sums.

Each thread dequantizes two stored rows at a time into a buffer that stays in cache and multiplies them with all
tokens, so that a matrix is read once and never stands dequantized in memory.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import helper, kernel
from kernels.dequantize import dequantize_row
from kernels.float_dot import APR, FLOAT32, FLOAT64, TOKENS, Scheme, tile_dot
from kernels.parallel import over_rows
from kernels.unpack import row_buffers
from kernels.weight import Weight

_LEAST = 16  # rows worth a thread


def _tiles(scheme: Scheme):  # type: ignore[no-untyped-def]  # noqa: ANN202
    """A function that multiplies one or two float rows with all tokens."""
    two = [tile_dot(scheme, 2, tokens) for tokens in range(1, TOKENS + 1)]
    one = [tile_dot(scheme, 1, tokens) for tokens in range(1, TOKENS + 1)]
    two1, two2, two3, two4 = two
    one1, one2, one3, one4 = one

    @helper()
    def multiply(rows, w, x, out, r):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        tokens, n = x.shape
        columns = out.shape[1]
        for t in range(0, tokens, 4):
            left = tokens - t
            if rows == 2:
                if left >= 4:
                    two4(n, w, x, t, out, columns, r)
                elif left == 3:
                    two3(n, w, x, t, out, columns, r)
                elif left == 2:
                    two2(n, w, x, t, out, columns, r)
                else:
                    two1(n, w, x, t, out, columns, r)
            elif left >= 4:
                one4(n, w, x, t, out, columns, r)
            elif left == 3:
                one3(n, w, x, t, out, columns, r)
            elif left == 2:
                one2(n, w, x, t, out, columns, r)
            else:
                one1(n, w, x, t, out, columns, r)

    return multiply


_multiply_f32, _multiply_f64, _multiply_apr = _tiles(FLOAT32), _tiles(FLOAT64), _tiles(APR)


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_f32(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float32], out: NDArray[np.float32], start: int, stop: int
) -> None:
    w, buffers = np.empty((2, x.shape[1]), np.float32), row_buffers(x.shape[1])
    for r in range(start, stop, 2):
        together = min(2, stop - r)
        for i in range(together):
            dequantize_row(type, rows[r + i], w[i], buffers)
        _multiply_f32(together, w, x, out, r)


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_f32_apr(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float32], out: NDArray[np.float32], start: int, stop: int
) -> None:
    w, buffers = np.empty((2, x.shape[1]), np.float32), row_buffers(x.shape[1])
    for r in range(start, stop, 2):
        together = min(2, stop - r)
        for i in range(together):
            dequantize_row(type, rows[r + i], w[i], buffers)
        _multiply_apr(together, w, x, out, r)


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
        _multiply_f64(together, w, x, out, r)


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
