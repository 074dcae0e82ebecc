"""The forward of a model: its stages in order, each evaluated on what it reads."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from kernels.config import ModelConfig
from kernels.errors import UnsupportedModelError, WorkbenchError
from kernels.graph import Arithmetic, Array, At, Inputs, Model, Stage
from kernels.kinds.experts import ExpertProduct
from kernels.kinds.product import Product
from kernels.matmul.activations import Codes
from kernels.models import Graph
from kernels.paths import F32Path
from kernels.stages import Site

Known = Mapping[Site, Array]
_NOTHING: Known = MappingProxyType({})


def evaluate(at: At, x: Inputs) -> Array:
    """A stage on given inputs by role, (tokens, channels) in the dtype of the path.

    Inputs that are read-only or not contiguous are copied: kernels are compiled for the other kind only.
    """
    ready = {role: np.require(x[role], requirements=("C", "W")) for role in at.kind.roles}
    return at.kind.evaluate(at, ready)


def forward(
    model: Model,
    tokens: tuple[int, ...],
    path: Arithmetic,
    start_layer: int = 0,
    known: Known = _NOTHING,
) -> Iterator[tuple[Site, Array]]:
    """Every stage of the model over all tokens, in execution order, each as soon as it is computed.

    tokens : ids in range(vocab_size), at least one; WorkbenchError otherwise.
    start_layer, known : go on with that layer, from what `Graph.needed` says of those before it (path dtype). Any other
    stage that is known is taken as it is given, and not computed.
    Yields (site, array), array (tokens, channels) in path.dtype. Layer weights are dequantized row by row inside the
    matmuls, never as a whole.
    """
    for step in steps(model, tokens, path, start_layer, known):
        yield step.stage.site, step.y


class Step:
    """A stage of a forward with what it read, by role, and what it gave."""

    __slots__ = ("stage", "x", "y")

    def __init__(self, stage: Stage, x: Inputs, y: Array) -> None:
        self.stage, self.x, self.y = stage, x, y


def steps(
    model: Model, tokens: tuple[int, ...], path: Arithmetic, start_layer: int = 0, known: Known = _NOTHING
) -> Iterator[Step]:
    """The same with the inputs of every stage."""
    check_tokens(tokens, model.config)
    graph, layers = Graph.of(model), model.config.num_hidden_layers
    values = dict(known)
    parts = () if start_layer else ((0, graph.first),)
    runs = ((layer + 1, graph.layer(layer)) for layer in range(start_layer, layers))
    for following, stages in (*parts, *runs, (None, graph.last)):
        for stage in stages:
            inputs = {role: values[site] for role, site in graph.reads(stage).items()}
            given = known.get(stage.site)
            y = evaluate(At(model, path, tokens, stage), inputs) if given is None else given
            values[stage.site] = y
            yield Step(stage, inputs, y)
        if following is not None:
            values = {site: values[site] for site in graph.needed(following)}


def multiplied_by(graph: Graph, site: Site) -> Iterator[str]:
    """A weight of each product that reads the values of a stage, in execution order."""
    stages = graph.last if site.layer is None else graph.layer(site.layer)
    for stage in stages:
        if stage.reads[:1] == (site.stage,) and isinstance(stage.kind, Product | ExpertProduct):
            yield stage.weights[0]


def activation_codes(model: Model, graph: Graph, path: F32Path, site: Site, x: Array) -> Codes | None:
    """The 8-bit codes that the next matmul makes of a stage's values, or None where nothing is rounded to 8 bits.

    graph : the model's.
    """
    made = (path.round_activations(x, model.weight(weight)) for weight in multiplied_by(graph, site))
    return next((codes for codes in made if codes is not None), None)


def check_tokens(tokens: tuple[int, ...], config: ModelConfig) -> None:
    """Raise WorkbenchError unless all token ids are in the vocabulary, and there are neither none nor too many."""
    if not tokens:
        raise WorkbenchError("there are no tokens to run; give --tokens or a --prompt that is not empty")
    wrong = [token for token in tokens if not 0 <= token < config.vocab_size]
    if wrong:
        raise WorkbenchError(
            f"token {wrong[0]} is not in the vocabulary of {config.vocab_size} entries; check --tokens"
        )
    if config.length_limit is not None and len(tokens) > config.length_limit:
        raise UnsupportedModelError(
            f"{len(tokens)} tokens are given, but {config.length_limit_key} changes what the model computes beyond "
            f"{config.length_limit}, and only up to there it is computed; give at most {config.length_limit} tokens"
        )
