"""Mistakes of the activation, of the gated product, and of the additions to the residual stream."""

from collections.abc import Iterator
from dataclasses import replace
from math import pi, sqrt

import numpy as np

from kernels.graph import LAYER_INPUT, Stage, Values
from kernels.kinds.activation import Activation
from kernels.kinds.clamped import ClampedGate
from kernels.kinds.elementwise import Add, AddBoth, Multiply, ScaledSum
from workbench.bisect.mistakes.mistake import FITTED, Mistake, Question, least_squares
from workbench.bisect.traces.spans import evaluated


def _erf(x: Values) -> Values:
    """The error function to 1e-7, which torch's own float32 is away from it (Abramowitz and Stegun 7.1.26 squared)."""
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x) if x.size else x


def activations(gate: Values) -> Iterator[tuple[str, Values]]:
    """The activation functions that there are in models."""
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-gate))
        softplus = np.logaddexp(0, gate)
        yield "GELU (erf)", gate * 0.5 * (1 + _erf(gate / sqrt(2)))
        yield "GELU (tanh)", 0.5 * gate * (1 + np.tanh(sqrt(2 / pi) * (gate + 0.044715 * gate**3)))
        yield "SiLU", gate * sigmoid
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
    activation = q.read("gate") if isinstance(q.at.kind, Multiply) else q.at.stage
    gate = None if activation is None else q.known.get(activation.reads[0])
    if activation is None or gate is None or not isinstance(activation.kind, Activation):
        return
    own, label = _activated(q, activation, gate), activation.kind.label
    up = q.x["up"] if isinstance(q.at.kind, Multiply) else None
    for name, values in activations(gate):
        if name != label:
            words = f"{name} stands in place of {label}"
            predicted = values if up is None else values * q.kind(Multiply).through(up)
            yield Mistake("activation_function", "graph", words, predicted, site=activation.site, setting=(name,))
    yield from _other_bounds(q, activation, gate, up)
    if up is not None:
        swapped = _activated(q, activation, up) * q.kind(Multiply).through(gate)
        yield Mistake("gate_up_swapped", "graph", f"{label} is applied to up instead of gate", swapped)
        yield Mistake("unknown", "graph", "the product with up is left out", own)
        yield Mistake("unknown", "graph", "up is added instead of multiplied", own + up)
        yield Mistake("unknown", "graph", "the activation is left out and only up is kept", up)


def _other_bounds(q: Question, activation: Stage, gate: Values, up: Values | None) -> Iterator[Mistake]:
    """Gates of another steepness or without their bounds, of families that have them."""
    kind = activation.kind
    if not isinstance(kind, ClampedGate):
        return
    limit, through = kind.limit, up if up is None else q.kind(Multiply).through(up)
    plain, unbounded = replace(kind, steepness=1.0), replace(kind, limit=np.inf)
    made = _activated(q, activation, gate)
    gates = (
        (f"the sigmoid of the gate is not {kind.steepness:g} times as steep", plain.of(gate)),
        (f"the gate is not bounded at {limit:g}", unbounded.of(gate)),
        (f"the gate is bounded at -{limit:g} too", kind.of(np.maximum(gate, -limit))),
    )
    for words, values in gates:
        predicted = values if through is None else values * through
        yield Mistake("activation_function", "graph", words, predicted, site=activation.site, setting=(words,))
    if up is None:
        return
    for words, predicted in (
        ("1 is not added to up", made * np.clip(up, -limit, limit)),
        (f"up is not bounded at {limit:g}", made * (up + 1)),
        (f"neither gate nor up is bounded at {limit:g}", unbounded.of(gate) * (up + 1)),
        ("up is neither bounded nor is 1 added to it", made * up),
        (f"up is bounded at {limit:g} and not at -{limit:g}", made * (np.minimum(up, limit) + 1)),
        (f"up is bounded at {limit:g} behind the addition of 1", made * np.clip(up + 1, -limit, limit)),
    ):
        yield Mistake("activation_function", "graph", words, predicted, setting=(words,))


def _activated(q: Question, activation: Stage, x: Values) -> Values:
    """An activation as the engine computes it, which may look it up in a table."""
    at = replace(q.at, stage=activation)
    return evaluated(at, {"x": x}).astype(np.float64)


def residual_mistakes(q: Question) -> Iterator[Mistake]:
    """What is added, and to what."""
    before, added = q.at.stage.reads
    for words, values in _other_sums(q, before, added):
        cause = "sign_flipped" if words.endswith("subtracted") else "residual_missing"
        cause = "scaled" if "is not multiplied" in words else cause
        yield Mistake(cause, "graph", words, values, setting=(words,))
    yield from _other_shares(q, before, added)


def _other_sums(q: Question, before: str, added: str) -> Iterator[tuple[str, Values]]:
    first, second, times = _terms(q)
    if times != 1:
        yield f"{added} is not multiplied by {times:.6g}", first + second / times
    yield f"{before} is not added", second
    yield f"{added} is not added", first
    yield f"{added} is added twice", first + 2 * second
    yield f"{before} is added twice", 2 * first + second
    yield f"{added} is subtracted", first - second
    for stage, values in q.known.items():
        if stage not in (before, added) and values.shape == second.shape and not np.array_equal(values, first):
            yield f"{stage} is added in place of {before}", values + second
            yield f"{stage} is returned instead of the sum", values


def scaled_sum_mistakes(q: Question) -> Iterator[Mistake]:
    """A sum that is not multiplied by its factor, or lacks a part."""
    times, first, second = q.kind(ScaledSum).times, q.x["before"], q.x["added"]
    before, added = q.at.stage.reads
    for cause, words, predicted in (
        ("scaled", f"the sum is not multiplied by {times:.6g}", first + second),
        ("scaled", f"{before} alone is multiplied by {times:.6g}", times * first + second),
        ("scaled", f"{added} alone is multiplied by {times:.6g}", first + times * second),
        ("residual_missing", f"{before} is not added", times * second),
        ("residual_missing", f"{added} is not added", times * first),
        ("residual_missing", f"{before} alone is given, without its factor", first),
        ("residual_missing", f"{added} alone is given, without its factor", second),
        ("sign_flipped", f"{added} is subtracted", times * (first - second)),
    ):
        yield Mistake(cause, "graph", words, predicted, setting=(words,))


def both_sums_mistakes(q: Question) -> Iterator[Mistake]:
    """The two blocks and what was there before, which are added at once: one left out, twice, or subtracted."""
    roles = q.kind(AddBoth).roles
    for role, name in zip(roles, q.at.stage.reads, strict=True):
        name = "what the layer is given" if name == LAYER_INPUT else name
        for words, times in (
            (f"{name} is not added", -1),
            (f"{name} is added twice", 1),
            (f"{name} is subtracted", -2),
        ):
            cause = "sign_flipped" if times == -2 else "residual_missing"
            yield Mistake(cause, "graph", words, q.right + times * q.x[role], setting=(words,))


def _terms(q: Question) -> tuple[Values, Values, float]:
    """What is added up, and by what the second of them was multiplied before."""
    times = q.kind(Add).times
    return q.x["before"], times * q.x["added"], times


def _other_shares(q: Question, before: str, added: str) -> Iterator[Mistake]:
    """Both parts, each with a factor of its own."""
    first, second, _ = _terms(q)
    base = np.stack([first.reshape(-1), second.reshape(-1)], axis=1)
    shares = least_squares(base, q.y.reshape(-1))
    if shares is not None:
        nice = np.round(shares, 4)
        words = f"{before} counts {nice[0]:g} times and {added} {nice[1]:g} times"
        yield Mistake("scaled", "graph", words, nice[0] * first + nice[1] * second, rank=FITTED, setting=(words,))
