"""Stored rows to float32: ggml's `dequantize_row_*` for every supported type (ggml-quants.c), bit for bit.

One row at a time, so that a matmul can dequantize a row into a small buffer that stays in cache.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import helper, kernel
from kernels.machine import half_to_float
from kernels.parallel import over_rows
from kernels.weight import TensorType, Weight

# Numba treats these as compile-time constants; enum members would not be.
F32, F16, BF16 = int(TensorType.F32), int(TensorType.F16), int(TensorType.BF16)
Q4_0, Q5_0, Q8_0 = int(TensorType.Q4_0), int(TensorType.Q5_0), int(TensorType.Q8_0)
Q4_K, Q5_K, Q6_K = int(TensorType.Q4_K), int(TensorType.Q5_K), int(TensorType.Q6_K)


@helper()
def half_at(raw: NDArray[np.uint8], at: int) -> np.float32:
    """float32 value of the little-endian half at byte `at`."""
    return half_to_float(np.uint16(raw[at]) | (np.uint16(raw[at + 1]) << np.uint16(8)))


@helper()
def scale_min(s: NDArray[np.uint8], j: int) -> tuple[int, int]:
    """6-bit scale and min of sub-block j from the 12 packed bytes of a Q4_K or Q5_K block (`get_scale_min_k4`)."""
    if j < 4:
        return int(s[j] & 63), int(s[j + 4] & 63)
    return int((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4)), int((s[j + 4] >> 4) | ((s[j] >> 6) << 4))


@helper()
def _f16(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    bits = raw.view(np.uint16)
    for i in range(out.size):
        out[i] = half_to_float(bits[i])


@helper()
def _bf16(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    bits, words = raw.view(np.uint16), out.view(np.uint32)
    for i in range(out.size):
        words[i] = np.uint32(bits[i]) << np.uint32(16)


@helper()
def _q4_0(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    for b in range(out.size // 32):
        d, qs, y = half_at(raw, 18 * b), raw[18 * b + 2 : 18 * b + 18], out[32 * b : 32 * b + 32]
        for j in range(16):
            y[j] = np.float32(np.int32(qs[j] & 15) - 8) * d
            y[j + 16] = np.float32(np.int32(qs[j] >> 4) - 8) * d


@helper()
def _q5_0(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    for b in range(out.size // 32):
        block = raw[22 * b : 22 * b + 22]
        d, qs, y = half_at(block, 0), block[6:22], out[32 * b : 32 * b + 32]
        for j in range(16):
            low, high = (block[2 + j // 8] >> (j % 8)) & 1, (block[4 + j // 8] >> (j % 8)) & 1
            y[j] = np.float32(np.int32((qs[j] & 15) | (low << 4)) - 16) * d
            y[j + 16] = np.float32(np.int32((qs[j] >> 4) | (high << 4)) - 16) * d


@helper()
def _q8_0(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    for b in range(out.size // 32):
        d, qs, y = half_at(raw, 34 * b), raw[34 * b + 2 : 34 * b + 34].view(np.int8), out[32 * b : 32 * b + 32]
        for j in range(32):
            y[j] = np.float32(qs[j]) * d


@helper()
def _q4_k(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    for b in range(out.size // 256):
        block = raw[144 * b : 144 * b + 144]
        d, dmin, qs = half_at(block, 0), half_at(block, 2), block[16:144]
        for c in range(4):
            for half in range(2):
                scale, least = scale_min(block[4:16], 2 * c + half)
                d1, m1 = d * np.float32(scale), dmin * np.float32(least)
                y = out[256 * b + 64 * c + 32 * half : 256 * b + 64 * c + 32 * half + 32]
                shift = np.uint8(4 * half)
                for j in range(32):
                    y[j] = d1 * np.float32((qs[32 * c + j] >> shift) & 15) - m1


@helper()
def _q5_k(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    for b in range(out.size // 256):
        block = raw[176 * b : 176 * b + 176]
        d, dmin, qh, qs = half_at(block, 0), half_at(block, 2), block[16:48], block[48:176]
        for s in range(8):
            scale, least = scale_min(block[4:16], s)
            d1, m1 = d * np.float32(scale), dmin * np.float32(least)
            y, shift, bit = out[256 * b + 32 * s : 256 * b + 32 * s + 32], np.uint8(4 * (s % 2)), np.uint8(s)
            for j in range(32):
                low, high = (qs[32 * (s // 2) + j] >> shift) & 15, (qh[j] >> bit) & 1
                y[j] = d1 * np.float32(low | (high << 4)) - m1


@helper()
def _q6_k(raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    for b in range(out.size // 256):
        block = raw[210 * b : 210 * b + 210]
        ql, qh, scales, d = block[0:128], block[128:192], block[192:208].view(np.int8), half_at(block, 208)
        for h in range(2):
            for p in range(4):
                y = out[256 * b + 128 * h + 32 * p : 256 * b + 128 * h + 32 * p + 32]
                nibble, pair = np.uint8(4 * (p // 2)), np.uint8(2 * p)
                low_bits, high_bits = ql[64 * h + 32 * (p % 2) : 64 * h + 32 * (p % 2) + 32], qh[32 * h : 32 * h + 32]
                for j in range(32):
                    q = np.int32(((low_bits[j] >> nibble) & 15) | (((high_bits[j] >> pair) & 3) << 4)) - 32
                    y[j] = d * np.float32(scales[8 * h + 2 * p + j // 16]) * np.float32(q)


@helper()
def dequantize_row(type: int, raw: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """Write the float32 values of one stored row into `out`, whose size is the row's element count."""
    if type == Q4_K:
        _q4_k(raw, out)
    elif type == Q6_K:
        _q6_k(raw, out)
    elif type == Q5_K:
        _q5_k(raw, out)
    elif type == Q8_0:
        _q8_0(raw, out)
    elif type == Q4_0:
        _q4_0(raw, out)
    elif type == Q5_0:
        _q5_0(raw, out)
    elif type == F16:
        _f16(raw, out)
    elif type == BF16:
        _bf16(raw, out)
    else:
        out[:] = raw.view(np.float32)


@kernel("void(int64, uint8[:, ::1], float32[:, ::1], int64, int64)")
def _dequantize_rows(type: int, rows: NDArray[np.uint8], out: NDArray[np.float32], start: int, stop: int) -> None:
    for r in range(start, stop):
        dequantize_row(type, rows[r], out[r])


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
