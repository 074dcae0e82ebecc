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
    same_bits: int = 16
    nonfinite_a: int = 17
    nonfinite_b: int = 18


COL = Columns()


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
        plain = ("std_a", "std_b", "mean_shift", "max_abs", "mean_abs", "rms", "max_ulp")
        words |= dict.fromkeys(plain, "no finite pair")
    return Measures(
        count=int(p[:, COL.channels].sum()),
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
        identical_share=float(p[:, COL.same_bits].sum() / p[:, COL.channels].sum()),
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
