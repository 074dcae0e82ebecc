"""What can be measured of a pair, by name, and a measured value or the reason why there is none."""

from dataclasses import fields
from typing import Any, NamedTuple

from kernels.config import ModelConfig
from kernels.measures import OTHER_SIGN, Measures
from workbench.cells.cell import LOGIT_FIGURES
from workbench.cells.metrics import METRICS

COSINE, FLOORS = "cosine", "floors"  # 1 - one_minus_cosine; local / floor
_COUNTS = ("nonfinite_a", "nonfinite_b")
OBSERVED = (*METRICS, COSINE, "std_a", "std_b", *_COUNTS)
# What takes running a stage again on both inputs; always over all tokens.
AGAIN = (
    *("local", "inherited", FLOORS, "floor", "noise", "local_share", "inherited_share", "amplification"),
    *("a_off", "b_off"),
)
OF_CELLS = (*OBSERVED, *AGAIN)
OF_TENSORS = (*METRICS, COSINE, "std_a", "std_b", *_COUNTS, "worst_row_rel_rms")
KL, TOP1 = "kl", "top1"  # of a token; over several tokens the share of those with the same top-1
OF_LOGITS = (KL, TOP1, *OBSERVED, *LOGIT_FIGURES)
_WHY = {OTHER_SIGN: f"{OTHER_SIGN}: zero lies between the two values, and float32 steps across it measure nothing"}
SETTINGS = tuple(field.name for field in fields(ModelConfig))


class Reading(NamedTuple):
    """What was measured; None where it could not be, and why, in words."""

    value: Any
    why: str = ""


def figure(measures: Measures, key: str) -> Reading:
    """A figure over all values; of values that are not finite only their number is told."""
    if key in _COUNTS:
        return Reading(getattr(measures, key))
    if measures.nonfinite_a or measures.nonfinite_b:
        return Reading(None, f"{measures.nonfinite_a} values of A and {measures.nonfinite_b} of B are not finite")
    name = "one_minus_cosine" if key == COSINE else key
    value = getattr(measures, name)
    if value is None and name in METRICS and measures.max_abs == 0:
        value = METRICS[name].perfect  # zero or constant, and the same on both sides
    if value is None:
        why = measures.words.get(name, "undefined")
        return Reading(None, _WHY.get(why, why))
    return Reading(1.0 - value if key == COSINE else value)
