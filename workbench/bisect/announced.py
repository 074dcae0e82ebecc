"""Models and traces that tell what is being read from them, so that a long bisection shows how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.forward import Model
from kernels.stages import Site
from kernels.weight import Weight
from store.foreign import ForeignTrace

# Called with layers (of a trace: stages) done and in all, and what is looked at.
Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class AnnouncedModel:
    """A model that tells the layer of every tensor it is asked for."""

    model: Model
    progress: Progress

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters."""
        return self.model.config

    def weight(self, name: str) -> Weight:
        """A tensor by its canonical name."""
        if name.startswith("model.layers."):
            layer = int(name.split(".")[2])
            self.progress(layer, self.config.num_hidden_layers, f"layer {layer}")
        return self.model.weight(name)

    def __contains__(self, name: str) -> bool:
        return name in self.model


def announced_trace(trace: ForeignTrace, progress: Progress) -> ForeignTrace:
    """The same trace, which tells every stage that is read."""
    order = trace.sites()
    parts = {
        site: replace(trace.parts[site], load=partial(_load, trace.parts[site].load, progress, n, len(order), site))
        for n, site in enumerate(order)
    }
    return replace(trace, parts=parts)


def _load(load: Callable[[], NDArray[Any]], progress: Progress, done: int, total: int, site: Site) -> NDArray[Any]:
    progress(done, total, str(site))
    return load()
