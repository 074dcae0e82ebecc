"""The metrics of a cell, from the sums per token that `kernels.metrics.profile` leaves.

Needs NumPy only: whoever shows or reports numbers loads no compiler. Definitions: docs/metrics.md.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Columns(NamedTuple):
    """Columns of a profile. Sums run over the pairs in which both values are finite; d = a - b."""

    channels: int = 0
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
    across_zero: int = 16  # 1 if that distance is one between values of unlike sign
    same_bits: int = 17
    nonfinite_a: int = 18
    nonfinite_b: int = 19


COL = Columns()
OTHER_SIGN = "other sign"  # why the largest distance in float32 steps is undefined: across zero it measures nothing


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
    sums = p[:, : COL.max_abs].sum(axis=0).tolist()
    same_bits, nonfinite_a, nonfinite_b = p[:, COL.same_bits :].sum(axis=0).tolist()
    n = sums[COL.finite]
    top, furthest = int(p[:, COL.max_abs].argmax()), int(p[:, COL.max_ulp].argmax())
    energy_a, energy_b, energy_d = sums[COL.energy_a : COL.energy_d + 1]
    (mean_a, mean_b), (std_a, std_b) = _spreads(p, n)

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
        plain = ("std_a", "std_b", "mean_shift", "max_abs", "mean_abs", "rms", "max_ulp")
        words |= dict.fromkeys(plain, "no finite pair")
    across_zero = bool(p[furthest, COL.across_zero])
    if across_zero:
        words["max_ulp"] = OTHER_SIGN
    angle = _angle_energy(energy_a, energy_b, energy_d, sums[COL.skew])
    turned = ratio("one_minus_cosine", angle, 2 * (energy_a * energy_b) ** 0.5, _NO_NORM**2, zero)
    return Measures(
        count=int(sums[COL.channels]),
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
        mean_abs=sums[COL.abs_d] / n if some else None,
        rms=(energy_d / n) ** 0.5 if some else None,
        rel_rms=ratio("rel_rms", energy_d**0.5, energy_b**0.5, _NO_NORM, zero),
        nmse_energy=ratio("nmse_energy", energy_d, energy_b, _NO_NORM**2, zero),
        nmse_var=ratio("nmse_var", energy_d / max(n, 1), std_b**2, no_spread**2, flat),
        one_minus_cosine=None if turned is None else min(max(turned, 0.0), 2.0),
        max_ulp=int(p[furthest, COL.max_ulp]) if some and not across_zero else None,
        identical_share=same_bits / sums[COL.channels],
        nonfinite_a=int(nonfinite_a),
        nonfinite_b=int(nonfinite_b),
        words=words,
    )


def _spreads(p: NDArray[np.float64], n: float) -> tuple[list[float], list[float]]:
    """Mean and population standard deviation of A and of B over all rows of a profile."""
    if n == 0:
        return [0.0, 0.0], [0.0, 0.0]
    counts, means = p[:, COL.finite, None], p[:, COL.mean_a : COL.mean_b + 1]
    overall = (counts * means).sum(axis=0) / n
    centred = p[:, COL.centred_a : COL.centred_b + 1] + counts * (means - overall) ** 2
    return overall.tolist(), np.sqrt(centred.sum(axis=0) / n).tolist()


def _zero_words(rms_a: float, rms_b: float) -> str:
    if rms_a <= _NO_NORM and rms_b <= _NO_NORM:
        return "both zero"
    return "B zero" if rms_b <= _NO_NORM else "A zero" if rms_a <= _NO_NORM else ""


def _angle_energy(energy_a: float, energy_b: float, energy_d: float, skew: float) -> float:
    """2|a||b|(1 - cos) from |d|^2 and the difference of the norms, so that nearly parallel vectors keep all digits.

    |a-b|^2 = (|a|-|b|)^2 + 2|a||b|(1-cos), and |a|-|b| = sum (a-b)(a+b) / (|a|+|b|).
    """
    gap: float = skew / max(energy_a**0.5 + energy_b**0.5, _NO_NORM)
    return energy_d - gap * gap


class LogitAgreement(NamedTuple):
    """Agreement of two next-token distributions, one value per token."""

    kl: NDArray[np.float64]  # KL(B||A) in nats, B as the base as in llama-perplexity
    top1: NDArray[np.bool_]
    top5: NDArray[np.float64]  # share of B's five most likely tokens that are among A's five
