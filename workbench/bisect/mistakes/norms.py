"""Mistakes of RMS norms and of biases: vectors that the record itself gives away, channel by channel."""

from collections.abc import Iterator

import numpy as np

from kernels import ops
from kernels.graph import Values
from kernels.kinds.norm import RmsNorm
from kernels.rows.dequantize import dequantize
from workbench.bisect.mistakes.mistake import FITTED, FREE, NAMED, Mistake, Question

_EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def vector(q: Question, name: str) -> Values:
    """A norm weight or bias of the model in float64."""
    return dequantize(q.at.model.weight(name)).astype(np.float64)


def norm_mistakes(q: Question) -> Iterator[Mistake]:
    """Another epsilon, another weight, another norm."""
    kind, name = q.kind(RmsNorm), q.tensors[0]
    x, w, eps = kind.rows(q.x["x"]), vector(q, name), kind.eps

    def made(values: Values) -> Values:
        return values.reshape(q.right.shape)

    yield from _epsilons(q, x, w)
    for offset in (1.0, -1.0):
        words = f"the norm weight enters as w{offset:+.0f}"
        yield Mistake("norm_offset", "weights", words, made(ops.rms_norm(x, w + offset, eps)), name)
    for other in _other_norms(q, name):
        words = f"the weight is that of {other}"
        yield Mistake("wrong_layer", "weights", words, made(ops.rms_norm(x, vector(q, other), eps)), name)
    centred = x - x.mean(axis=1, keepdims=True)
    for words, predicted in (
        ("the norm weight is not applied", ops.rms_norm(x, np.ones_like(w), eps)),
        ("the norm is left out", x),
        ("the norm is left out and only its weight applied", x * w),
        ("the mean is taken away, as a layer norm does", ops.rms_norm(centred, w, eps)),
        ("the sum of squares stands in place of their mean", ops.rms_norm(x, w, eps) / x.shape[1] ** 0.5),
    ):
        yield Mistake("unknown", "graph", words, made(predicted))
    if kind.head_dim:
        heads = q.right.shape[1] // kind.head_dim
        together = ops.rms_norm(x.reshape(q.right.shape), np.tile(w, heads), eps)
        yield Mistake("head_grouping", "graph", f"all {heads} heads are normed together", together)
    elif kind.size:
        apart = ops.rms_norm(x.reshape(-1, q.config.head_dim), np.ones(q.config.head_dim), eps)
        yield Mistake("head_grouping", "graph", "every head is normed by itself", apart.reshape(x.shape) * w)
    yield from _free_weight(q, ops.rms_norm(x, np.ones_like(w), eps), w, name)


def _epsilons(q: Question, x: Values, w: Values) -> Iterator[Mistake]:
    direction, y, own = x * w, q.y.reshape(x.shape), q.kind(RmsNorm).eps
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (y * direction).sum(axis=1) / (direction * direction).sum(axis=1)
        fitted = float(np.median(1 / scale**2 - np.square(x).mean(axis=1)))
    for rank, values in ((NAMED, _EPSILONS), (FITTED, (float(f"{fitted:.2g}"), fitted))):
        for eps in values:
            if eps != own and np.isfinite(eps) and eps > -1:
                words = f"epsilon is {eps:.3g} in place of {own:.3g}"
                predicted = ops.rms_norm(x, w, max(eps, 0.0)).reshape(q.right.shape)
                yield Mistake("rms_norm_eps", "config", words, predicted, rank=rank, setting=(eps,))


def _other_norms(q: Question, name: str) -> Iterator[str]:
    shape = q.at.model.weight(name).shape
    for stage in q.graph.stages():
        if isinstance(stage.kind, RmsNorm):
            (other,) = stage.weights
            if other != name and other in q.at.model and q.at.model.weight(other).shape == shape:
                yield other


def _free_weight(q: Question, plain: Values, w: Values, name: str) -> Iterator[Mistake]:
    """Whatever weight the record implies: enough tokens prove that it is one and the same for all of them."""
    if len(plain) < 2:
        return
    energy = np.square(plain).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(energy > 0, (q.y.reshape(plain.shape) * plain).sum(axis=0) / energy, w)
    differing = int(q.wrong_channels.reshape(-1, w.size).any(axis=0).sum())
    words = f"{name} acts with other values in {differing} of {w.size} channels"
    yield Mistake("unknown", "weights", words, (plain * found).reshape(q.right.shape), name, rank=FREE)


def bias_mistakes(q: Question) -> Iterator[Mistake]:
    """A bias that is not added, or another one than the model's."""
    product = q.x["x"]
    if not q.tensors:
        added = (q.y - product).mean(axis=0)
        yield Mistake("bias_missing", "weights", "q, k or v biases are added that the model lacks", product + added)
        return
    yield Mistake("bias_missing", "weights", "no q, k or v bias is added", product, q.tensors[0])
    for name, (which, part) in zip(q.tensors, q.parts.items(), strict=True):
        if not (q.wrong_channels & part).any():
            continue
        for cause, how, other in _variants(q, name, turned=which != "v"):
            predicted = q.with_channels(part, product[:, part] + other)
            yield Mistake(cause, "weights", f"{name} {how}", predicted, name)
        found = (q.y - product)[:, part].mean(axis=0)
        words = f"another bias than {name} is added"
        yield Mistake("bias_wrong", "weights", words, q.with_channels(part, product[:, part] + found), name, rank=FREE)
    found = (q.y - product).mean(axis=0)
    words = "other biases than the model's are added"
    yield Mistake("bias_wrong", "weights", words, product + found, _first_wrong(q), rank=FREE)


def _first_wrong(q: Question) -> str:
    channel = int(np.flatnonzero(q.wrong_channels)[0])
    return next(name for name, part in zip(q.tensors, q.parts.values(), strict=True) if part[channel])


def _variants(q: Question, name: str, turned: bool) -> Iterator[tuple[str, str, Values]]:
    bias, heads = vector(q, name), q.at.stage.heads
    yield "bias_missing", "is not added", np.zeros_like(bias)
    yield "sign_flipped", "has the opposite sign", -bias
    yield "scaled", "is added twice", 2 * bias
    if turned and heads is not None:
        yield "permuted_rope", "is in adjacent-pair rotary order", _reordered(bias, (2, heads.size // 2))
        yield "permuted_rope", "is in half-split rotary order", _reordered(bias, (heads.size // 2, 2))
    for layer in range(q.config.num_hidden_layers):
        other = name.replace(f"layers.{q.at.layer}.", f"layers.{layer}.")
        if layer != q.at.layer and other in q.at.model:
            yield "wrong_layer", f"is that of layer {layer}", vector(q, other)


def _reordered(bias: Values, shape: tuple[int, int]) -> Values:
    return bias.reshape(-1, *shape).swapaxes(1, 2).reshape(-1)
