"""What the end of a span tells of the mistakes that ports make most: they are made on purpose, layer by layer.

Rounding blurs what comes through a span: codes of 8 bits that fall to the other side, a cache in half precision, an
engine that keeps 8 bits of every number. A mistake that moves the end beyond its floor is not there, or the span were
wrong. One that stays within the floor still moves thousands of elements in its own way, and rounding does not know that
way: how much of it the record has in it, over all elements together, is known far better than any element. All of it,
and the mistake is there; none, and it is not. What is left is a mistake that may be there, and then a right end says
nothing of the span.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kernels.graph import BIAS, Array, Kind, Values
from kernels.kinds.activation import Activation
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.rotate import Rotate
from kernels.stages import Site
from workbench.bisect.mistakes.ffn import activations
from workbench.bisect.mistakes.mistake import units_off
from workbench.bisect.traces.diagnosis import whole_share
from workbench.bisect.traces.span_causes import way_of
from workbench.bisect.traces.spans import Part, Step, evaluated, order
from workbench.bisect.traces.stages import Checked, Reader
from workbench.bisect.verdict import Culprit, Factor
from workbench.cells.limit import LIMIT
from workbench.cells.metrics import format_value

_SHORT = {"GELU (erf)": "GELU"}
_BASES = (1e4, 1e6)  # that ports take for granted, in place of the model's own
_MOST_LAYERS = 8  # of a long span that are tried, evenly apart
_MUCH = 2.0  # times what the record is off: rounding would have to undo three quarters of a mistake's energy
_FEWEST = 8  # parts that tell how well a share is known
_SURE, _KNOWN, _NEAR = 4.0, 0.1, 0.05  # standard errors; the largest of them; what a whole mistake may lack beside


@dataclass(frozen=True, slots=True)
class Blur:
    """A mistake that the end does not rule out.

    share : of the end's norm that it makes; found : that the record is off; floor : that rounding may make.
    """

    words: str
    share: float
    found: float
    floor: float


class Common(NamedTuple):
    """A mistake that ports make: in which stages, what it makes of one of them, and how a culprit tells of it."""

    words: str
    kind: type[Kind]
    make: Callable[[Step], Array]
    cause: str
    factor: Factor
    part: str = ""  # of the stage, where it concerns only that: q, k or v


class Sight(NamedTuple):
    """What the end of a span tells. found : a mistake that is there. blur : the first that may be there."""

    found: Culprit | None
    blur: Blur | None


def look_through(reader: Reader, checked: Checked) -> Sight:
    """Make every common mistake in the span of a stage that is right, and set it beside what the record is off by."""
    right = checked.right.astype(np.float64)
    gap, size = checked.y - right, max(_norm(right), 1e-37)
    found: tuple[float, Culprit | None] = 0.0, None
    blur = None
    before = {site: Part(step.y, step.rows) for site, step in checked.span.steps(reader).items()}
    for where, layers in _places(checked):
        for common in _mistakes(reader):
            planted = _Planted(reader, _sites(reader, checked, common, layers), common.make)
            if not planted.sites:
                continue
            rest = checked.span.rest(min(planted.sites, key=order), before)
            moved = rest.run(reader, planted).of(checked.rows) - right
            if not planted.shown or units_off(moved, checked.noise) > LIMIT or not moved.any():
                continue  # what moves nothing at these tokens is not there for them
            there = _there(moved, gap, checked.noise)
            words = f"{common.words} in {where}"
            if there is None and blur is None:
                blur = Blur(words, *(_norm(x) / size for x in (moved, gap, LIMIT * checked.noise)))
            elif there and there > found[0]:
                found = there, _culprit(reader, checked, common, planted.sites, words)
    return Sight(found[1], blur)


def _norm(values: Values) -> float:
    return float(np.linalg.norm(values))


def _there(moved: Values, gap: Values, noise: Values) -> float | None:
    """How much of a gap a mistake takes away, in units of noise squared, if it is there; 0 if not, None if it may be.

    The share of the mistake that the record has in it is fitted over all elements; how far tokens, and how far
    channels, disagree about it tells how well it is known; few tokens by runs of their channels.
    """
    moved, gap = moved / noise, gap / noise
    if _norm(moved) > _MUCH * _norm(gap):
        return 0.0
    energy = float(np.square(moved).sum())
    share = float((moved * gap).sum()) / energy
    left = moved * gap - share * np.square(moved)
    runs = np.array_split(left, min(-(-_FEWEST // len(left)), left.shape[1]), axis=1)
    sums = (left.sum(axis=0), *(run.sum(axis=1) for run in runs))
    error = sum(float(np.square(x).sum()) for x in sums) ** 0.5 / energy
    if share + _SURE * error < 1 / _MUCH:
        return 0.0
    if error <= _KNOWN and abs(share - 1) <= _SURE * error + _NEAR:
        return energy * (2 * share - 1)
    return None


def _culprit(reader: Reader, checked: Checked, common: Common, sites: frozenset[Site], words: str) -> Culprit:
    first = min(sites, key=order)
    tensors = reader.at(first).stage.biases if common.part else ()
    tensor = next((name for name in tensors if name.endswith(f".{common.part}_proj{BIAS}")), None)
    words = (
        f"{way_of(checked)}: {words} moves the end as the record is off, over all tokens and channels together, by "
        f"{format_value(checked.relative)} of its norm"
    )
    shares = whole_share(common.factor)
    return Culprit(first, common.factor, common.cause, words, tensor, None, shares, shown_at=checked.site)


@dataclass(slots=True)
class _Planted:
    """A mistake in some stages. shown : whether one of them would have shown it."""

    reader: Reader
    sites: frozenset[Site]
    make: Callable[[Step], Array]
    shown: bool = False

    def __call__(self, step: Step) -> Array:
        """What the stage gives on."""
        if step.site not in self.sites:
            return step.y
        wrong = np.asarray(self.make(step), dtype=step.y.dtype)
        noise = self.reader.noise(step.at, step.inputs, step.y)
        self.shown = self.shown or units_off(wrong.astype(np.float64) - step.y, noise) > LIMIT
        return wrong


def _places(checked: Checked) -> Iterator[tuple[str, frozenset[int]]]:
    """All layers of a span, then each."""
    layers = sorted({site.layer for site in checked.span.inside if site.layer is not None})
    if len(layers) > 1:
        yield "all layers", frozenset(layers)
    chosen = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), _MOST_LAYERS)).astype(np.int64))
    for n in chosen:
        yield f"layer {layers[n]}", frozenset({layers[n]})


def _sites(reader: Reader, checked: Checked, common: Common, layers: frozenset[int]) -> frozenset[Site]:
    inside = (site for site in checked.span.inside if site.layer in layers)
    return frozenset(site for site in inside if isinstance(reader.at(site).kind, common.kind))


def _mistakes(reader: Reader) -> Iterator[Common]:
    stages = reader.graph.layer(0)
    rotation = next((stage.kind.rotation for stage in stages if isinstance(stage.kind, Rotate)), None)
    activation = next((stage.kind for stage in stages if isinstance(stage.kind, Activation)), None)
    yield Common("leaving out the q, k and v biases", Bias, partial(_unbiased, parts="qkv"), "bias_missing", "weights")
    for part in "qkv":
        words, make = f"leaving out the {part} bias", partial(_unbiased, parts=part)
        yield Common(words, Bias, make, "bias_missing", "weights", part)
    if rotation is not None:
        other = "norm" if rotation.pairs == "neox" else "neox"
        yield Common("rotating other pairs of channels", Rotate, partial(_turned, pairs=other), "rope_type", "config")
        base = next(base for base in _BASES if base != rotation.theta)
        words, make = f"a rotary base of {base:.6g}", partial(_turned, theta=base)
        yield Common(words, Rotate, make, "rope_theta", "config")
    yield Common("leaving out the causal mask", Attention, _unmasked, "causal_mask", "graph")
    if activation is not None:
        name = next(name for name, _ in activations(np.zeros((0, 0))) if name != activation.label)
        words = f"{_SHORT.get(name, name)} in place of {activation.label}"
        yield Common(words, type(activation), partial(_activated, name=name), "activation_function", "graph")


def _unbiased(step: Step, parts: str) -> Array:
    """The sum without the biases of some parts."""
    heads, y = step.at.stage.heads, step.y.copy()
    assert heads is not None
    for part in parts:
        columns = heads.columns(part)
        y[:, columns] = step.inputs["x"][:, columns]
    return y


def _turned(step: Step, **changes: Any) -> Array:  # noqa: ANN401 - fields of Rotation
    kind = step.at.kind
    assert isinstance(kind, Rotate)
    return evaluated(step.at.doing(replace(kind, rotation=replace(kind.rotation, **changes))), step.inputs)


def _activated(step: Step, name: str) -> Values:
    return dict(activations(step.inputs["x"].astype(np.float64)))[name]


def _unmasked(step: Step) -> Array:
    """Attention in which every token sees every other."""
    kind = step.at.kind
    assert isinstance(kind, Attention)
    return evaluated(step.at.doing(replace(kind, causal=False, window=None)), step.inputs)
