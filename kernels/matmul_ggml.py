"""x @ W.T as llama.cpp's CPU backend computes it, bit for bit for the quantized types.

Activations are rounded to 8 bits (activations.py), a weight row is unpacked once into integer codes and scales, and
`packed_dot` multiplies it with every token. Source: ggml-cpu.c `ggml_compute_forward_mul_mat` with the types' vec_dot.
F16 and BF16 weights round the activations to that type first; their float sums are not in the engine's order.
"""

import numpy as np
from numpy.typing import NDArray

from kernels import packed_dot
from kernels.activations import Codes, quantize_q8_0, quantize_q8_k
from kernels.compiler import helper, kernel
from kernels.dequantize import Q4_0, Q4_K, Q5_K, Q8_0, half_at, scale_min
from kernels.matmul_float import matmul_f32
from kernels.parallel import over_rows
from kernels.weight import BLOCKS, TensorType, Weight

_dot_32 = packed_dot.row_dot(packed_dot.BLOCK_32)
_dot_q4_k = packed_dot.row_dot(packed_dot.Q4_K)
_dot_q5_k = packed_dot.row_dot(packed_dot.Q5_K)
_dot_q6_k = packed_dot.row_dot(packed_dot.Q6_K)


@helper()
def _unpack_32(type: int, raw: NDArray[np.uint8], codes: NDArray[np.int8], d: NDArray[np.float32]) -> None:
    """Signed codes and scale of every Q8_0, Q4_0 or Q5_0 block of a row."""
    for b in range(d.size):
        q = codes[32 * b : 32 * b + 32]
        if type == Q8_0:
            d[b] = half_at(raw, 34 * b)
            q[:] = raw[34 * b + 2 : 34 * b + 34].view(np.int8)
        elif type == Q4_0:
            d[b] = half_at(raw, 18 * b)
            for j in range(16):
                byte = raw[18 * b + 2 + j]
                q[j], q[j + 16] = np.int8(byte & 15) - np.int8(8), np.int8(byte >> 4) - np.int8(8)
        else:
            block = raw[22 * b : 22 * b + 22]
            d[b] = half_at(block, 0)
            for j in range(16):
                low, high = (block[2 + j // 8] >> (j % 8)) & 1, (block[4 + j // 8] >> (j % 8)) & 1
                q[j] = np.int8((block[6 + j] & 15) | (low << 4)) - np.int8(16)
                q[j + 16] = np.int8((block[6 + j] >> 4) | (high << 4)) - np.int8(16)


@helper()
def _unpack_q45_k(
    type: int,
    raw: NDArray[np.uint8],
    codes: NDArray[np.int8],
    scales: NDArray[np.int16],
    mins: NDArray[np.int16],
    d: NDArray[np.float32],
    dmin: NDArray[np.float32],
) -> None:
    """Codes 0..15 or 0..31, scales (each twice, one per 16 elements), mins and half-precision factors of a row."""
    size = 144 if type == Q4_K else 176
    for b in range(d.size):
        block = raw[size * b : size * b + size]
        d[b], dmin[b] = half_at(block, 0), half_at(block, 2)
        for s in range(8):
            scale, least = scale_min(block[4:16], s)
            scales[16 * b + 2 * s] = scales[16 * b + 2 * s + 1] = scale
            mins[8 * b + s] = least
            qs = block[size - 128 + 32 * (s // 2) : size - 128 + 32 * (s // 2) + 32]
            q, shift, bit = codes[256 * b + 32 * s : 256 * b + 32 * s + 32], np.uint8(4 * (s % 2)), np.uint8(s)
            for j in range(32):
                q[j] = (qs[j] >> shift) & 15
            if type == Q5_K:
                for j in range(32):
                    q[j] |= ((block[16 + j] >> bit) & 1) << 4


@helper()
def _unpack_q6_k(
    raw: NDArray[np.uint8], codes: NDArray[np.int8], scales: NDArray[np.int16], d: NDArray[np.float32]
) -> None:
    """Codes 0..63 (their -32 is applied through the activation sums), int8 scales and factor of a row."""
    for b in range(d.size):
        block = raw[210 * b : 210 * b + 210]
        d[b] = half_at(block, 208)
        scales[16 * b : 16 * b + 16] = block[192:208].view(np.int8)
        for h in range(2):
            for p in range(4):
                q = codes[256 * b + 128 * h + 32 * p : 256 * b + 128 * h + 32 * p + 32]
                low, high = (
                    block[64 * h + 32 * (p % 2) : 64 * h + 32 * (p % 2) + 32],
                    block[128 + 32 * h : 160 + 32 * h],
                )
                nibble, pair = np.uint8(4 * (p // 2)), np.uint8(2 * p)
                for j in range(32):
                    q[j] = ((low[j] >> nibble) & 15) | (((high[j] >> pair) & 3) << 4)


@kernel("void(int64, uint8[:, ::1], int8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_32(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.int8],
    xd: NDArray[np.float32],
    out: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    codes, d = np.empty(x.shape[1], np.int8), np.empty(x.shape[1] // 32, np.float32)
    none, no_d = np.empty(0, np.int16), np.empty(0, np.float32)
    for r in range(start, stop):
        _unpack_32(type, rows[r], codes, d)
        for t in range(x.shape[0]):
            out[t, r] = _dot_32(codes, none, none, d, no_d, x[t], xd[t], none, none)


@kernel("void(int64, uint8[:, ::1], int8[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64)")
def _matmul_k(
    type: int,
    rows: NDArray[np.uint8],
    x: NDArray[np.int8],
    xd: NDArray[np.float32],
    out: NDArray[np.float32],
    start: int,
    stop: int,
) -> None:
    tokens, n = x.shape
    codes, scales, mins = np.empty(n, np.int8), np.empty(n // 16, np.int16), np.empty(n // 32, np.int16)
    d, dmin = np.empty(n // 256, np.float32), np.empty(n // 256, np.float32)
    sums16, sums32 = np.empty((tokens, n // 16), np.int16), np.empty((tokens, n // 32), np.int16)
    for t in range(tokens):
        for k in range(n // 16):
            sums16[t, k] = x[t, 16 * k : 16 * k + 16].sum()
        for k in range(n // 32):
            sums32[t, k] = sums16[t, 2 * k] + sums16[t, 2 * k + 1]
    for r in range(start, stop):
        if type in (Q4_K, Q5_K):
            _unpack_q45_k(type, rows[r], codes, scales, mins, d, dmin)
        else:
            _unpack_q6_k(rows[r], codes, scales, d)
        for t in range(tokens):
            if type == Q4_K:
                out[t, r] = _dot_q4_k(codes, scales, mins, d, dmin, x[t], xd[t], sums16[t], sums32[t])
            elif type == Q5_K:
                out[t, r] = _dot_q5_k(codes, scales, mins, d, dmin, x[t], xd[t], sums16[t], sums32[t])
            else:
                out[t, r] = _dot_q6_k(codes, scales, mins, d, dmin, x[t], xd[t], sums16[t], sums32[t])


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
    matmul = _matmul_k if BLOCKS[weight.type].elements == 256 else _matmul_32
    out = np.empty((len(x.codes), weight.shape[0]), dtype=np.float32)
    over_rows(lambda a, b: matmul(int(weight.type), weight.rows, x.codes, x.scales, out, a, b), len(out.T), least=16)
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
