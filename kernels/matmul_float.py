"""x @ W.T over dequantized weights: float32, float64, and float32 in APR's order of sums.

Each thread dequantizes a few hundred columns of a few stored rows at a time into a buffer that stays in cache and
multiplies them with all tokens, so that a matrix is read once and never stands dequantized in memory.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.aligned import aligned
from kernels.compiler import helper, kernel
from kernels.dequantize import dequantizer
from kernels.float_dot import APR, CHUNK, FLOAT32, FLOAT64, GROUP, Scheme, folded, group_dot
from kernels.parallel import over_rows
from kernels.unpack import row_buffers
from kernels.vectors import prefetch
from kernels.weight import Weight

Real = TypeVar("Real", np.float32, np.float64)


def _multiplier(scheme: Scheme) -> Callable[..., None]:
    """The product in one order of sums; arguments as `_matmul_f32`."""
    dots, fold, fill = group_dot(scheme), folded(scheme), dequantizer(scheme.element)
    lanes = scheme.lanes

    @helper(of=scheme)
    def multiply(type, rows, x, w, acc, out, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Rows start to stop of w, GROUP at a time and chunk by chunk, against every token: out[token, row]."""
        (tokens, n), length = x.shape, rows.shape[1]
        codes, scales, mins, d, dmin = row_buffers(CHUNK)
        for r in range(start, stop, GROUP):
            together = min(GROUP, stop - r)
            acc[:] = 0
            for c in range(0, n, CHUNK):
                count = min(CHUNK, n - c)
                for i in range(together):
                    place, size = (r + i) * length + c * length // n, count * length // n
                    prefetch(rows, place + GROUP * length, size)
                    fill(type, count, rows, place, w, i * CHUNK, codes, scales, mins, d, dmin)
                dots(tokens, count // lanes, together, w, x, c, n, acc)
            left = n % lanes
            for token in range(tokens):
                for i in range(together):
                    total = fold(acc, (token * GROUP + i) * lanes)
                    for k in range(left):
                        total += x[token, n - left + k] * w[i, (n - 1) % CHUNK + 1 - left + k]
                    out[token, r + i] = total

    return multiply


_multiply_f32 = _multiplier(FLOAT32)
_multiply_f64 = _multiplier(FLOAT64)
_multiply_apr = _multiplier(APR)

_SINGLE = "void(int64, uint8[:, ::1], float32[:, ::1], float32[:, ::1], float32[::1], float32[:, ::1], int64, int64)"
_DOUBLE = _SINGLE.replace("float32", "float64")


@kernel(_SINGLE)
def _matmul_f32(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.float32],
    w: NDArray[np.float32],  # room for GROUP rows of CHUNK columns
    acc: NDArray[np.float32],  # room for the sums of GROUP rows and all tokens
    out: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    _multiply_f32(type, rows, x, w, acc, out, start, stop)


@kernel(_SINGLE)
def _matmul_f32_apr(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    acc: NDArray[np.float32],
    out: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    _multiply_apr(type, rows, x, w, acc, out, start, stop)


@kernel(_DOUBLE)
def _matmul_f64(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.float64],
    w: NDArray[np.float64],
    acc: NDArray[np.float64],
    out: NDArray[np.float64],
    start: int,
    stop: int,
) -> None:
    _multiply_f64(type, rows, x, w, acc, out, start, stop)


def _product(compute: Callable[..., None], scheme: Scheme, x: NDArray[Real], weight: Weight) -> NDArray[Real]:
    out = np.empty((len(x), weight.shape[0]), x.dtype)

    def share(start: int, stop: int) -> None:
        w = aligned((GROUP, CHUNK), x.dtype.type)
        w[:] = 0  # rows that are not there are multiplied too
        acc = aligned((len(x) * GROUP * scheme.lanes,), x.dtype.type)
        compute(int(weight.type), weight.stored, x, w, acc, out, start, stop)

    over_rows(share, weight.shape[0], GROUP)
    return weight.in_order(out)


def matmul_f32(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """x @ W.T: x float32 (tokens, in), weight of shape (out, in); returns float32 (tokens, out)."""
    return _product(_matmul_f32, FLOAT32, x, weight)


def matmul_f32_apr(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """The same in APR's order of sums: eight fma lanes (`f32_matmul` in aprender-serve)."""
    return _product(_matmul_f32_apr, APR, x, weight)


def matmul_f64(x: NDArray[np.float64], weight: Weight) -> NDArray[np.float64]:
    """x @ W.T in float64 over the float32 values of the weight; x float64 (tokens, in), returns (tokens, out)."""
    return _product(_matmul_f64, FLOAT64, x, weight)
