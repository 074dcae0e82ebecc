"""A recorded trace and the model that it is checked with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.forward import At, evaluate, inputs_of
from kernels.paths import Array
from kernels.stages import Site, execution_order
from store.artifact import Artifact
from store.traces import ForeignTrace
from workbench.bisect.traces.announced import Progress, announced_trace
from workbench.bisect.traces.stages import Reader
from workbench.pair.engines import Arithmetic


@dataclass(frozen=True, slots=True)
class TraceCheck:
    """A trace that is bound to a model, both with the tokens that they have in common.

    model_path : how the model itself would run. side : the trace is A or B. notes : what one of them alone has.
    """

    model: Artifact
    trace: ForeignTrace
    arithmetic: Arithmetic
    model_path: str
    side: Literal["A", "B"]
    tokens: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def reader(self, progress: Progress = lambda *_: None) -> Reader:
        """The trace as `bisect_trace` takes it."""
        trace, how = announced_trace(self.trace, progress), self.arithmetic
        return Reader(self.model, how.path, trace, self.tokens, how.kept, how.attention, how.cache)

    def recorded(self, site: Site) -> Array | None:
        """A stage that the trace holds over all tokens."""
        values = self.trace.read(site) if self.trace.status(site) == "ok" else None
        return values if values is not None and len(values) == len(self.tokens) else None

    def inputs(self, site: Site) -> dict[str, Array]:
        """What a stage reads: recorded or else computed from what is, from the last layer whose output is there."""
        order = execution_order(self.model.config.num_hidden_layers)
        before = order[: order.index(site)]
        ends = [n for n, end in enumerate(before) if end.stage == "layer_output"]
        start = max((n for n in ends if self.recorded(order[n]) is not None), default=0)
        known: dict[str, Array] = {}
        for place in before[start:]:
            value = self.recorded(place)
            if value is None:
                value = self.evaluated(place, known)
            known[place.stage] = known["qkv_matmul"] if value is None else value
            if place.stage in ("embedding", "layer_output"):
                known["layer_input"] = known[place.stage]
        return {name: known[name] for name in inputs_of(site.stage)}

    def evaluated(self, site: Site, inputs: Mapping[str, Array]) -> Array | None:
        """The model's own operation on given inputs; None for a stage that it does not have."""
        at = At(self.model, self.arithmetic.path, self.tokens, site.layer)
        ready = {name: np.ascontiguousarray(inputs[name], dtype=at.path.dtype) for name in inputs_of(site.stage)}
        return evaluate(site.stage, at, ready)
