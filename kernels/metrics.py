"""How far two tensors are apart: one pass over both, float64 sums, kept per token.

`profile` reduces two (tokens, channels) tensors to a few sums per token. Every metric of any set of tokens follows
from those sums, so a changed token scope never needs the tensors again. Definitions: docs/metrics.md.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import helper, kernel


class Columns(NamedTuple):
    """Columns of a profile. Sums run over the pairs in which both values are finite; d = a - b."""

    count: int = 0  # channels
    finite: int = 1  # pairs with both values finite
    mean_a: int = 2
    mean_b: int = 3
    centred_a: int = 4  # sum of (a - mean_a)^2
    centred_b: int = 5
    energy_a: int = 6  # sum of a^2
    energy_b: int = 7
    energy_d: int = 8
    abs_d: int = 9  # sum of |d|
    skew: int = 10  # sum of (a - b)(a + b), the difference of the energies without cancellation
    max_abs: int = 11
    max_channel: int = 12
    max_a: int = 13  # the two values where |d| is largest
    max_b: int = 14
    max_ulp: int = 15
    same_bits: int = 16
    nonfinite_a: int = 17
    nonfinite_b: int = 18


COL = Columns()


@helper()
def _order(bits: np.int32) -> np.int64:
    """Place of a float32 among all float32 values in numeric order, -0 and +0 at the same place."""
    return np.int64(bits) if bits >= 0 else np.int64(-2147483648) - np.int64(bits)


@helper()
def _finite(bits_a: np.int32, bits_b: np.int32) -> bool:
    """Whether two float32 values are both finite; asked of their bits, which no re-ordering of sums can fold away."""
    return (bits_a & 0x7F800000) != 0x7F800000 and (bits_b & 0x7F800000) != 0x7F800000


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
            x, y = (x, y) if keep else (0.0, 0.0)
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
            x, y = (x - mean_a, y - mean_b) if keep else (0.0, 0.0)
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


@dataclass(frozen=True, slots=True)
class Measures:
    """The metrics of a cell over some tokens. None means undefined; `words` then says why, by field name."""

    count: int
    finite: int
    std_a: float | None
    std_b: float | None
    std_ratio: float | None
    mean_shift: float | None
    max_abs: float | None
    max_token: int
    max_channel: int
    max_a: float
    max_b: float
    mean_abs: float | None
    rms: float | None
    rel_rms: float | None
    nmse_energy: float | None
    nmse_var: float | None
    one_minus_cosine: float | None
    max_ulp: int | None
    identical_share: float
    nonfinite_a: int
    nonfinite_b: int
    words: dict[str, str]

    @property
    def identical(self) -> bool:
        """Whether every element has the same bits on both sides."""
        return self.identical_share == 1.0


# A spread below this share of the RMS is float32 rounding of a constant, not a spread (half a unit in the last place).
_NO_SPREAD = 2.0**-24
# Smallest normal float32: a norm below it is zero for every purpose here.
_NO_NORM = float(np.finfo(np.float32).tiny)


def summarise(profile: NDArray[np.float64], tokens: slice = slice(None)) -> Measures:
    """Metrics over the selected token rows of a profile, combined in float64 (Chan et al. 1979 for the spreads)."""
    first = tokens.indices(len(profile))[0]
    p = profile[tokens]
    words: dict[str, str] = {}
    n = float(p[:, COL.finite].sum())
    top = int(np.argmax(p[:, COL.max_abs]))
    energy_a, energy_b, energy_d = (float(p[:, c].sum()) for c in (COL.energy_a, COL.energy_b, COL.energy_d))
    mean_a, std_a = _spread(p, COL.mean_a, COL.centred_a, n)
    mean_b, std_b = _spread(p, COL.mean_b, COL.centred_b, n)

    def ratio(name: str, top: float, bottom: float, least: float, why: str) -> float | None:
        if n == 0:
            words[name] = "no finite pair"
        elif bottom <= least:
            words[name] = why
        else:
            return top / bottom
        return None

    rms_a, rms_b = ((e / n) ** 0.5 if n else 0.0 for e in (energy_a, energy_b))
    zero = _zero_words(rms_a, rms_b)
    flat = zero or ("both constant" if std_a <= _NO_SPREAD * rms_a else "B constant")
    no_spread = max(_NO_SPREAD * rms_b, _NO_NORM)
    some = n > 0
    if not some:
        words |= dict.fromkeys(("std_a", "std_b", "mean_shift", "max_abs", "mean_abs", "rms", "max_ulp"), "no finite pair")
    return Measures(
        count=int(p[:, COL.count].sum()),
        finite=int(n),
        std_a=std_a if some else None,
        std_b=std_b if some else None,
        std_ratio=ratio("std_ratio", std_a, std_b, no_spread, flat),
        mean_shift=mean_a - mean_b if some else None,
        max_abs=float(p[top, COL.max_abs]) if some else None,
        max_token=first + top,
        max_channel=int(p[top, COL.max_channel]),
        max_a=float(p[top, COL.max_a]),
        max_b=float(p[top, COL.max_b]),
        mean_abs=float(p[:, COL.abs_d].sum()) / n if some else None,
        rms=(energy_d / n) ** 0.5 if some else None,
        rel_rms=ratio("rel_rms", energy_d**0.5, energy_b**0.5, _NO_NORM, zero),
        nmse_energy=ratio("nmse_energy", energy_d, energy_b, _NO_NORM**2, zero),
        nmse_var=ratio("nmse_var", energy_d / max(n, 1), std_b**2, no_spread**2, flat),
        one_minus_cosine=_one_minus_cosine(p, energy_a, energy_b, energy_d, ratio, zero),
        max_ulp=int(p[:, COL.max_ulp].max()) if some else None,
        identical_share=float(p[:, COL.same_bits].sum() / p[:, COL.count].sum()),
        nonfinite_a=int(p[:, COL.nonfinite_a].sum()),
        nonfinite_b=int(p[:, COL.nonfinite_b].sum()),
        words=words,
    )


def _spread(p: NDArray[np.float64], mean: int, centred: int, n: float) -> tuple[float, float]:
    """Mean and population standard deviation over all rows of a profile."""
    if n == 0:
        return 0.0, 0.0
    counts = p[:, COL.finite]
    overall = float((counts * p[:, mean]).sum() / n)
    between = (counts * (p[:, mean] - overall) ** 2).sum()
    return overall, float(((p[:, centred].sum() + between) / n) ** 0.5)


def _zero_words(rms_a: float, rms_b: float) -> str:
    if rms_a <= _NO_NORM and rms_b <= _NO_NORM:
        return "both zero"
    return "B zero" if rms_b <= _NO_NORM else "A zero" if rms_a <= _NO_NORM else ""


def _one_minus_cosine(p, energy_a, energy_b, energy_d, ratio, zero) -> float | None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """1 - cos from |d|^2 and the difference of the norms, so that nearly parallel vectors keep all digits.

    |a-b|^2 = (|a|-|b|)^2 + 2|a||b|(1-cos), and |a|-|b| = sum (a-b)(a+b) / (|a|+|b|).
    """
    norms = (energy_a * energy_b) ** 0.5
    gap = float(p[:, COL.skew].sum()) / max(energy_a**0.5 + energy_b**0.5, _NO_NORM)
    value = ratio("one_minus_cosine", energy_d - gap * gap, 2 * norms, _NO_NORM**2, zero)
    return None if value is None else min(max(value, 0.0), 2.0)


class LogitAgreement(NamedTuple):
    """Agreement of two next-token distributions, one value per token."""

    kl: NDArray[np.float64]  # KL(B||A) in nats, B as the base as in llama-perplexity
    top1: NDArray[np.bool_]
    top5: NDArray[np.float64]  # share of B's five most likely tokens that are among A's five


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
