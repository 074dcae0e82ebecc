"""What all stages of a trace have in common: a copy with coarser weights is no mistake, and noise is no answer.

A single product that is off by some percent is a mistake; if all products are, by about as much, and nothing else is,
the trace was recorded from a copy whose weights are quantized. If even lookups and additions are off, each by something
else, the trace contradicts itself, and no stage can be blamed.
"""

from dataclasses import dataclass, field

import numpy as np

from kernels.stages import Site
from workbench.bisect.floor import MATMUL_INPUT
from workbench.bisect.recorded import Checked
from workbench.bisect.verdict import Culprit

_STORED = (*MATMUL_INPUT, "embedding")  # stages that a quantized copy computes otherwise
_ADDED = ("embedding", "post_attn_residual", "post_ffn_residual", "layer_output")  # nothing there can be rounded
_COARSEST = 0.25  # relative difference of a product that 3-bit weights make
_SPREAD = 3.0  # times the median: products of one copy differ by less than this
_MOST, _FEWEST = 0.6, 4


@dataclass(slots=True)
class Excuses:
    """The relative differences of all stages, and which of them were wrong."""

    seen: dict[Site, float] = field(default_factory=dict)
    wrong: dict[Site, float] = field(default_factory=dict)
    requantized: bool = False

    def see(self, stage: Checked) -> None:
        """Take note of a stage."""
        self.seen[stage.site] = stage.relative
        if stage.wrong:
            self.wrong[stage.site] = stage.relative

    def _coarser_copy(self) -> float | None:
        """The largest difference that belongs to a quantized copy, or None if this does not look like one."""
        products = [site for site in self.seen if site.stage in MATMUL_INPUT]
        off = [self.wrong[site] for site in products if site in self.wrong]
        if len(off) < max(_FEWEST, _MOST * len(products)) or not np.isfinite(off).any():
            return None
        middle = float(np.median(off))
        return _SPREAD * middle if middle <= _COARSEST else None

    def explain(self, stage: Checked) -> bool:
        """Whether a wrong stage is only what a copy with coarser weights must compute."""
        limit = self._coarser_copy()
        excused = limit is not None and stage.site.stage in _STORED and stage.relative <= limit
        self.requantized |= excused
        return excused

    def notes(self) -> list[str]:
        """Sentences about what was excused."""
        if not self.requantized:
            return []
        off = [self.wrong[site] for site in self.wrong if site.stage in MATMUL_INPUT]
        return [
            f"all products differ alike, by {np.median(off):.2g} of their norm, as those of a copy with coarser weights "
            "do; give the file that the trace was recorded from, and what is smaller than that can be seen too"
        ]

    def contradicts_itself(self, culprits: list[Culprit]) -> bool:
        """Whether no stage can be blamed: most are wrong, plain additions among them, and nothing reproduces them."""
        unknown = {culprit.site for culprit in culprits if culprit.cause in ("unknown", "bias_wrong")}
        added = [site for site in self.seen if site.stage in _ADDED]
        lost = [site for site in added if site in unknown]
        return len(lost) >= max(2, _MOST * len(added)) and len(self.wrong) >= _MOST * len(self.seen)
