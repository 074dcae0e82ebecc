"""How far two tensors are apart: one pass over both, float64 sums, kept per token.

`profile` reduces two (tokens, channels) tensors to a few sums per token. Every metric of any set of tokens follows
from those sums (kernels/measures.py), so a changed token scope never needs the tensors again.
Definitions: docs/metrics.md.
"""

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import helper, kernel
from kernels.measures import COL, LogitAgreement


@helper()
def _order(bits: np.int32) -> np.int64:
    """Place of a float32 among all float32 values in numeric order, -0 and +0 at the same place."""
    return np.int64(bits) if bits >= 0 else np.int64(-2147483648) - np.int64(bits)


@helper()
def _finite(bits_a: np.int32, bits_b: np.int32) -> bool:
    """Whether two float32 values are both finite; asked of their bits, which no re-ordering of sums can fold away."""
    return bool((bits_a & 0x7F800000) != 0x7F800000 and (bits_b & 0x7F800000) != 0x7F800000)


@kernel(
    "void(float32[:, ::1], float32[:, ::1], int32[:, ::1], int32[:, ::1], float64[:, ::1])",
    reassociate=True,
)
def _sums(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    bits_a: NDArray[np.int32],
    bits_b: NDArray[np.int32],
    out: NDArray[np.float64],
) -> None:
    channels = a.shape[1]
    for t in range(a.shape[0]):
        finite = 0
        sum_a = sum_b = energy_a = energy_b = energy_d = abs_d = skew = 0.0
        for i in range(channels):
            x, y = np.float64(a[t, i]), np.float64(b[t, i])
            keep = _finite(bits_a[t, i], bits_b[t, i])
            x, y = (x, y) if keep else (np.float64(0), np.float64(0))
            finite += 1 if keep else 0
            sum_a += x
            sum_b += y
            energy_a += x * x
            energy_b += y * y
            d = x - y
            energy_d += d * d
            abs_d += abs(d)
            skew += d * (x + y)
        n = max(finite, 1)
        mean_a, mean_b = sum_a / n, sum_b / n
        centred_a = centred_b = 0.0
        for i in range(channels):
            x, y = np.float64(a[t, i]), np.float64(b[t, i])
            keep = _finite(bits_a[t, i], bits_b[t, i])
            x, y = (x - mean_a, y - mean_b) if keep else (np.float64(0), np.float64(0))
            centred_a += x * x
            centred_b += y * y
        row = out[t]
        row[0], row[1], row[2], row[3], row[4], row[5] = channels, finite, mean_a, mean_b, centred_a, centred_b
        row[6], row[7], row[8], row[9], row[10] = energy_a, energy_b, energy_d, abs_d, skew


@kernel("void(float32[:, ::1], float32[:, ::1], int32[:, ::1], int32[:, ::1], float64[:, ::1])")
def _extremes(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    bits_a: NDArray[np.int32],
    bits_b: NDArray[np.int32],
    out: NDArray[np.float64],
) -> None:
    channels = a.shape[1]
    for t in range(a.shape[0]):
        largest, where = -1.0, 0
        same = bad_a = bad_b = 0
        ulp = np.int64(0)
        for i in range(channels):
            x, y = np.float64(a[t, i]), np.float64(b[t, i])
            same += 1 if bits_a[t, i] == bits_b[t, i] else 0
            bad_a += 0 if np.isfinite(x) else 1
            bad_b += 0 if np.isfinite(y) else 1
            if _finite(bits_a[t, i], bits_b[t, i]):
                ulp = max(ulp, abs(_order(bits_a[t, i]) - _order(bits_b[t, i])))
                if abs(x - y) > largest:
                    largest, where = abs(x - y), i
        row = out[t]
        row[11] = max(largest, 0.0)
        row[12], row[13], row[14] = where, a[t, where], b[t, where]
        row[15], row[16], row[17], row[18] = ulp, same, bad_a, bad_b


def profile(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums per token of the differences between two tensors of the same population.

    a, b : float32 (tokens, channels). Returns float64 (tokens, len(COL)), columns as in `Columns`.
    Raises ValueError if the shapes differ or are empty: such tensors cannot be compared.
    """
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise ValueError(f"tensors of shapes {a.shape} and {b.shape} cannot be compared element by element")
    a, b = (np.require(np.asarray(x, dtype=np.float32), requirements=["C", "W"]) for x in (a, b))
    out = np.empty((a.shape[0], len(COL)))
    bits_a, bits_b = a.view(np.int32), b.view(np.int32)
    _sums(a, b, bits_a, bits_b, out)
    _extremes(a, b, bits_a, bits_b, out)
    return out


def logit_agreement(a: NDArray[np.float32], b: NDArray[np.float32]) -> LogitAgreement:
    """KL divergence and top-1/top-5 agreement per token of two logit tensors (tokens, vocabulary)."""
    log_a, log_b = (_log_softmax(x.astype(np.float64)) for x in (a, b))
    kl = np.maximum((np.exp(log_b) * (log_b - log_a)).sum(axis=1), 0.0)
    k = min(5, a.shape[1])
    best_a, best_b = (np.argpartition(-x, k - 1, axis=1)[:, :k] for x in (a, b))
    top5 = np.array([len(set(x) & set(y)) / k for x, y in zip(best_a.tolist(), best_b.tolist(), strict=True)])
    return LogitAgreement(kl, a.argmax(axis=1) == b.argmax(axis=1), top5)


def _log_softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = x - x.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
