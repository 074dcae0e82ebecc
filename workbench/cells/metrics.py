"""The metrics a cell can be shown in: one table for map, inspector, command line, report and docs."""

import math
from collections.abc import Callable
from typing import NamedTuple

from kernels.measures import Measures


class Metric(NamedTuple):
    """How one number of a cell is named, defined, judged and scaled.

    band : closed interval outside of which a cell is marked, or None where no limit means anything by itself.
    perfect : the value of identical tensors; the map's colour is the distance from it.
    """

    key: str
    label: str
    definition: str
    perfect: float
    band: tuple[float, float] | None

    def value(self, measures: Measures) -> float | None:
        """The number, or None where it is undefined (`measures.words[key]` says why)."""
        value = getattr(measures, self.key)
        return None if value is None else float(value)

    def word(self, measures: Measures) -> str:
        """Why the number is undefined, in words."""
        return "IDENTICAL" if measures.identical else measures.words.get(self.key, "undefined")

    def text(self, measures: Measures, number: Callable[[float], str] | None = None) -> str:
        """The number as people read it, or the words that stand for it. number : how it is written, `format_value`."""
        value = self.value(measures)
        return self.word(measures) if value is None else (number or format_value)(value)

    def distance(self, value: float) -> float:
        """How far from identical, on a scale where 0 is identical and larger is worse."""
        if self.key == "std_ratio":
            return abs(math.log(value)) if value > 0 else math.inf
        return abs(value - self.perfect)


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric(
            "std_ratio",
            "std ratio A/B",
            "population std of A / population std of B; blind to order and sign: 1 proves nothing, r proves a relative "
            "error of at least |r-1|",
            1.0,
            (0.5, 2.0),
        ),
        Metric("rel_rms", "relative RMS", "‖a-b‖ / ‖b‖ (relative L2)", 0.0, (0.0, 0.5)),
        Metric(
            "one_minus_cosine",
            "1 - cosine",
            "1 - ⟨a,b⟩/(‖a‖‖b‖), computed without cancellation; about half the squared relative error",
            0.0,
            (0.0, 0.125),
        ),
        Metric("max_abs", "max |d|", "largest |a-b| and where it is", 0.0, None),
        Metric("mean_abs", "mean |d|", "mean of |a-b|", 0.0, None),
        Metric("rms", "RMS d", "√ mean (a-b)²", 0.0, None),
        Metric("mean_shift", "mean shift", "mean(a) - mean(b)", 0.0, None),
        Metric("nmse_energy", "NMSE (energy)", "Σ(a-b)² / Σb², as in llama.cpp's test-backend-ops", 0.0, (0.0, 0.25)),
        Metric("nmse_var", "NMSE (variance)", "mean (a-b)² / var(b), as in llama.cpp's check-nmse", 0.0, (0.0, 0.25)),
        Metric(
            "max_ulp",
            "max ULP",
            "largest distance in float32 steps; meaningful only between two runs of the same arithmetic",
            0.0,
            None,
        ),
        Metric("identical_share", "identical share", "share of elements with the same bits", 1.0, None),
    )
}
OPENING_METRIC = "std_ratio"


def in_band(metric: Metric, measures: Measures) -> bool | None:
    """Whether the cell lies inside the metric's band; None where the metric has no band.

    An undefined number of tensors that are not identical counts as outside: nothing shows that they agree.
    """
    if measures.identical:
        return True
    if metric.band is None:
        return None
    if measures.nonfinite_a != measures.nonfinite_b:
        return False
    value = metric.value(measures)
    if value is None:
        return measures.words.get(metric.key) in ("both zero", "both constant") and measures.max_abs == 0.0
    low, high = metric.band
    return low <= value <= high


def format_value(value: float | None) -> str:
    """Up to seven characters that keep the digits a reader compares: 1.245, 0.0312, 3.1e-07, 18.23."""
    if value is None:
        return "-"
    size = abs(value)
    if value == 0:
        return "0"
    if not math.isfinite(value) or size >= 10000 or size < 0.001:
        return f"{value:.1e}"
    return f"{value:.4g}" if size < 100 else f"{value:.1f}"
