"""Conviction by experiment: a part of A is put into B and back, and the final logits say what that part is worth.

Every experiment is a 2x2 factorial: the part (tensors, the numeric path, or the values of one stage) and all the rest
each come from A or from B, which makes four runs. Nothing is written: a patched model is a view of two others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from kernels.config import ModelConfig
from kernels.errors import WorkbenchError
from kernels.forward import forward
from kernels.graph import Array, Model
from kernels.metrics import logit_agreement
from kernels.models import Graph
from kernels.stages import Site
from kernels.weight import Weight
from store.names import EMBEDDING, LM_HEAD
from store.nearest import did_you_mean
from store.text import printable
from workbench.bisect.models.cell import Side
from workbench.bisect.models.settings import differing_fields, with_fields
from workbench.bisect.models.substitution import ORACLE
from workbench.bisect.traces.announced import Progress
from workbench.pair.comparable import require_same_sizes

Logits = dict[str, Array]
_ROWS = 32  # tokens whose logits stand in float64 at once; a vocabulary is long


@dataclass(frozen=True, slots=True)
class Overlay:
    """A model some of whose tensors are those of another; neither changes.

    A name that `other` does not have is not in the overlay either: so a bias is taken away.
    """

    base: Model
    other: Model
    names: frozenset[str]

    @property
    def config(self) -> ModelConfig:
        """Hyper-parameters of the base."""
        return self.base.config

    def weight(self, name: str) -> Weight:
        """A tensor by its canonical name."""
        stored = self._stored(name)
        return self._owner(stored).weight(stored)

    def __contains__(self, name: str) -> bool:
        stored = self._stored(name)
        return stored in self._owner(stored)

    def _owner(self, name: str) -> Model:
        return self.other if name in self.names else self.base

    def _stored(self, name: str) -> str:
        tied = self.config.tie_word_embeddings and LM_HEAD not in self.names
        return EMBEDDING if tied and name == LM_HEAD else name


@dataclass(frozen=True, slots=True)
class Resettled:
    """A model under the settings of another; neither changes."""

    base: Model
    config: ModelConfig

    def weight(self, name: str) -> Weight:
        """A tensor by its canonical name."""
        return self.base.weight(name)

    def __contains__(self, name: str) -> bool:
        return name in self.base


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a run's output agrees with another's, over all tokens.

    kl_mean, kl_max : KL(run‖other) per token in nats; None where logits are not finite.
    top1_changed : tokens whose most likely successor differs. rel_rms : of the logits; None where undefined.
    """

    kl_mean: float | None
    kl_max: float | None
    top1_changed: int
    rel_rms: float | None
    identical: bool

    @classmethod
    def of(cls, run: Array, other: Array) -> "Agreement":
        """Compare two logit tensors (tokens, vocabulary)."""
        kl, top1_changed, energies = [], 0, np.zeros(2)
        for first in range(0, len(run), _ROWS):
            rows = slice(first, first + _ROWS)
            y: Array = run[rows].astype(np.float64)
            base: Array = other[rows].astype(np.float64)
            found = logit_agreement(base, y)
            kl.append(found.kl)
            top1_changed += int((~found.top1).sum())
            energies += [np.square(y - base).sum(), np.square(base).sum()]
        every = np.concatenate(kl)
        finite = bool(np.isfinite(every).all())
        return cls(
            float(every.mean()) if finite else None,
            float(every.max()) if finite else None,
            top1_changed,
            float((energies[0] / energies[1]) ** 0.5) if np.isfinite(energies).all() and energies[1] else None,
            bool(np.array_equal(run, other)),
        )


@dataclass(frozen=True, slots=True)
class Run:
    """One of the four runs. to_exact : against A's weights in float64, for whole-run factorials only."""

    name: str
    to_a: Agreement
    to_b: Agreement
    to_exact: Agreement | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """What exchanging a part does to the output.

    part : what was exchanged. tokens : how many were run.
    a, b : the two sides as they are. a_patched : A with B's part. b_patched : B with A's part.
    both : the double swap, B with A's part against A with B's part.
    """

    part: str
    tokens: int
    a: Run
    b: Run
    a_patched: Run
    b_patched: Run
    both: Agreement

    @property
    def runs(self) -> tuple[Run, ...]:
        """All four."""
        return self.a, self.b, self.a_patched, self.b_patched

    @property
    def left(self) -> float | None:
        """Share of KL(B‖A) that is left when B gets A's part: 0 convicts the part, 1 acquits it."""
        return _ratio(self.b_patched.to_a.kl_mean, self.b.to_a.kl_mean)

    @property
    def brought(self) -> float | None:
        """KL(run‖A) of A with B's part as a share of KL(B‖A): 1 convicts the part, 0 acquits it."""
        return _ratio(self.a_patched.to_a.kl_mean, self.b.to_a.kl_mean)

    @property
    def matters(self) -> bool:
        """Whether the exchange changed any bit of the output of either side."""
        return not (self.a_patched.to_a.identical and self.b_patched.to_b.identical)


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def conclusion(experiment: Experiment) -> str:
    """Say in a sentence what the exchange proves."""
    part = printable(experiment.part)
    if experiment.b.to_a.identical:
        return "A and B give the same logits, so there is no difference that a part could carry."
    if not experiment.matters:
        return f"The {part} carries nothing of the difference: exchanging it changes no bit of either output."
    if experiment.left is None or experiment.brought is None:
        return f"What the {part} carries cannot be told: logits are not finite, or the KL divergence is zero."
    left, brought = f"{experiment.left:.1%}", f"{experiment.brought:.1%}"
    return f"A's {part} in B leaves {left} of KL(B‖A); B's {part} in A brings {brought} of it."


def patch_tensors(
    a: Side,
    b: Side,
    names: frozenset[str],
    part: str,
    tokens: tuple[int, ...],
    progress: Progress = lambda *_: None,
    known: Logits | None = None,
) -> Experiment:
    """Exchange tensors. `part` is what to call them.

    known : logits of A and B as they are, from an experiment before; this one puts them there.
    Raises WorkbenchError for a name that neither side has, or whose two tensors do not have the same shape.
    """
    for name in sorted(names):
        shapes = [side.model.weight(name).shape for side in (a, b) if name in side.model]
        if not shapes:
            tensors = (tensor for stage in Graph(a.model.config).stages() for tensor in stage.tensors)
            meant = did_you_mean(
                name, (tensor for tensor in tensors if tensor in a.model), "`workbench inspect` lists them"
            )
            raise WorkbenchError(f"neither A nor B has a tensor {printable(name)}; {meant}")
        if shapes[0] != shapes[-1]:
            raise WorkbenchError(f"{name} has shape {shapes[0]} in A and {shapes[1]} in B; it cannot be exchanged")
    swapped = (
        replace(a, model=Overlay(a.model, b.model, names)),
        replace(b, model=Overlay(b.model, a.model, names)),
    )
    return _Laboratory(a, b, tokens, progress, known).run(part, swapped)


def layer_tensors(a: Model, b: Model, layer: int) -> frozenset[str]:
    """Names of all tensors of a layer that either model has; WorkbenchError if there is no such layer."""
    _require_layer(a, layer)
    names = {name for stage in Graph(a.config).layer(layer) for name in stage.tensors}
    return frozenset(name for name in names if name in a or name in b)


def patch_path(
    a: Side, b: Side, tokens: tuple[int, ...], progress: Progress = lambda *_: None, known: Logits | None = None
) -> Experiment:
    """Exchange the numeric paths: weights and paths of A and B in all four combinations, and A's weights in float64."""
    if a.path.name == b.path.name:
        raise WorkbenchError(
            f"both sides run on path {a.path.name}, so there is nothing to exchange; give another --path-a or --path-b"
        )
    swapped = replace(a, path=b.path), replace(b, path=a.path)
    return _Laboratory(a, b, tokens, progress, known).run("numeric path", swapped, exact=True)


def patch_settings(
    a: Side, b: Side, tokens: tuple[int, ...], progress: Progress = lambda *_: None, known: Logits | None = None
) -> Experiment:
    """Exchange every setting that a forward computes with and that differs; WorkbenchError if none does."""
    fields = list(differing_fields(a.model.config, b.model.config))
    if not fields:
        raise WorkbenchError(
            "A and B have the same settings, so there is nothing to exchange; give --tensor or --stage"
        )
    swapped = (
        replace(a, model=Resettled(a.model, with_fields(a.model.config, fields, b.model.config))),
        replace(b, model=Resettled(b.model, with_fields(b.model.config, fields, a.model.config))),
    )
    return _Laboratory(a, b, tokens, progress, known).run(", ".join(fields), swapped)


def patch_stage(
    a: Side,
    b: Side,
    site: Site,
    tokens: tuple[int, ...],
    progress: Progress = lambda *_: None,
    known: Logits | None = None,
) -> Experiment:
    """Exchange the values of one stage: each side goes on from there with what the other computed."""
    if site.layer is not None:
        _require_layer(a.model, site.layer)
    return _Laboratory(a, b, tokens, progress, known).run_stage(site)


def _require_layer(model: Model, layer: int) -> None:
    layers = model.config.num_hidden_layers
    if not 0 <= layer < layers:
        raise WorkbenchError(f"there is no layer {layer}; the layers are 0 to {layers - 1}")


@dataclass(frozen=True, slots=True)
class _Laboratory:
    """Runs the variants of one pair on the same tokens; logits are kept by the name of the run."""

    a: Side
    b: Side
    tokens: tuple[int, ...]
    progress: Progress
    known: Logits | None

    def __post_init__(self) -> None:
        require_same_sizes(self.a.model.config, self.b.model.config)

    def run(self, part: str, swapped: tuple[Side, Side], exact: bool = False) -> Experiment:
        sides = {"A": self.a, "B": self.b, f"A with B's {part}": swapped[0], f"B with A's {part}": swapped[1]}
        known = self.known or {}
        logits = {
            name: known[name] if name in known else self.last(name, forward(side.model, self.tokens, side.path))
            for name, side in sides.items()
        }
        oracle = forward(self.a.model, self.tokens, ORACLE) if exact else None
        return self.compare(part, logits, None if oracle is None else self.last("A in float64", oracle))

    def run_stage(self, site: Site) -> Experiment:
        """Run each side on from the other's value of one stage; WorkbenchError if a side does not have the stage."""
        logits: Logits = {}
        values: dict[str, Array] = {}
        starts = {name: self.start(side, site) for name, side in (("A", self.a), ("B", self.b))}
        for name, side in (("A", self.a), ("B", self.b)):
            start, given = starts[name]
            for found, value in self.followed(name, forward(side.model, self.tokens, side.path)):
                if found == site:
                    values[name] = value
                if found in given:
                    given[found] = value
                logits[name] = value
            if name not in values:
                raise WorkbenchError(f"{name} has no stage {site}; choose another one")
        for name, other, side in (("A", "B", self.a), ("B", "A", self.b)):
            run, (start, given) = f"{name} with {other}'s {site}", starts[name]
            known = given | {site: np.ascontiguousarray(values[other], dtype=side.path.dtype)}
            logits[run] = self.last(run, forward(side.model, self.tokens, side.path, start, known))
        return self.compare(str(site), logits, None)

    def start(self, side: Side, site: Site) -> tuple[int, dict[Site, Array]]:
        """The layer from which a side is run on with another value of a stage, and what it reads of what is before."""
        graph, nothing = Graph.of(side.model), np.empty(0)
        if site.layer is None and site in (stage.site for stage in graph.first):
            return 0, {}
        start = side.model.config.num_hidden_layers if site.layer is None else site.layer
        return start, dict.fromkeys(graph.needed(start), nothing)

    def last(self, name: str, stream: Iterator[tuple[Site, Array]]) -> Array:
        *_, (_, logits) = self.followed(name, stream)
        return logits

    def followed(self, name: str, stream: Iterator[tuple[Site, Array]]) -> Iterator[tuple[Site, Array]]:
        layers = self.a.model.config.num_hidden_layers
        for site, value in stream:
            self.progress((site.layer or 0) + 1, layers, f"layers of {name}")
            yield site, value

    def compare(self, part: str, logits: Logits, exact: Array | None) -> Experiment:
        """Set the last logits of the four runs beside those of A and B; exact : A's in float64, or None."""
        a, b, a_patched, b_patched = logits.values()
        if self.known is not None:
            self.known.update(A=a, B=b)

        def run(name: str) -> Run:
            y = logits[name]
            return Run(name, Agreement.of(y, a), Agreement.of(y, b), None if exact is None else Agreement.of(y, exact))

        first, second, third, fourth = map(run, logits)
        return Experiment(part, len(self.tokens), first, second, third, fourth, Agreement.of(b_patched, a_patched))
