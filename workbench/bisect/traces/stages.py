"""The stages of a recorded trace, each with its recorded inputs and what our operation makes of them.

What the trace does not hold is computed from what it holds. A stage that reads no more than that is judged by itself,
one with products between it and what was recorded by the whole span (`spans`). Rows that an engine drops, as those of
tokens whose logits nobody asked for, are missing from then on; every stage is looked at on the rows that it and its
inputs have in common.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.forward import At, Model, inputs_of
from kernels.paths import Array, F32Path
from kernels.stages import Site, execution_order
from workbench.bisect.mistakes.mistake import Values, units_off
from workbench.bisect.models.floor import MATMUL_INPUT
from workbench.bisect.traces.angles import ROTATED, turned_off
from workbench.bisect.traces.noise import float_noise
from workbench.bisect.traces.spans import OVER_TOKENS, Part, Rows, Span, evaluated
from workbench.bisect.traces.tainted import silenced, tainted_tokens
from workbench.cells.decomposition import LIMIT
from workbench.pair.kv_cache import KvCache
from workbench.pair.precision import FLOAT32, Precision

_PERHAPS = 6.0  # times its predicted size that the rounding of a cache may have in the worst channel or token
# Handed on as they are; an activation that no engine keeps is reckoned with where it is multiplied.
_EXACT = ("embedding", "layer_output", "ffn_silu")


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
    in half precision. cache : how keys and values are kept where that is coarser than floats.
    floors : of the spans that were looked at; each takes several runs to find.
    tainted : stages of which some tokens, or all, are not judged because they read NaN or infinite values.
    """

    model: Model
    path: F32Path
    trace: Recorded
    tokens: tuple[int, ...]
    kept: Precision = FLOAT32
    attention: Precision = FLOAT32
    cache: KvCache | None = None
    floors: dict[Site, Values] = field(default_factory=dict)
    tainted: set[Site] = field(default_factory=set)

    def precision(self, stage: str) -> Precision:
        """How the engine keeps the numbers of a stage."""
        return self.attention if stage == "attention" else self.kept

    def noise(self, site: Site, inputs: Mapping[str, Array], right: Array) -> Values:
        """What float rounding may do to every element of a stage."""
        noise = float_noise(site.stage, self.at(site), inputs, right, self.precision(site.stage))
        if site.stage == "attention" and self.cache is not None:
            noise = noise + _PERHAPS / LIMIT * self.cache.noise(self.at(site), inputs)
        return noise

    def at(self, site: Site) -> At:
        """Where a stage is evaluated."""
        return At(self.model, self.path, self.tokens, site.layer)


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A recorded stage y beside the right one, over the same tokens; inputs and known by stage, over those tokens.

    span : the way to it from what was recorded. rows : the tokens. spanned : it is judged by that whole way, not by
    itself. behind_product : on the way there are products with weights, so nothing is known of what the stage read.
    turned : how far the angles of a rotation are off, in units of what rounding makes of them.
    """

    site: Site
    inputs: Mapping[str, Array]
    known: Mapping[str, Array]
    y: Array
    right: Array
    noise: Values
    span: Span
    rows: Rows
    spanned: bool = False
    behind_product: bool = False
    turned: float = 0.0

    @property
    def off(self) -> float:
        """How far the record is from the right output, in units of noise; the same NaN or infinity is no difference."""
        left = self.y.astype(np.float64) - self.right
        same = ~np.isfinite(self.y) & ((self.y == self.right) | (np.isnan(self.y) & np.isnan(self.right)))
        return max(units_off(np.where(same, 0.0, left), np.where(same, 1.0, self.noise)), self.turned)

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
    """Stage values of one layer."""

    count: int
    values: dict[str, _Value] = field(default_factory=dict)

    def way(self, site: Site) -> Span:
        """The way to a stage whose inputs are known."""
        read = [self.values[name] for name in inputs_of(site.stage)]
        start = {place: part for value in read for place, part in value.start.items()}
        return Span(site, start, frozenset().union(*(value.inside for value in read)))

    def record(self, site: Site, part: Part) -> None:
        """Keep the value of a stage that was recorded."""
        self.values[site.stage] = _Value(part, {site: part})

    def compute(self, site: Site, part: Part) -> None:
        """Keep the value of a stage that was computed from what is known."""
        way = self.way(site)
        self.values[site.stage] = _Value(part, way.start, way.inside | {site})

    def common(self, names: tuple[str, ...]) -> Rows:
        """Tokens that all of the named stages have."""
        rows = np.arange(self.count)
        for name in names:
            rows = np.intersect1d(rows, self.values[name].part.rows)
        return rows

    def at(self, name: str, rows: Rows) -> Array:
        """Rows of chosen tokens, all of which the stage has."""
        return self.values[name].part.of(rows)


def recorded_stages(reader: Reader) -> Iterator[Checked]:
    """Every recorded stage that can be judged, in execution order."""
    known = _Known(len(reader.tokens))
    for site in execution_order(reader.model.config.num_hidden_layers):
        if site.stage == "attn_norm":
            known = _next_layer(known)
        recorded, computed = _read(reader, site), _computed(reader, site, known)
        if recorded is None and computed is not None and site.stage == "qkv_bias":
            left_out = _without_bias(reader, site, known, computed)
            if left_out is not None:
                yield left_out
                computed = Part(left_out.y, computed.rows)
        if recorded is not None:
            if computed is not None:
                yield from _beside(reader, site, known, recorded, computed)
            known.record(site, recorded)
        elif computed is not None:
            known.compute(site, computed)


def _next_layer(known: _Known) -> _Known:
    fresh = _Known(known.count)
    last = next((name for name in ("layer_output", "embedding") if name in known.values), None)
    if last is not None:
        fresh.values["layer_input"] = known.values[last]
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


def _computed(reader: Reader, site: Site, known: _Known) -> Part | None:
    """What our operation makes of what is known; nothing if it is too little.

    Whoever reads the biased product of a model without biases reads the product itself.
    """
    names = inputs_of(site.stage)
    if not all(name in known.values for name in names):
        return None
    rows = known.common(names)
    if not len(rows) or (site.stage in OVER_TOKENS and len(rows) < known.count):
        return None
    inputs = {name: known.at(name, rows) for name in names}
    value = evaluated(reader, site, inputs)
    return Part(inputs["qkv_matmul"] if value is None else value, rows)


def _beside(reader: Reader, site: Site, known: _Known, recorded: Part, computed: Part) -> Iterator[Checked]:
    rows = np.intersect1d(recorded.rows, computed.rows)
    whole = len(rows) == len(computed.rows)
    if not len(rows) or (site.stage in OVER_TOKENS and not whole):
        return
    inputs = {name: known.at(name, rows) for name in inputs_of(site.stage)}
    others = {name: known.at(name, rows) for name, own in known.values.items() if np.isin(rows, own.part.rows).all()}
    y, right, way = recorded.of(rows), computed.of(rows), known.way(site)
    tainted = tainted_tokens(site.stage, inputs, reader.model.config.causal)
    if tainted.any():
        reader.tainted.add(site)
    if tainted.all():
        return
    if tainted.any() and site.stage in OVER_TOKENS:
        inputs, others = silenced(inputs, tainted), silenced(others, tainted)
        again = evaluated(reader, site, inputs)
        assert again is not None
        y, right = np.where(tainted[:, None], again, y), again
    elif tainted.any():
        rows, y, right = rows[~tainted], y[~tainted], right[~tainted]
        inputs, others = ({name: x[~tainted] for name, x in some.items()} for some in (inputs, others))
    spanned = any(_rounds(reader, inner) for inner in way.inside)
    if spanned and site not in reader.floors:
        reader.floors[site] = way.floor(reader, rows)
    noise = reader.noise(site, inputs, right)
    if spanned:  # one huge value must not take from what the other channels of its token may round by themselves
        noise = np.maximum(noise, reader.floors[site])
    product = any(inner.stage in MATMUL_INPUT for inner in way.inside)
    turned = turned_off(reader.at(site), y, right, reader.kept) if site.stage in ROTATED and not spanned else 0.0
    yield Checked(site, inputs, others, y, right, noise, way, rows, spanned, product, turned)


def _rounds(reader: Reader, site: Site) -> bool:
    """Whether computing a stage anew rounds otherwise than the engine did, so that what reads it is no longer exact."""
    if site.stage == "qkv_bias":
        return any(reader.at(site).has(f"self_attn.{letter}_proj.bias") for letter in "qkv")
    return site.stage not in _EXACT


def _without_bias(reader: Reader, site: Site, known: _Known, computed: Part) -> Checked | None:
    """The stage as it was if the engine added no bias, where the recorded rotation proves that it did not."""
    after = Site(site.layer, "q_post_rope")
    recorded = _read(reader, after)
    if recorded is None or len(recorded.rows) < known.count or len(computed.rows) < known.count:
        return None
    product = known.at("qkv_matmul", computed.rows)
    offs = []
    for value in (product, computed.values):
        right = evaluated(reader, after, {"qkv_bias": value})
        assert right is not None
        noise = reader.noise(after, {"qkv_bias": value}, right)
        offs.append(units_off(recorded.values.astype(np.float64) - right, noise))
    if not offs[0] <= LIMIT < offs[1]:
        return None
    inputs = {"qkv_matmul": product}
    others = {name: value.part.values for name, value in known.values.items()}
    noise = reader.noise(site, inputs, computed.values)
    return Checked(site, inputs, others, product, computed.values, noise, known.way(site), computed.rows)
