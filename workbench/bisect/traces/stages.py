"""The stages of a recorded trace, each with its recorded inputs and what our operation makes of them.

What the trace does not hold is computed from what it holds. A stage that reads no more than that is judged by itself,
one with products between it and what was recorded by the whole span (`spans`). Rows that an engine drops, as those of
tokens whose logits nobody asked for, are missing from then on; every stage is looked at on the rows that it and its
inputs have in common.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array, At, Inputs, Model, Stage, Values
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.product import Product
from kernels.kinds.rotate import Rotate
from kernels.lengths import Units, in_units
from kernels.models import Graph
from kernels.paths import F32Path
from kernels.precision import FLOAT32, Precision
from kernels.stages import Site
from workbench.bisect.mistakes.mistake import units_off
from workbench.bisect.traces.averages import averaged_off
from workbench.bisect.traces.noise import float_noise
from workbench.bisect.traces.spans import Part, Rows, Span, evaluated, needs_all
from workbench.bisect.traces.tainted import silenced, tainted_tokens
from workbench.cells.limit import LIMIT
from workbench.pair.kv_cache import KvCache

_PERHAPS = 6.0  # times its predicted size that the rounding of a cache may have in the worst channel or token


class Recorded(Protocol):
    """What a bisection needs of a trace."""

    def status(self, site: Site) -> str:
        """Return ok, absent or unmeasured."""

    def read(self, site: Site) -> NDArray[Any]:
        """Values (rows, channels)."""

    def positions(self, site: Site) -> tuple[int, ...] | None:
        """Token position of every row."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The trace of one run, with the model and the path it should have computed with.

    kept : how the engine keeps its own numbers. attention : the same for attention, where keys and values may be kept
    in half precision. products : the same for products with weights, whose inputs some engines cut.
    cache : how keys and values are kept where that is coarser than floats.
    floors : of the spans that were looked at; each takes several runs to find.
    tainted : stages of which some tokens, or all, are not judged because they read NaN or infinite values.
    """

    model: Model
    path: F32Path
    trace: Recorded
    tokens: tuple[int, ...]
    kept: Precision = FLOAT32
    attention: Precision = FLOAT32
    products: Precision = FLOAT32
    cache: KvCache | None = None
    floors: dict[Site, Values] = field(default_factory=dict)
    tainted: set[Site] = field(default_factory=set)
    graph: Graph = field(init=False)

    def __post_init__(self) -> None:
        """A stage that the model lacks and the trace holds is there too, as one that adds nothing."""
        there, every = set(Graph.of(self.model).sites()), Graph(self.model.config)
        recorded = (stage for stage in every.stages() if self.trace.status(stage.site) == "ok")
        more = {name for stage in recorded if stage.site not in there for name in stage.tensors}
        graph = Graph(self.model.config, lambda name: name in self.model or name in more)
        object.__setattr__(self, "graph", graph)

    def precision(self, stage: Stage) -> Precision:
        """How the engine keeps the numbers of a stage."""
        if isinstance(stage.kind, Attention):
            return self.attention
        return self.kept.coarser(self.products) if isinstance(stage.kind, Product) else self.kept

    def noise(self, at: At, inputs: Inputs, right: Array) -> Values:
        """What float rounding may do to every element of a stage."""
        noise = float_noise(at, inputs, right, self.precision(at.stage))
        if isinstance(at.kind, Attention) and self.cache is not None:
            noise = noise + _PERHAPS / LIMIT * self.cache.noise(at.kind, inputs)
        return noise

    def at(self, site: Site) -> At:
        """Where a stage of the model is evaluated."""
        stage = self.graph.stage(site)
        assert stage is not None, f"the model has no {site}"
        return At(self.model, self.path, self.tokens, stage)


@dataclass(frozen=True, eq=False)
class Checked:
    """A recorded stage y beside the right one, over the same tokens as its inputs by role, and what is known by stage.

    span : the way to it from what was recorded. rows : the tokens. spanned : it is judged by that whole way, not by
    itself. behind_product : on the way there are products with weights, so nothing is known of what the stage read.
    averaged : how far averages over what rounds by itself are off, in units of what rounding makes of them.
    """

    at: At
    inputs: Inputs
    known: Mapping[str, Array]
    y: Array
    right: Array
    noise: Values
    span: Span
    rows: Rows
    spanned: bool = False
    behind_product: bool = False
    averaged: float = 0.0

    @property
    def site(self) -> Site:
        """Where it is."""
        return self.at.stage.site

    @cached_property
    def units(self) -> Units:
        """The distance of the record from the right output, in units of noise."""
        return in_units(self.y, self.right, self.noise)

    @property
    def off(self) -> float:
        """How far the record is from the right output, in units of noise; the same NaN or infinity is no difference."""
        worst = float(np.sqrt(self.units.worst))
        return max(worst if np.isfinite(worst) else float("inf"), self.averaged)

    @property
    def wrong(self) -> bool:
        """Whether noise does not explain it."""
        return not self.off <= LIMIT

    @property
    def relative(self) -> float:
        """‖y - right‖ / ‖right‖."""
        size = float(np.linalg.norm(self.right.astype(np.float64)))
        gap = float(np.linalg.norm(self.y.astype(np.float64) - self.right))
        return gap / size if size else float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class _Value:
    """A stage's values and where they come from.

    start, inside : the recorded stages that they follow from, and what was computed on the way, themselves included.
    """

    part: Part
    start: Mapping[Site, Part]
    inside: frozenset[Site] = frozenset()


@dataclass(slots=True)
class _Known:
    """Stage values of one layer, and those before it by place that it and later ones read."""

    count: int
    values: dict[str, _Value] = field(default_factory=dict)
    before: dict[Site, _Value] = field(default_factory=dict)

    def way(self, stage: Stage) -> Span:
        """The way to a stage whose inputs are known."""
        read = [self.values[name] for name in stage.reads]
        start = {place: part for value in read for place, part in value.start.items()}
        return Span(stage.site, start, frozenset().union(*(value.inside for value in read)))

    def record(self, site: Site, part: Part) -> None:
        """Keep the value of a stage that was recorded."""
        self.values[site.stage] = _Value(part, {site: part})

    def compute(self, stage: Stage, part: Part) -> None:
        """Keep the value of a stage that was computed from what is known."""
        way = self.way(stage)
        self.values[stage.site.stage] = _Value(part, way.start, way.inside | {stage.site})

    def common(self, names: Iterable[str]) -> Rows:
        """Tokens that all of the named stages have."""
        rows = np.arange(self.count)
        for name in names:
            rows = np.intersect1d(rows, self.values[name].part.rows)
        return rows

    def at(self, name: str, rows: Rows) -> Array:
        """Rows of chosen tokens, all of which the stage has."""
        return self.values[name].part.of(rows)


def recorded_stages(reader: Reader, of: Container[Site] | None = None) -> Iterator[Checked]:
    """Every recorded stage that can be judged, in execution order; of some sites only, if these are given."""
    known, layer = _Known(len(reader.tokens)), None
    for stage in reader.graph.stages():
        if stage.site.layer != layer:
            known, layer = _next_layer(reader, known, layer, stage.site.layer), stage.site.layer
        at = reader.at(stage.site)
        recorded = _read(reader, stage.site)
        if recorded is not None and of is not None and stage.site not in of:
            known.record(stage.site, recorded)
            continue
        computed = _computed(at, known)
        if recorded is None and computed is not None and isinstance(stage.kind, Bias):
            left_out = _without_bias(reader, at, known, computed)
            if left_out is not None:
                yield left_out
                computed = Part(left_out.y, computed.rows)
        if recorded is not None:
            if computed is not None:
                yield from _beside(reader, at, known, recorded, computed)
            known.record(stage.site, recorded)
        elif computed is not None:
            known.compute(stage, computed)


def _next_layer(reader: Reader, known: _Known, layer: int | None, following: int | None) -> _Known:
    """What is known of what the next layer reads, or what comes behind all layers."""
    graph, layers = reader.graph, reader.model.config.num_hidden_layers
    found = known.before | {Site(layer, name): value for name, value in known.values.items()}
    needed = graph.needed(layers if following is None else following)
    lent = {site.stage for site in graph.elsewhere if site.layer is not None}
    needed |= {site for site in found if site.stage in lent}  # so that those of another layer can be told
    fresh = _Known(known.count, before={site: found[site] for site in needed & found.keys()})
    given = {site.stage: site for site in needed} if following is None else graph.given(following)
    fresh.values = {name: found[site] for name, site in given.items() if site in found}
    return fresh


def _read(reader: Reader, site: Site) -> Part | None:
    """A recorded stage and the tokens of its rows; nothing if they are not told, or told twice."""
    if reader.trace.status(site) != "ok":
        return None
    values, positions = reader.trace.read(site), reader.trace.positions(site)
    if positions is None or len(positions) != len(values):
        return None
    rows = np.array(positions, dtype=np.int64)
    ordered = bool((np.diff(rows) > 0).all()) and rows[0] >= 0 and rows[-1] < len(reader.tokens)
    return Part(values, rows) if ordered else None


def _computed(at: At, known: _Known) -> Part | None:
    """What our operation makes of what is known; nothing if it is too little."""
    names = at.stage.inputs
    if not all(name in known.values for name in names.values()):
        return None
    rows = known.common(names.values())
    if not len(rows) or (needs_all(at.stage) and len(rows) < known.count):
        return None
    return Part(evaluated(at, {role: known.at(name, rows) for role, name in names.items()}), rows)


def _beside(reader: Reader, at: At, known: _Known, recorded: Part, computed: Part) -> Iterator[Checked]:
    rows, site = np.intersect1d(recorded.rows, computed.rows), at.stage.site
    whole = len(rows) == len(computed.rows)
    if not len(rows) or (needs_all(at.stage) and not whole):
        return
    inputs = {role: known.at(name, rows) for role, name in at.stage.inputs.items()}
    values = known.values | {str(place): value for place, value in known.before.items()}
    others = {name: own.part.of(rows) for name, own in values.items() if np.isin(rows, own.part.rows).all()}
    y, right, way = recorded.of(rows), computed.of(rows), known.way(at.stage)
    tainted = tainted_tokens(at.kind, inputs, y)
    if tainted.any():
        reader.tainted.add(site)
    if tainted.all():
        return
    if tainted.any() and needs_all(at.stage):
        inputs, others = silenced(inputs, tainted), silenced(others, tainted)
        again = evaluated(at, inputs)
        y, right = np.where(tainted[:, None], again, y), again
    elif tainted.any():
        rows, y, right = rows[~tainted], y[~tainted], right[~tainted]
        inputs, others = ({name: x[~tainted] for name, x in some.items()} for some in (inputs, others))
    spanned = any(_rounds(reader, inner) for inner in way.inside)
    if spanned and site not in reader.floors:
        reader.floors[site] = way.floor(reader, rows)
    noise = reader.noise(at, inputs, right) + _fused(reader, at, others)
    if spanned:  # one huge value must not take from what the other channels of its token may round by themselves
        noise = np.maximum(noise, reader.floors[site])
    product = any(isinstance(reader.at(inner).kind, Product) for inner in way.inside)
    averaged = 0.0 if spanned else averaged_off(at, inputs, y, right, noise, reader.precision(at.stage))
    yield Checked(at, inputs, others, y, right, noise, way, rows, spanned, product, averaged)


def _fused(reader: Reader, at: At, known: Mapping[str, Array]) -> Values | float:
    """What the order of the sum may make of a bias: engines add it inside of the product, others behind it.

    known : what the layer has of the same tokens, by stage.
    """
    read = at.stage.site._replace(stage=at.stage.reads[0]) if isinstance(at.kind, Bias) else None
    before = None if read is None else reader.graph.stage(read)
    if before is None or not isinstance(before.kind, Product) or before.reads[0] not in known:
        return 0.0
    return before.kind.order(reader.at(before.site), {"x": np.asarray(known[before.reads[0]], dtype=np.float64)})


def _rounds(reader: Reader, site: Site) -> bool:
    """Whether computing a stage anew rounds otherwise than the engine did, so that what reads it is no longer exact."""
    return not reader.at(site).kind.exact


def _without_bias(reader: Reader, at: At, known: _Known, computed: Part) -> Checked | None:
    """The stage as it was if the engine added no bias, where the recorded rotation proves that it did not."""
    layer = () if at.layer is None else reader.graph.layer(at.layer)
    readers = (stage for stage in layer if stage.reads == (at.stage.site.stage,) and isinstance(stage.kind, Rotate))
    after = next(readers, None)
    recorded = None if after is None else _read(reader, after.site)
    if after is None or recorded is None or len(recorded.rows) < known.count or len(computed.rows) < known.count:
        return None
    product = known.at(at.stage.reads[0], computed.rows)
    offs = []
    for value in (product, computed.values):
        right = evaluated(reader.at(after.site), {"x": value})
        noise = reader.noise(reader.at(after.site), {"x": value}, right)
        offs.append(units_off(recorded.values.astype(np.float64) - right, noise))
    if not offs[0] <= LIMIT < offs[1]:
        return None
    inputs = {"x": product}
    others = {name: value.part.values for name, value in known.values.items()}
    noise = reader.noise(at, inputs, computed.values)
    return Checked(at, inputs, others, product, computed.values, noise, known.way(at.stage), computed.rows)
