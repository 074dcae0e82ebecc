"""Two recordings of an engine: each stage is judged on its own recorded inputs, so that nothing is inherited.

If every stage of both is what the file says, but for rounding, then so is their difference; whatever one run does
otherwise shows at the stage that does it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kernels.graph import Array
from kernels.lengths import in_units
from kernels.models import execution_order
from kernels.stages import Site
from store.artifact import Artifact
from store.traces.trace import Trace
from workbench.bisect.headline import headline
from workbench.bisect.pair import bisect_pair, trace_check
from workbench.bisect.traces.announced import Progress
from workbench.bisect.traces.stages import Checked, recorded_stages
from workbench.bisect.verdict import Bisection
from workbench.pair.pair import Pair, paired
from workbench.vary.beside import Beside
from workbench.vary.change import Change
from workbench.vary.finding import Finding, Verdict

_HEALTHY = ("alike", "numerics_only", "quantization_only")


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A trace, checked with the model that it was recorded of."""

    pair: Pair
    trace: Trace
    found: Bisection

    @classmethod
    def checked(cls, model: Artifact, trace: Trace, tokens: tuple[int, ...], progress: Progress) -> "Recording":
        """Bisect a trace against its model."""
        pair = paired((model, trace), (None, None), tokens, None)
        return cls(pair, trace.bind(tokens, model.config), bisect_pair(pair, progress).bisection)

    @property
    def healthy(self) -> bool:
        """Whether every stage is what the file says, but for rounding."""
        return self.found.verdict in _HEALTHY

    @property
    def words(self) -> str:
        """What the bisection says."""
        return headline(self.found)

    @property
    def most(self) -> float | None:
        """The largest that any stage is off by, in what rounding can cause there."""
        return max((cell.a_off + cell.b_off for cell in self.found.checked), default=None)

    def stage(self, site: Site) -> Checked | None:
        """A stage with what rounding can cause there."""
        reader = trace_check(self.pair).reader()
        return next((stage for stage in recorded_stages(reader, {site}) if stage.site == site), None)


def judged(change: Change, prompt: int, words: tuple[str, str], base: Recording, changed: Recording) -> Finding:
    """Say whether a changed run may differ from the base as it does. words : of the setting before and after."""
    beside = Beside.of(_both(base.trace, changed.trace))
    if beside.same:
        return Finding(change, prompt, "alike", *words, beside=beside)
    verdict, why = _verdict(base, changed)
    return Finding(change, prompt, verdict, *words, why, beside, _floors(beside, base, changed), changed.most)


def _verdict(base: Recording, changed: Recording) -> tuple[Verdict, str | None]:
    """The verdict on two runs that are not the same, and why."""
    if changed.found.differs:
        return "divergent", f"with the change: {changed.words}"
    if base.found.differs:
        return "divergent", f"without the change: {base.words}"
    if base.healthy and changed.healthy:
        return "numerics_only", None
    unknown = base if not base.healthy else changed
    return "undecided", f"{'without' if unknown is base else 'with'} the change: {unknown.words}"


def _both(base: Trace, changed: Trace) -> Iterator[tuple[Site, Array | None, Array | None]]:
    """Every stage that one of both holds."""
    assert base.config is not None
    for site in execution_order(base.config):
        before, after = (trace.read(site) if site in trace.stages else None for trace in (base, changed))
        if before is not None or after is not None:
            yield site, before, after


def _floors(beside: Beside, base: Recording, changed: Recording) -> float | None:
    """How far both runs are apart at the first difference, whose inputs are still the same."""
    if beside.first is None:
        return None
    stages = [recording.stage(beside.first.site) for recording in (base, changed)]
    if stages[0] is None or stages[1] is None or stages[0].y.shape != stages[1].y.shape:
        return None
    units = in_units(stages[1].y, stages[0].y, stages[0].noise + stages[1].noise)
    return float(np.sqrt(units.worst))
