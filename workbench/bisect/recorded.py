"""The stages of a recorded trace, each with its recorded inputs and what our operation makes of them.

What the trace does not hold is computed from what it holds. Rows that an engine drops, as those of tokens whose logits
nobody asked for, are missing from then on; every stage is looked at on the rows that it and its inputs have in common.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kernels.forward import At, Model, evaluate, inputs_of
from kernels.paths import Array, F32Path
from kernels.stages import Site, execution_order
from workbench.bisect.angles import ROTATED, turned_off
from workbench.bisect.floor import MATMUL_INPUT
from workbench.bisect.noise import float_noise
from workbench.bisect.precision import FLOAT32, Precision
from workbench.bisect.runtime_mistakes.mistake import Values, units_off
from workbench.bisect.tainted import silenced, tainted_tokens
from workbench.bisect.verdict import LIMIT

Rows = NDArray[np.int64]
_OVER_TOKENS = ("q_post_rope", "k_post_rope", "attention")  # stages that need every token
_LINEAR = ("qkv_bias", "post_attn_residual", "post_ffn_residual", "layer_output")  # hand on what their inputs round


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
    in half precision.
    """

    model: Model
    path: F32Path
    trace: Recorded
    tokens: tuple[int, ...]
    kept: Precision = FLOAT32
    attention: Precision = FLOAT32

    def precision(self, stage: str) -> Precision:
        """How the engine keeps the numbers of a stage."""
        return self.attention if stage == "attention" else self.kept

    def noise(self, site: Site, inputs: Mapping[str, Array], right: Array) -> Values:
        """What float rounding may do to every element of a stage."""
        return float_noise(site.stage, self.at(site), inputs, right, self.precision(site.stage))

    def at(self, site: Site) -> At:
        """Where a stage is evaluated."""
        return At(self.model, self.path, self.tokens, site.layer)


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A recorded stage y beside the right one, over the same tokens; inputs and known by stage, over those tokens.

    rows : the token of every row. turned : how far the angles of a rotation are off, in units of what rounding makes of
    them.
    """

    site: Site
    inputs: Mapping[str, Array]
    known: Mapping[str, Array]
    y: Array
    right: Array
    noise: Values
    rows: Rows
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


@dataclass(slots=True)
class _Known:
    """Stage values of one layer, with the tokens of their rows.

    products : how many products lie between a value and what was recorded; one may round otherwise than the engine's.
    """

    count: int
    values: dict[str, Array] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    products: dict[str, int] = field(default_factory=dict)

    def put(self, stage: str, values: Array, rows: Rows, products: int = 0) -> None:
        """Keep the value of a stage."""
        self.values[stage], self.rows[stage], self.products[stage] = values, rows, products

    def products_before(self, stage: str) -> int:
        """Products that had to be computed for what a stage reads."""
        return max((self.products[name] for name in inputs_of(stage)), default=0)

    def tells(self, stage: str) -> bool:
        """Whether the inputs of a stage are known well enough to judge it."""
        return self.products_before(stage) <= (1 if stage in _LINEAR else 0)

    def kept(self, stage: str) -> tuple[Array, Rows, int]:
        """What `put` was given."""
        return self.values[stage], self.rows[stage], self.products[stage]

    def common(self, names: tuple[str, ...]) -> Rows:
        """Tokens that all of the named stages have."""
        rows = np.arange(self.count)
        for name in names:
            rows = np.intersect1d(rows, self.rows[name])
        return rows

    def at(self, name: str, rows: Rows) -> Array:
        """Rows of chosen tokens, all of which the stage has."""
        own = self.rows[name]
        return self.values[name] if len(own) == len(rows) else self.values[name][np.searchsorted(own, rows)]


def recorded_stages(reader: Reader, notes: list[str]) -> Iterator[Checked]:
    """Every recorded stage whose inputs are known, in execution order; `notes` is told what could not be checked."""
    known = _Known(len(reader.tokens))
    unchecked: list[Site] = []
    unjudged: list[Site] = []
    for site in execution_order(reader.model.config.num_hidden_layers):
        if site.stage == "attn_norm":
            known = _next_layer(known)
        recorded = _read(reader, site)
        computed = _computed(reader, site, known)
        if recorded is None and computed is not None and site.stage == "qkv_bias":
            left_out = _without_bias(reader, site, known, computed)
            if left_out is not None:
                yield left_out
                computed = left_out.y, computed[1]
        if recorded is not None and computed is not None and known.tells(site.stage):
            yield from _beside(reader, site, known, recorded, computed, unjudged)
        elif reader.trace.status(site) != "absent" and inputs_of(site.stage):
            unchecked.append(site)
        if recorded is not None:
            known.put(site.stage, *recorded)
        elif computed is not None:
            known.put(site.stage, *computed, known.products_before(site.stage) + (site.stage in MATMUL_INPUT))
        elif site.stage == "qkv_bias" and "qkv_matmul" in known.values:
            known.put("qkv_bias", *known.kept("qkv_matmul"))
    if unjudged:
        notes.append(
            f"{len(unjudged)} stages from {unjudged[0]} on read NaN or infinite values, and were checked on the other "
            "tokens only"
        )
    if unchecked:
        names = ", ".join(sorted({site.stage for site in unchecked}))
        notes.append(
            f"{len(unchecked)} stages are not in the trace, or not what they read, and were not checked ({names})"
        )


def _next_layer(known: _Known) -> _Known:
    fresh = _Known(known.count)
    last = next((name for name in ("layer_output", "embedding") if name in known.values), None)
    if last is not None:
        fresh.put("layer_input", *known.kept(last))
    return fresh


def _read(reader: Reader, site: Site) -> tuple[Array, Rows] | None:
    """A recorded stage and the tokens of its rows; nothing if they are not told, or told twice."""
    if reader.trace.status(site) != "ok":
        return None
    values, positions = reader.trace.read(site), reader.trace.positions(site)
    if positions is None or len(positions) != len(values):
        return None
    rows = np.array(positions, dtype=np.int64)
    ordered = bool((np.diff(rows) > 0).all()) and rows[0] >= 0 and rows[-1] < len(reader.tokens)
    return (values, rows) if ordered else None


def _computed(reader: Reader, site: Site, known: _Known) -> tuple[Array, Rows] | None:
    """What our operation makes of what is known; nothing if it is too little, or if the model lacks the stage."""
    names = inputs_of(site.stage)
    if not all(name in known.values for name in names):
        return None
    rows = known.common(names)
    if not len(rows) or (site.stage in _OVER_TOKENS and len(rows) < known.count):
        return None
    value = _evaluated(reader, site, {name: known.at(name, rows) for name in names})
    return None if value is None else (value, rows)


def _evaluated(reader: Reader, site: Site, inputs: Mapping[str, Array]) -> Array | None:
    ready = {name: np.ascontiguousarray(x, dtype=reader.path.dtype) for name, x in inputs.items()}
    return evaluate(site.stage, reader.at(site), ready)


def _beside(
    reader: Reader,
    site: Site,
    known: _Known,
    recorded: tuple[Array, Rows],
    computed: tuple[Array, Rows],
    unjudged: list[Site],
) -> Iterator[Checked]:
    rows = np.intersect1d(recorded[1], computed[1])
    if not len(rows):
        return
    whole = len(rows) == len(computed[1])
    inputs = {
        name: known.at(name, rows if site.stage not in _OVER_TOKENS else computed[1]) for name in inputs_of(site.stage)
    }
    others = {name: known.at(name, rows) for name, own in known.rows.items() if np.isin(rows, own).all()}
    y = recorded[0][np.searchsorted(recorded[1], rows)]
    right = computed[0] if whole else computed[0][np.searchsorted(computed[1], rows)]
    if site.stage in _OVER_TOKENS and not whole:
        return
    tainted = tainted_tokens(site.stage, inputs)
    if tainted.any():
        unjudged.append(site)
        if tainted.all():
            return
        if site.stage in _OVER_TOKENS:
            inputs, others = silenced(inputs, tainted), silenced(others, tainted)
            again = _evaluated(reader, site, inputs)
            assert again is not None
            y, right = np.where(tainted[:, None], again, y), again
        else:
            rows, y, right = rows[~tainted], y[~tainted], right[~tainted]
            inputs, others = ({name: x[~tainted] for name, x in some.items()} for some in (inputs, others))
    noise = reader.noise(site, inputs, right)
    turned = turned_off(reader.at(site), y, right, reader.kept) if site.stage in ROTATED else 0.0
    for name in inputs:
        if known.products[name]:
            noise = noise + _noise_of_computed(reader, Site(site.layer, name), known, rows)
            turned = 0.0
    yield Checked(site, inputs, others, y, right, noise, rows, turned)


def _noise_of_computed(reader: Reader, site: Site, known: _Known, rows: Rows) -> Values:
    """What float rounding may have done to a product that the trace does not hold."""
    inputs = {name: known.at(name, rows) for name in inputs_of(site.stage)}
    return reader.noise(site, inputs, known.at(site.stage, rows))


def _without_bias(reader: Reader, site: Site, known: _Known, computed: tuple[Array, Rows]) -> Checked | None:
    """The stage as it was if the engine added no bias, where the recorded rotation proves that it did not."""
    after = Site(site.layer, "q_post_rope")
    recorded = _read(reader, after)
    if recorded is None or len(recorded[1]) < known.count or len(computed[1]) < known.count:
        return None
    product = known.at("qkv_matmul", computed[1])
    offs = []
    for value in (product, computed[0]):
        right = _evaluated(reader, after, {"qkv_bias": value})
        assert right is not None
        noise = reader.noise(after, {"qkv_bias": value}, right)
        offs.append(units_off(recorded[0].astype(np.float64) - right, noise))
    if not offs[0] <= LIMIT < offs[1]:
        return None
    inputs = {"qkv_matmul": product}
    noise = reader.noise(site, inputs, computed[0])
    return Checked(site, inputs, dict(known.values), product, computed[0], noise, computed[1])
