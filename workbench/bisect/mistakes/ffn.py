"""Mistakes of the activation, of the gated product, and of the additions to the residual stream."""

from collections.abc import Iterator
from math import pi, sqrt

import numpy as np

from kernels import ops
from kernels.stages import Site
from workbench.bisect.mistakes.mistake import FITTED, Mistake, Question, Values, least_squares


def _erf(x: Values) -> Values:
    """The error function to 1e-7, which torch's own float32 is away from it (Abramowitz and Stegun 7.1.26 squared)."""
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x) if x.size else x


def activations(gate: Values) -> Iterator[tuple[str, Values]]:
    """What stands in place of SiLU in other models."""
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-gate))
        softplus = np.logaddexp(0, gate)
        yield "GELU (erf)", gate * 0.5 * (1 + _erf(gate / sqrt(2)))
        yield "GELU (tanh)", 0.5 * gate * (1 + np.tanh(sqrt(2 / pi) * (gate + 0.044715 * gate**3)))
        yield "quick GELU", gate / (1 + np.exp(-1.702 * gate))
        yield "ReLU", np.maximum(gate, 0)
        yield "squared ReLU", np.maximum(gate, 0) ** 2
        yield "leaky ReLU", np.where(gate > 0, gate, 0.01 * gate)
        yield "ELU", np.where(gate > 0, gate, np.expm1(np.minimum(gate, 0)))
        yield "a sigmoid", sigmoid
        yield "a hard swish", gate * np.clip(gate + 3, 0, 6) / 6
        yield "a tanh", np.tanh(gate)
        yield "a softplus", softplus
        yield "Mish", gate * np.tanh(softplus)
        yield "no activation", gate


def activation_mistakes(q: Question) -> Iterator[Mistake]:
    """Another function in the activation, or in the gated product that is the first to show it."""
    gate = q.known.get("ffn_gate")
    if gate is None:
        return
    at_silu = Site(q.site.layer, "ffn_silu")
    up = q.x["ffn_up"] if q.stage == "ffn_swigl" else None
    for name, values in activations(gate):
        words = f"{name} stands in place of SiLU"
        predicted = values if up is None else values * up
        yield Mistake("activation_function", "graph", words, predicted, site=at_silu, setting=(name,))
    if up is not None:
        yield Mistake("gate_up_swapped", "graph", "SiLU is applied to up instead of gate", ops.silu(up) * gate)
        yield Mistake("unknown", "graph", "the product with up is left out", ops.silu(gate))
        yield Mistake("unknown", "graph", "up is added instead of multiplied", ops.silu(gate) + up)
        yield Mistake("unknown", "graph", "the activation is left out and only up is kept", up)


def residual_mistakes(q: Question) -> Iterator[Mistake]:
    """What is added, and to what."""
    before, added = tuple(q.x)
    for words, values in _other_sums(q, before, added):
        cause = "sign_flipped" if words.endswith("subtracted") else "residual_missing"
        yield Mistake(cause, "graph", words, values, setting=(words,))
    yield from _other_shares(q, before, added)


def _other_sums(q: Question, before: str, added: str) -> Iterator[tuple[str, Values]]:
    first, second = q.x.values()
    yield f"{before} is not added", second
    yield f"{added} is not added", first
    yield f"{added} is added twice", first + 2 * second
    yield f"{before} is added twice", 2 * first + second
    yield f"{added} is subtracted", first - second
    for stage, values in q.known.items():
        if stage not in (before, added) and values.shape == second.shape and not np.array_equal(values, first):
            yield f"{stage} is added in place of {before}", values + second
            yield f"{stage} is returned instead of the sum", values


def _other_shares(q: Question, before: str, added: str) -> Iterator[Mistake]:
    """Both parts, each with a factor of its own."""
    first, second = q.x.values()
    base = np.stack([first.reshape(-1), second.reshape(-1)], axis=1)
    shares = least_squares(base, q.y.reshape(-1))
    if shares is not None:
        nice = np.round(shares, 4)
        words = f"{before} counts {nice[0]:g} times and {added} {nice[1]:g} times"
        yield Mistake("scaled", "graph", words, nice[0] * first + nice[1] * second, rank=FITTED, setting=(words,))
