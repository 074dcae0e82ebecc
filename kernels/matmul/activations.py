"""Rounding activations to 8 bits the way each engine does before a quantized matmul.

A rounded activation tensor is (codes int8 (tokens, in), scales float32 (tokens, blocks)); sums of codes are taken
where they are needed. Codes are the "int8 activation codes" whose flips turn 1e-7 into 1e-2 (docs/numerics.md).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import helper, kernel
from kernels.machine.operations import bits, float_to_half, half_to_float
from kernels.machine.parallel import by_token

Q8_K = "ggml Q8_K"


class Codes(NamedTuple):
    """8-bit activations: value[t, i] is about scales[t, i // block] * codes[t, i].

    sums : the sum of each block's values as the rule keeps it beside the codes; None where it keeps none.
    """

    rule: str  # codes of different rules cannot be compared
    codes: NDArray[np.int8]  # (tokens, in)
    scales: NDArray[np.float32]  # (tokens, in / block)
    sums: NDArray[np.float32] | None = None  # (tokens, in / block)

    def of(self, tokens: slice) -> "Codes":
        """Those of some tokens."""
        sums = None if self.sums is None else self.sums[tokens]
        return Codes(self.rule, self.codes[tokens], self.scales[tokens], sums)

    def values(self) -> NDArray[np.float64]:
        """The values that the codes stand for, (tokens, in)."""
        tokens, blocks = self.scales.shape
        values = self.codes.reshape(tokens, blocks, -1).astype(np.float64) * self.scales[:, :, None]
        return values.reshape(self.codes.shape)


@helper()
def _nearest_int(x: np.float32) -> np.int32:
    """Round half to even for |x| < 2^22, by adding 1.5 * 2^23 (ggml-quants.c `nearest_int`)."""
    shifted = np.float32(x + np.float32(12582912.0))
    return np.int32(shifted - np.float32(12582912.0))


_INFINITY = np.uint32(0x7F800000)  # the bits of it; those of NaN are larger


@helper()
def _largest(x: NDArray[np.float32], t: int, start: int, stop: int) -> np.float32:
    """The first of the values x[t, start:stop] that has the largest magnitude; NaN counts for nothing.

    The bits of magnitudes are in the order of magnitudes, and integers can be compared many at a time.
    """
    top = np.uint32(0)
    for i in range(start, stop):
        top = max(top, bits(x[t, i]) & np.uint32(0x7FFFFFFF))
    found = np.float32(0)
    if top <= _INFINITY:
        for i in range(start, stop):
            if bits(x[t, i]) & np.uint32(0x7FFFFFFF) == top:
                found = x[t, i]
                break
        return found
    for i in range(start, stop):
        if abs(x[t, i]) > abs(found):
            found = x[t, i]
    return found


@kernel("void(float32[:, ::1], int8[:, ::1], float32[:, ::1], int64)")
def _q8_k(x: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.float32], upward: int) -> None:
    """upward : whether of two values of the same magnitude the positive one counts, not the first."""
    for t in range(x.shape[0]):
        for b in range(x.shape[1] // 256):
            start = 256 * b
            signed = _largest(x, t, start, start + 256)
            if upward and signed < 0:
                for i in range(256):
                    if x[t, start + i] == -signed:
                        signed = -signed
                        break
            if signed == 0:
                scales[t, b] = 0
                codes[t, start : start + 256] = 0
                continue
            inverse = np.float32(-127.0) / signed
            for i in range(256):
                codes[t, start + i] = min(np.int32(127), _nearest_int(inverse * x[t, start + i]))
            scales[t, b] = np.float32(1.0) / inverse


@kernel("void(float32[:, ::1], int8[:, ::1], float32[:, ::1], float32[:, ::1])")
def _q8_0(
    x: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.float32], sums: NDArray[np.float32]
) -> None:
    """`sums` has no columns where they are not wanted."""
    for t in range(x.shape[0]):
        for b in range(x.shape[1] // 32):
            start = 32 * b
            largest = abs(_largest(x, t, start, start + 32))
            inverse = np.float32(127.0) / largest if largest != 0 else np.float32(0)
            for i in range(32):
                codes[t, start + i] = _nearest_int(x[t, start + i] * inverse)
            scale = largest / np.float32(127.0)
            scales[t, b] = half_to_float(float_to_half(scale))
            if sums.shape[1]:
                total = np.int32(0)
                for i in range(32):
                    total += np.int32(codes[t, start + i])
                sums[t, b] = half_to_float(float_to_half(scale * np.float32(total)))


@kernel("void(float32[:, ::1], int8[:, ::1], float32[:, ::1])")
def _q8_k_apr(x: NDArray[np.float32], codes: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
    for t in range(x.shape[0]):
        for b in range(x.shape[1] // 256):
            start = 256 * b
            largest = abs(_largest(x, t, start, start + 256))
            scale = largest / np.float32(127.0) if largest > np.float32(1e-10) else np.float32(1.0) / np.float32(127.0)
            inverse = np.float32(1.0) / scale
            for i in range(256):
                product = x[t, start + i] * inverse
                whole = np.trunc(product)
                if abs(product - whole) >= np.float32(0.5):  # exact: half away from zero
                    whole += np.copysign(np.float32(1), product)
                codes[t, start + i] = np.int32(min(max(whole, np.float32(-128)), np.float32(127)))
            scales[t, b] = scale


def _empty(rule: str, shape: tuple[int, ...], block: int) -> Codes:
    return Codes(rule, np.empty(shape, np.int8), np.empty((shape[0], shape[1] // block), np.float32))


def quantize_q8_k(x: NDArray[np.float32], fours: int = 0) -> Codes:
    """Ggml's Q8_K (`quantize_row_q8_K_ref`): per 256, scale = -max/127 with max's sign, round half to even.

    fours : the first so many tokens are rounded four at a time (`ggml_quantize_mat_q8_K_4x8`), where of a largest and a
    smallest value of the same magnitude the largest counts, not the first.
    """
    rounded = _empty(Q8_K, x.shape, 256)

    def some(tokens: slice) -> None:
        for start, stop, upward in (
            (tokens.start, min(tokens.stop, fours), 1),
            (max(tokens.start, fours), tokens.stop, 0),
        ):
            if start < stop:
                _q8_k(x[start:stop], rounded.codes[start:stop], rounded.scales[start:stop], upward)

    by_token(some, x.shape)
    return rounded


def quantize_q8_0(x: NDArray[np.float32]) -> Codes:
    """Ggml's Q8_0 as x86 computes it for activations: per 32, scale rounded to half after the codes are made."""
    rounded, none = _empty("ggml Q8_0", x.shape, 32), np.empty((len(x), 0), np.float32)
    by_token(lambda t: _q8_0(x[t], rounded.codes[t], rounded.scales[t], none[t]), x.shape)
    return rounded


def quantize_q8_1(x: NDArray[np.float32]) -> Codes:
    """Ggml's Q8_1: the codes of Q8_0, and the sum of every block, of its unrounded scale, rounded to half."""
    rounded = _empty("ggml Q8_1", x.shape, 32)
    sums = np.empty_like(rounded.scales)
    by_token(lambda t: _q8_0(x[t], rounded.codes[t], rounded.scales[t], sums[t]), x.shape)
    return rounded._replace(sums=sums)


def quantize_q8_k_apr(x: NDArray[np.float32]) -> Codes:
    """APR's Q8_K: per 256, scale = max|x|/127 and positive, round half away from zero."""
    rounded = _empty("APR Q8_K", x.shape, 256)
    by_token(lambda t: _q8_k_apr(x[t], rounded.codes[t], rounded.scales[t]), x.shape)
    return rounded


# By the name that their codes carry. Formats say which one an engine uses for them.
RULES: dict[str, Callable[[NDArray[np.float32]], Codes]] = {
    Q8_K: quantize_q8_k,
    "ggml Q8_0": quantize_q8_0,
    "ggml Q8_1": quantize_q8_1,
    "APR Q8_K": quantize_q8_k_apr,
}
