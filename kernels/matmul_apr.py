"""x @ W.T as APR's own CPU inference computes it.

Q4_K and Q6_K weights are multiplied with APR's 8-bit activations (positive scale, half away from zero) in the same
order of sums as llama.cpp's; every other type is dequantized and summed in float32 in APR's order: one eight-lane fma
accumulator, then upper onto lower half (`f32_matmul` in aprender-serve).
"""

import numpy as np
from numpy.typing import NDArray

from kernels.activations import Codes, quantize_q8_k_apr
from kernels.compiler import helper, kernel
from kernels.dequantize import dequantize_row
from kernels.machine import fma
from kernels.matmul_ggml import matmul_codes
from kernels.parallel import over_rows
from kernels.unpack import row_buffers
from kernels.weight import TensorType, Weight

FUSED_TYPES = (TensorType.Q4_K, TensorType.Q6_K)
# The traced forward multiplies these with dequantized weights (aprender PR 1550).
FLOAT_PROJECTIONS = ("q_proj.weight", "k_proj.weight", "v_proj.weight")


@helper()
def eight_lane_dot(x: NDArray[np.float32], w: NDArray[np.float32]) -> np.float32:
    """float32 dot product in APR's order; shorter than 8 or the tail: left to right."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0)
    whole = x.size // 8 * 8
    for i in range(0, whole, 8):
        a0, a1 = fma(x[i], w[i], a0), fma(x[i + 1], w[i + 1], a1)
        a2, a3 = fma(x[i + 2], w[i + 2], a2), fma(x[i + 3], w[i + 3], a3)
        a4, a5 = fma(x[i + 4], w[i + 4], a4), fma(x[i + 5], w[i + 5], a5)
        a6, a7 = fma(x[i + 6], w[i + 6], a6), fma(x[i + 7], w[i + 7], a7)
    total = ((a0 + a4) + (a1 + a5)) + ((a2 + a6) + (a3 + a7))
    for i in range(whole, x.size):
        total += x[i] * w[i]
    return total


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_f32_apr(
    type: int, rows: NDArray[np.uint8], x: NDArray[np.float32], out: NDArray[np.float32], start: int, stop: int
) -> None:
    row, buffers = np.empty(x.shape[1], np.float32), row_buffers(x.shape[1])
    for r in range(start, stop):
        dequantize_row(type, rows[r], row, buffers)
        for t in range(x.shape[0]):
            out[t, r] = eight_lane_dot(x[t], row)


def matmul_f32_apr(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """X @ W.T over dequantized weights: x float32 (tokens, in), returns float32 (tokens, out)."""
    out = np.empty((len(x), weight.shape[0]), dtype=np.float32)
    over_rows(lambda a, b: _matmul_f32_apr(int(weight.type), weight.rows, x, out, a, b), weight.shape[0], least=16)
    return out


def round_activations(x: NDArray[np.float32], weight: Weight) -> Codes | None:
    """The 8-bit codes that a matmul with this weight works on, or None where APR keeps floats."""
    fused = weight.type in FUSED_TYPES and not weight.name.endswith(FLOAT_PROJECTIONS)
    return quantize_q8_k_apr(x) if fused else None


def matmul_apr(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """X @ W.T with 8-bit activations where APR has them; shapes and dtypes as `matmul_f32_apr`."""
    codes = round_activations(x, weight)
    return matmul_f32_apr(x, weight) if codes is None else matmul_codes(codes, weight)
