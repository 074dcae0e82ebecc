"""What an experiment is tried on: the open pair, or one model on two paths, at a chosen cell, with captured values."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.forward import Step, steps
from kernels.graph import At, Kind, Stage
from kernels.models import Graph, all_stages
from kernels.stages import LAST_STAGES, Site
from kernels.weight import Weight
from store.artifact import Artifact
from store.nearest import did_you_mean
from store.text import printable
from workbench.bisect.models.cell import Side
from workbench.bisect.pair import model_sides
from workbench.pair.pair import DEFAULT_PATH, Pair, open_source
from workbench.pair.prompt import Prompt
from workbench.pair.tokens import recorded_tokens, shared_tokens

_LAYER = 3  # that of the published case; the last one where a model has fewer


@dataclass(frozen=True, eq=False)
class Subject:
    """Two models as they run, the tokens if any are known, and the cell asked for.

    alone : one model on two paths. near : the stage is only where someone looks: an experiment that is about others
    takes one of the same layer.
    """

    pair: Pair
    a: Side
    b: Side
    alone: bool
    layer: int | None
    stage: str | None
    near: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens that both run; WorkbenchError where none were given."""
        return self.pair.ids

    @cached_property
    def graph(self) -> Graph:
        """The graph of A."""
        return Graph.of(self.a.model)

    @property
    def layers(self) -> int:
        """How many layers A has."""
        return self.a.model.config.num_hidden_layers

    def stage_of(self, kind: type[Kind], layer: int | None = None) -> Stage:
        """The stage asked for, which must be of a kind; without --stage the last one of that kind in the layer."""
        number = layer if layer is not None else self.chosen_layer
        whole = self.stage in LAST_STAGES and layer is None
        stages = self.graph.last if whole else self.graph.layer(number)
        of_kind = [stage for stage in stages if isinstance(stage.kind, kind)]
        names = ", ".join(stage.site.stage for stage in of_kind)
        if not of_kind:
            raise WorkbenchError(f"layer {number} of {self._name} has no stage that this experiment is about")
        found = of_kind if self.stage is None else [stage for stage in of_kind if stage.site.stage == self.stage]
        if not found and self.near:
            return of_kind[-1]
        if not found:
            raise WorkbenchError(f"--stage {printable(str(self.stage), 40)}: this experiment is about one of {names}")
        return found[-1]

    @property
    def chosen_layer(self) -> int:
        """The layer asked for, else that of the published case."""
        if self.layer is None:
            return min(_LAYER, self.layers - 1)
        if self.layer >= self.layers:
            raise WorkbenchError(f"--layer {self.layer}: {self._name} has layers 0 to {self.layers - 1}")
        return self.layer

    def weight(self, stage: Stage, side: str = "a") -> Weight:
        """The first weight of a stage on a side."""
        model = (self.a if side == "a" else self.b).model
        return model.weight(stage.weights[0])

    def captured(self, site: Site) -> Step:
        """What A reads and gives at a site when it runs the tokens."""
        for step in steps(self.a.model, self.ids, self.a.path):
            if step.stage.site == site:
                return step
        raise WorkbenchError(f"{self._name} has no {site}")

    def at(self, stage: Stage, side: str = "a") -> At:
        """Where a stage of a side is evaluated."""
        of = self.a if side == "a" else self.b
        return At(of.model, of.path, self.ids, stage)

    def inputs(self, site: Site | None = None, tokens: bool = True, both: bool = False) -> dict[str, Any]:
        """What a number was measured on: files, numeric paths, cell and tokens. both : of B, too."""
        record: dict[str, Any] = {"a": printable(self.pair.a.path.name, 200), "path_a": self.a.path.name}
        if both:
            record |= {"b": printable(self.pair.b.path.name, 200), "path_b": self.b.path.name}
        if site is not None:
            record |= {"layer": site.layer, "stage": site.stage}
        return record | ({"tokens": list(self.ids)} if tokens else {})

    @property
    def files(self) -> list[Path]:
        """All files that the models are read from."""
        sources = (source for source in (self.pair.a, self.pair.b) if isinstance(source, Artifact))
        return [file for source in sources for file in source.inputs]

    @property
    def _name(self) -> str:
        return printable(self.pair.a.path.name)


def open_subject(
    paths: tuple[Path, ...],
    asked: tuple[str | None, str | None],
    tokens: tuple[int, ...] | None,
    prompt: Prompt | None,
    layer: int | None = None,
    stage: str | None = None,
) -> Subject:
    """Open one model or two; tokens may be missing, since not every experiment runs any.

    One model runs on f32 and on the path of its format (ggml for one that is f32 itself), unless others are asked for.
    WorkbenchError for a trace, which has no weights, and for models of different sizes.
    """
    sources = [open_source(path) for path in paths]
    alone = len(sources) == 1
    if alone:
        source = sources[0]
        own = DEFAULT_PATH[source.format] if isinstance(source, Artifact) else "f32"
        asked = (asked[0] or "f32", asked[1] or ("ggml" if own == "f32" else own))
        sources = [source, source]
    silent = tokens is None and prompt is None and not any(recorded_tokens(sources))
    pair = Pair(sources[0], sources[1], None if silent else shared_tokens(sources, tokens, prompt), asked)
    return subject_of(pair, alone, layer, stage)


def subject_of(pair: Pair, alone: bool, layer: int | None, stage: str | None, near: bool = False) -> Subject:
    """An opened pair at a cell; WorkbenchError as `open_subject`."""
    if stage is not None and stage not in all_stages():
        meant = did_you_mean(stage, all_stages(), f"the stages are {', '.join(all_stages())}")
        raise WorkbenchError(f"--stage {printable(stage, 40)} names no stage; {meant}")
    a, b = model_sides(pair)
    pair.require_one_model()
    return Subject(pair, a, b, alone, layer, stage, near)


def last(x: NDArray[Any]) -> NDArray[np.float32]:
    """The values of the last token, float32."""
    return np.ascontiguousarray(x[-1], dtype=np.float32)
