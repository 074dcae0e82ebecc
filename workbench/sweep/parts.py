"""What of B a sweep exchanges, one part a unit of work, and what each is expected to cost."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from kernels.errors import WorkbenchError
from kernels.graph import Model, Stage
from kernels.kinds.experts import ExpertProduct
from kernels.kinds.product import Product
from kernels.models import Graph
from kernels.stages import Site
from store.artifact import Artifact
from store.names import EMBEDDING, LM_HEAD, gguf_name
from store.text import printable
from workbench.sweep.question import Opened

By = Literal["tensor", "layer", "stage", "prompt"]
BY: tuple[By, ...] = ("tensor", "layer", "stage", "prompt")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of B that is put into A, or with neither tensors nor a site the whole of B.

    name : as lines of results say it, {"tensor": ...} for instance. block : where A is run on from, 0 for what comes
    before the layers, then the layers, then what comes after them. cost : of that, as a share of a forward. stored : of
    a tensor, what it is stored as on either side.
    """

    name: dict[str, Any]
    block: int = 0
    cost: float = 1.0
    tensors: frozenset[str] = frozenset()
    site: Site | None = None
    stored: dict[str, Any] = field(default_factory=dict)


def blocks(graph: Graph, layers: int) -> list[tuple[Stage, ...]]:
    """The stages of a model: those before the layers, of every layer, and those after them."""
    return [graph.first, *(graph.layer(number) for number in range(layers)), graph.last]


def parts(pair: Opened, by: By) -> list[Part]:
    """What a sweep exchanges on every prompt, in execution order, the whole of B first; WorkbenchError for no pair."""
    a, b = pair
    layers = a.config.num_hidden_layers
    of_a, of_b = (blocks(Graph.of(model), layers) for model in pair)
    left = _shares(a, of_a)
    found = [Part({})]
    if by == "stage":
        common = {stage.site for block in of_b for stage in block}
        found += [
            Part({"layer": stage.site.layer, "stage": stage.site.stage}, number, left[number], site=stage.site)
            for number, block in enumerate(of_a)
            for stage in block
            if stage.site in common
        ]
    if by in ("tensor", "layer"):
        first: dict[str, int] = {}  # where a tensor is used first
        for number in range(len(of_a)):
            for stage in (*of_a[number], *of_b[number]):
                for name in stage.tensors:
                    if name in a or name in b:
                        first.setdefault(_stored_name(pair, name), number)
        for name in first:
            _require_alike(a, b, name)
        if by == "tensor":
            found += [_tensor(a, b, name, number, left[number]) for name, number in first.items()]
        else:
            found += list(_layers(first, left))
    return found


def _stored_name(pair: Opened, name: str) -> str:
    """A head that is the embedding on both sides goes with it."""
    tied = all(model.config.tie_word_embeddings for model in pair)
    return EMBEDDING if tied and name == LM_HEAD else name


def _layers(first: dict[str, int], left: list[float]) -> Iterator[Part]:
    """Layers, and what stands before and after them."""
    for number in range(len(left)):
        names = frozenset(name for name, block in first.items() if block == number)
        where = {0: "before", len(left) - 1: "after"}.get(number, number - 1)
        if names:
            yield Part({"layer": where}, number, left[number], names)


def _tensor(a: Artifact, b: Artifact, name: str, block: int, cost: float) -> Part:
    infos = [model.tensors.get(name) for model in (a, b)]
    known = next(info for info in infos if info is not None)
    raw = known.raw_name if a.format == "gguf" else gguf_name(name, a.config.architecture)
    stored: dict[str, Any] = {"name": raw, "elements": math.prod(known.shape)}
    for side, info in zip("ab", infos, strict=True):
        stored[side] = None if info is None else {"type": info.stored_as, "bytes": info.nbytes}
    return Part({"tensor": name}, block, cost, frozenset((name,)), stored=stored)


def _require_alike(a: Model, b: Model, name: str) -> None:
    shapes = [model.weight(name).shape for model in (a, b) if name in model]
    if shapes[0] != shapes[-1]:
        name = printable(name)
        raise WorkbenchError(f"{name} has shape {shapes[0]} in A and {shapes[1]} in B; it cannot be exchanged")


def _shares(model: Artifact, stages: Iterable[tuple[Stage, ...]]) -> list[float]:
    """What running on from every block costs, as a share of the products of a forward."""
    sizes = [sum(_products(model, stage) for stage in block) for block in stages]
    return [sum(sizes[number:]) / max(sum(sizes), 1) for number in range(len(sizes))]


def _products(model: Artifact, stage: Stage) -> float:
    """Multiplications of a token in the products of a stage."""
    if not isinstance(stage.kind, Product | ExpertProduct):
        return 0.0
    sizes = float(sum(math.prod(model.info(name).shape) for name in stage.weights))
    if isinstance(stage.kind, ExpertProduct):
        sizes = sizes * model.config.num_experts_per_tok / model.config.num_experts
    return sizes
