"""A recorded trace and the model that it is checked with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kernels.graph import Array, At, Inputs, Stage
from kernels.models import Graph
from kernels.stages import Site
from store.artifact import Artifact
from store.traces.trace import Trace
from workbench.bisect.traces.announced import Progress, announced_trace
from workbench.bisect.traces.spans import evaluated
from workbench.bisect.traces.stages import Reader
from workbench.pair.engines import Arithmetic


@dataclass(frozen=True, slots=True)
class TraceCheck:
    """A trace that is bound to a model, both with the tokens that they have in common.

    model_path : how the model itself would run. side : the trace is A or B. notes : what one of them alone has.
    """

    model: Artifact
    trace: Trace
    arithmetic: Arithmetic
    model_path: str
    side: Literal["A", "B"]
    tokens: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph:
        """The stages that the model has, and those that only the trace holds."""
        return self.reader().graph

    def reader(self, progress: Progress = lambda *_: None) -> Reader:
        """The trace as `bisect_trace` takes it."""
        trace, how = announced_trace(self.trace, progress), self.arithmetic
        return Reader(self.model, how.path, trace, self.tokens, how.kept, how.attention, how.products, how.cache)

    def recorded(self, site: Site) -> Array | None:
        """A stage that the trace holds over all tokens."""
        values = self.trace.read(site) if self.trace.status(site) == "ok" else None
        return values if values is not None and len(values) == len(self.tokens) else None

    def inputs(self, stage: Stage) -> dict[str, Array]:
        """What a stage reads: recorded or else computed from what is, from the last layer whose output is there."""
        graph = self.graph
        stages = list(graph.stages())
        before = stages[: stages.index(stage)]
        ends = [n for n, other in enumerate(before[:-1]) if before[n + 1].site.layer != other.site.layer]
        layers = {n: before[n + 1].site.layer for n in ends}
        start, known = 0, dict[Site, Array]()
        for n in reversed(ends):
            layer = layers[n]
            needed = graph.needed(self.model.config.num_hidden_layers if layer is None else layer)
            found = {site: value for site in needed if (value := self.recorded(site)) is not None}
            if len(found) == len(needed):
                start, known = n + 1, found
                break
        for place in before[start:]:
            value = self.recorded(place.site)
            known[place.site] = self.evaluated(place, self._read(place, known)) if value is None else value
        return self._read(stage, known)

    def _read(self, stage: Stage, known: Mapping[Site, Array]) -> dict[str, Array]:
        return {role: known[site] for role, site in self.graph.reads(stage).items()}

    def evaluated(self, stage: Stage, inputs: Inputs) -> Array:
        """The model's own operation on given inputs by role."""
        return evaluated(At(self.model, self.arithmetic.path, self.tokens, stage), inputs)
