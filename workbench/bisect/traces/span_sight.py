"""Whether the end of a span would show a mistake that was made inside.

Rounding blurs what comes through a span: codes of 8 bits that fall to the other side, a cache in half precision, an
engine that keeps 8 bits of every number. So the mistakes that ports make most are made on purpose, layer by layer, and
set beside what the record is off by. One that moves the end beyond its floor is not there, or the span were wrong. One
that moves it by much more than the record is off is not there either: rounding would have to undo it. What is left is
a mistake that may be there, and then a right end says nothing of the span.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kernels.paths import Array
from kernels.stages import Site
from workbench.bisect.mistakes.ffn import activations
from workbench.bisect.mistakes.mistake import Values, units_off
from workbench.bisect.models.substitution import Mixed
from workbench.bisect.traces.spans import Step, evaluated
from workbench.bisect.traces.stages import Checked, Reader
from workbench.cells.decomposition import LIMIT

_ROTATED = ("q_post_rope", "k_post_rope")
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
        for words, stages, make in _mistakes(reader):
            sites = frozenset(site for site in checked.span.inside if site.layer == layer and site.stage in stages)
            if not sites:
                continue
            planted = _Planted(reader, sites, make)
            moved = checked.span.run(reader, planted).of(checked.rows) - right
            beyond = units_off(moved, checked.noise) > LIMIT
            beyond = beyond or _norm(moved / checked.noise) > _MUCH * _norm(gap / checked.noise)
            if planted.shown and not beyond:
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
        noise = self.reader.noise(step.site, step.inputs, step.y)
        self.shown = self.shown or units_off(wrong.astype(np.float64) - step.y, noise) > LIMIT
        return wrong


def _layers(checked: Checked) -> list[int]:
    layers = sorted({site.layer for site in checked.span.inside if site.layer is not None})
    chosen = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), _MOST_LAYERS)).astype(np.int64))
    return [layers[n] for n in chosen]


def _mistakes(reader: Reader) -> Iterator[tuple[str, tuple[str, ...], Callable[[Step], Array]]]:
    """Words, the stages that a mistake is made in, and what it makes of one of them."""
    config = reader.model.config

    def otherwise(**changes: Any) -> Callable[[Step], Array]:  # noqa: ANN401 - fields of ModelConfig
        changed = replace(reader, model=Mixed(reader.model, replace(config, **changes)))
        return lambda step: _value(evaluated(changed, step.site, step.inputs))

    yield "leaving out the q, k and v biases", ("qkv_bias",), lambda step: step.inputs["qkv_matmul"]
    other = "norm" if config.rope_type == "neox" else "neox"
    yield "rotating other pairs of channels", _ROTATED, otherwise(rope_type=other)
    base = next(base for base in _BASES if base != config.rope_theta)
    yield f"a rotary base of {base:.6g}", _ROTATED, otherwise(rope_theta=base)
    yield "leaving out the causal mask", ("attention",), lambda step: _unmasked(reader, step)
    gelu = lambda step: next(activations(step.inputs["ffn_gate"].astype(np.float64)))[1]  # noqa: E731
    yield "GELU in place of SiLU", ("ffn_silu",), gelu


def _value(y: Array | None) -> Array:
    assert y is not None
    return y


def _unmasked(reader: Reader, step: Step) -> Values:
    """Attention in which every token sees every other."""
    c, x = reader.model.config, step.inputs
    parts = x["q_post_rope"], x["k_post_rope"], x["qkv_bias"][:, c.q_size + c.kv_size :]
    q, k, v = (part.reshape(len(part), -1, c.head_dim).astype(np.float64) for part in parts)
    out = np.empty_like(q)
    for head in range(q.shape[1]):
        shared = head // (q.shape[1] // k.shape[1])
        scores = q[:, head] @ k[:, shared].T * c.head_dim**-0.5
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, shared]
    return out.reshape(len(out), -1)
