"""Whether the end of a span would show a mistake that was made inside.

Rounding blurs what comes through a span: codes of 8 bits that fall to the other side, a cache in half precision, an
engine that keeps 8 bits of every number. So the mistakes that ports make most are made on purpose, layer by layer, and
set beside what the record is off by. One that moves the end beyond its floor is not there, or the span were wrong. One
that moves it by much more than the record is off is not there either: rounding would have to undo it. What is left is
a mistake that may be there, and then a right end says nothing of the span.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kernels.graph import Array, Kind, Values
from kernels.kinds.activation import Activation
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.rotate import Rotate
from kernels.stages import Site
from workbench.bisect.mistakes.ffn import activations
from workbench.bisect.mistakes.mistake import units_off
from workbench.bisect.traces.spans import Step, evaluated
from workbench.bisect.traces.stages import Checked, Reader
from workbench.cells.decomposition import LIMIT

_SHORT = {"GELU (erf)": "GELU"}
_BASES = (1e4, 1e6)  # that ports take for granted, in place of the model's own
_MOST_LAYERS = 8  # of a long span that are tried, evenly apart
_MUCH = 2.0  # times what the record is off: rounding would have to undo three quarters of a mistake's energy


@dataclass(frozen=True, slots=True)
class Blur:
    """A mistake that the end does not rule out.

    share : of the end's norm that it makes; found : that the record is off; floor : that rounding may make.
    """

    words: str
    layer: int
    share: float
    found: float
    floor: float


def blur_of(reader: Reader, checked: Checked) -> Blur | None:
    """The first common mistake that would be lost inside the span of a stage; None if all would show."""
    right = checked.right.astype(np.float64)
    size = max(_norm(right), 1e-37)
    gap = checked.y - right
    for layer in _layers(checked):
        for words, kind, make in _mistakes(reader):
            inside = (site for site in checked.span.inside if site.layer == layer)
            sites = frozenset(site for site in inside if isinstance(reader.at(site).kind, kind))
            if not sites:
                continue
            planted = _Planted(reader, sites, make)
            moved = checked.span.run(reader, planted).of(checked.rows) - right
            beyond = units_off(moved, checked.noise) > LIMIT
            beyond = beyond or _norm(moved / checked.noise) > _MUCH * _norm(gap / checked.noise)
            alike = not moved.any() and not gap.any()  # rounding hides nothing in an end that is the same, bit for bit
            if planted.shown and not beyond and not alike:
                return Blur(words, layer, *(_norm(x) / size for x in (moved, gap, LIMIT * checked.noise)))
    return None


def _norm(values: Values) -> float:
    return float(np.linalg.norm(values))


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


def _layers(checked: Checked) -> list[int]:
    layers = sorted({site.layer for site in checked.span.inside if site.layer is not None})
    chosen = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), _MOST_LAYERS)).astype(np.int64))
    return [layers[n] for n in chosen]


def _mistakes(reader: Reader) -> Iterator[tuple[str, type[Kind], Callable[[Step], Array]]]:
    """Words, the kind of stages that a mistake is made in, and what it makes of one of them."""
    stages = reader.graph.layer(0)
    rotation = next((stage.kind.rotation for stage in stages if isinstance(stage.kind, Rotate)), None)
    activation = next((stage.kind for stage in stages if isinstance(stage.kind, Activation)), None)
    yield "leaving out the q, k and v biases", Bias, lambda step: step.inputs["x"]
    if rotation is not None:
        other = "norm" if rotation.pairs == "neox" else "neox"
        yield "rotating other pairs of channels", Rotate, partial(_turned, pairs=other)
        base = next(base for base in _BASES if base != rotation.theta)
        yield f"a rotary base of {base:.6g}", Rotate, partial(_turned, theta=base)
    yield "leaving out the causal mask", Attention, _unmasked
    if activation is not None:
        name = next(name for name, _ in activations(np.zeros((0, 0))) if name != activation.label)
        yield f"{_SHORT.get(name, name)} in place of {activation.label}", Activation, partial(_activated, name=name)


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
