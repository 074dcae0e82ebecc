"""x @ W.T as llama.cpp's CPU backend computes it, bit for bit for the quantized types.

Activations are rounded to 8 bits (activations.py), a weight row is unpacked once into integer codes and scales, and
`packed_dot` multiplies it with every token. Source: ggml-cpu.c `ggml_compute_forward_mul_mat` with the types' vec_dot.
F16 and BF16 weights round the activations to that type first; their float sums are not in the engine's order.
"""

import numpy as np
from numpy.typing import NDArray

from kernels import packed_dot
from kernels.activations import Codes, quantize_q8_0, quantize_q8_k
from kernels.compiler import kernel
from kernels.matmul_float import matmul_f32
from kernels.parallel import over_rows
from kernels.unpack import Q4_K, Q5_K, Q6_K, row_buffers, unpack_row
from kernels.weight import BLOCKS, TensorType, Weight

_dots_32 = packed_dot.row_dots(packed_dot.BLOCK_32)
_dots_q4_k = packed_dot.row_dots(packed_dot.Q4_K)
_dots_q5_k = packed_dot.row_dots(packed_dot.Q5_K)
_dots_q6_k = packed_dot.row_dots(packed_dot.Q6_K)


@kernel("void(int64, uint8[:, ::1], int8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_codes(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.int8],
    xd: NDArray[np.float32],
    out: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    tokens, n = x.shape
    blocks, buffers = xd.shape[1], row_buffers(n)
    codes, scales, mins, d, dmin = buffers
    sums16, sums32 = np.empty((tokens, n // 16), np.int16), np.empty((tokens, n // 32), np.int16)
    for t in range(tokens):
        for k in range(n // 16):
            sums16[t, k] = x[t, 16 * k : 16 * k + 16].sum()
        for k in range(n // 32):
            sums32[t, k] = sums16[t, 2 * k] + sums16[t, 2 * k + 1]
    for r in range(start, stop):
        unpack_row(type, rows[r], n, buffers)
        if type == Q4_K:
            _dots_q4_k(tokens, blocks, codes, scales, mins, d, dmin, x, xd, sums16, sums32, out, out.shape[1], r)
        elif type == Q5_K:
            _dots_q5_k(tokens, blocks, codes, scales, mins, d, dmin, x, xd, sums16, sums32, out, out.shape[1], r)
        elif type == Q6_K:
            _dots_q6_k(tokens, blocks, codes, scales, mins, d, dmin, x, xd, sums16, sums32, out, out.shape[1], r)
        else:
            _dots_32(tokens, blocks, codes, scales, mins, d, dmin, x, xd, sums16, sums32, out, out.shape[1], r)


def round_activations(x: NDArray[np.float32], type: TensorType) -> Codes | None:
    """The 8-bit codes that a matmul with a weight of `type` sees, or None where the engine keeps floats."""
    if BLOCKS[type].elements == 256:
        return quantize_q8_k(x)
    return quantize_q8_0(x) if BLOCKS[type].elements == 32 else None


def matmul_ggml(x: NDArray[np.float32], weight: Weight) -> NDArray[np.float32]:
    """X @ W.T: x float32 (tokens, in), weight of shape (out, in); returns float32 (tokens, out)."""
    codes = round_activations(x, weight.type)
    return matmul_f32(rounded_to(x, weight.type), weight) if codes is None else matmul_codes(codes, weight)


def matmul_codes(x: Codes, weight: Weight) -> NDArray[np.float32]:
    """Product of 8-bit activations (tokens, in) and a quantized weight (out, in); returns float32 (tokens, out)."""
    out = np.empty((len(x.codes), weight.shape[0]), dtype=np.float32)
    over_rows(
        lambda a, b: _matmul_codes(int(weight.type), weight.rows, x.codes, x.scales, out, a, b), len(out.T), least=16
    )
    return out


def rounded_to(x: NDArray[np.float32], type: TensorType) -> NDArray[np.float32]:
    """X rounded to the weight's float type, as float32 values."""
    if type == TensorType.F16:
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    if type == TensorType.BF16:  # round to even on the upper 16 bits; NaN stays NaN (ggml_compute_fp32_to_bf16)
        bits = x.view(np.uint32)
        even = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
        quiet = (bits | np.uint32(0x00400000)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(x), quiet, even).view(np.float32)
    return x
