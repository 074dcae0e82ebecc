"""Mistakes of norms and of biases: vectors that the record itself gives away, channel by channel."""

from collections.abc import Iterator

import numpy as np

from kernels import ops
from kernels.graph import Values
from kernels.kinds.norm import LayerNorm, Norm
from kernels.layer_norm import layer_norm
from kernels.rows.dequantize import dequantize
from workbench.bisect.mistakes.mistake import FITTED, FREE, NAMED, Mistake, Question

_EPSILONS = (0.0, 1e-12, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def vector(q: Question, name: str) -> Values:
    """A norm weight or bias of the model in float64."""
    return dequantize(q.at.model.weight(name)).astype(np.float64)


def _norm_of(q: Question) -> Norm:
    assert isinstance(q.at.kind, Norm)
    return q.at.kind


def norm_mistakes(q: Question) -> Iterator[Mistake]:
    """Another epsilon, another weight or bias, another norm."""
    kind, name = _norm_of(q), next(iter(q.at.stage.weights), None)
    x, w, eps = kind.rows(q.x["x"]), kind.weight(q.at), kind.eps

    def made(values: Values) -> Values:
        return values.reshape(q.right.shape)

    yield from _epsilons(q, x, w)
    for offset in (1.0, -1.0) if name else ():
        words = f"the norm weight enters as w{offset:+.0f}"
        yield Mistake("norm_offset", "weights", words, made(_of(q, x, w + offset * kind.times, eps)), name)
    for other in _other_norms(q, name):
        words = f"the weight is that of {other}"
        yield Mistake("wrong_layer", "weights", words, made(_of(q, x, vector(q, other) * kind.times, eps)), name)
    yield from _of_another_stage(q)
    for words, predicted in (
        ("the norm weight is not applied", _of(q, x, np.full_like(w, kind.times), eps)),
        ("the norm is left out", x),
        ("the norm is left out and only its weight applied", x * w + kind.bias(q.at)),
    ):
        yield Mistake("norm_missing", "graph", words, made(predicted))
    if kind.times != 1:
        words = f"the norm is not multiplied by {kind.times:.6g}"
        yield Mistake("scaled", "graph", words, q.right / kind.times, setting=(words,))
    for words, predicted in (
        *_other_means(q, x, w),
        ("the sum of squares stands in place of their mean", (_of(q, x, w, eps) - kind.bias(q.at)) / x.shape[1] ** 0.5),
    ):
        yield Mistake("unknown", "graph", words, made(predicted))
    if kind.head_dim:
        heads = q.right.shape[1] // kind.head_dim
        together = _of(q, x.reshape(q.right.shape), np.tile(w, heads), eps)
        yield Mistake("head_grouping", "graph", f"all {heads} heads are normed together", together)
    elif kind.size and q.at.stage.heads is not None:
        apart = _of(q, x.reshape(-1, q.config.head_dim), np.ones(q.config.head_dim), eps)
        yield Mistake("head_grouping", "graph", "every head is normed by itself", apart.reshape(x.shape) * w)
    yield from _other_biases(q, x, w)
    if name:
        yield from _free_weight(q, _of(q, x, np.ones_like(w), eps) - kind.bias(q.at), w, name)


def _of(q: Question, x: Values, w: Values, eps: float, b: Values | None = None) -> Values:
    """The norm of rows x with a weight and an epsilon, and another bias than its own if one is given."""
    kind = _norm_of(q)
    if not isinstance(kind, LayerNorm):
        return np.asarray(ops.rms_norm(x, w, eps))
    bias = kind.bias(q.at) if b is None else b
    return np.asarray(layer_norm(x, w, bias if bias.size == x.shape[1] else np.resize(bias, x.shape[1]), eps))


def _other_means(q: Question, x: Values, w: Values) -> Iterator[tuple[str, Values]]:
    """What the other kind of norm makes of it, or a variance of a sample."""
    kind, bias = _norm_of(q), _norm_of(q).bias(q.at)
    if not isinstance(kind, LayerNorm):
        centred = x - x.mean(axis=1, keepdims=True)
        yield "the mean is taken away, as a layer norm does", _of(q, centred, w, kind.eps)
        return
    yield "the mean is not taken away, as in an RMS norm", ops.rms_norm(x, w, kind.eps) + bias
    sample = np.sqrt(np.square(kind.centred(x)).sum(axis=1, keepdims=True) / max(x.shape[1] - 1, 1) + kind.eps)
    yield "the variance is divided by the channels less one", kind.centred(x) / sample * w + bias


def _of_another_stage(q: Question) -> Iterator[Mistake]:
    """The same norm of another point of the layer, as where blocks are taken to be side by side or one by one."""
    kind, read = _norm_of(q), q.at.stage.reads[0]
    for stage, values in q.known.items():
        if stage != read and values.shape == q.x["x"].shape and not np.array_equal(values, q.x["x"]):
            both = f"the sum of {read} and {stage} is normed", values + q.x["x"]
            for words, x in ((f"{stage} is normed in place of {read}", values), both):
                predicted = _of(q, kind.rows(x), kind.weight(q.at), kind.eps).reshape(q.right.shape)
                yield Mistake("unknown", "graph", words, predicted, setting=(words,))


def _other_biases(q: Question, x: Values, w: Values) -> Iterator[Mistake]:
    """A bias that is not added, or another one than the model's."""
    eps = _norm_of(q).eps
    for name in q.at.stage.biases:
        own = vector(q, name)
        for cause, how, other in bias_variants(q, name, turned=False):
            yield Mistake(cause, "weights", f"{name} {how}", _of(q, x, w, eps, other).reshape(q.right.shape), name)
        plain = _of(q, x, w, eps, np.zeros_like(own)).reshape(q.right.shape)
        added, words = (q.y - plain).mean(axis=0), f"another bias than {name} is added"
        yield Mistake("bias_wrong", "weights", words, plain + added, name, rank=FREE)


def _epsilons(q: Question, x: Values, w: Values) -> Iterator[Mistake]:
    kind = _norm_of(q)
    centred, y, own = kind.centred(x), q.y.reshape(x.shape) - kind.bias(q.at), kind.eps
    direction = centred * w
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (y * direction).sum(axis=1) / (direction * direction).sum(axis=1)
        fitted = float(np.median(1 / scale**2 - np.square(centred).mean(axis=1)))
    for rank, values in ((NAMED, _EPSILONS), (FITTED, (float(f"{fitted:.2g}"), fitted))):
        for eps in values:
            if eps != own and np.isfinite(eps) and eps > -1:
                words = f"epsilon is {eps:.3g} in place of {own:.3g}"
                predicted = _of(q, x, w, max(eps, 0.0)).reshape(q.right.shape)
                yield Mistake("rms_norm_eps", "config", words, predicted, rank=rank, setting=(eps,))


def _other_norms(q: Question, name: str | None) -> Iterator[str]:
    shape = None if name is None else q.at.model.weight(name).shape
    for stage in q.graph.stages():
        for other in stage.weights if isinstance(stage.kind, Norm) else ():
            if other != name and other in q.at.model and q.at.model.weight(other).shape == shape:
                yield other


def _free_weight(q: Question, plain: Values, w: Values, name: str) -> Iterator[Mistake]:
    """Whatever weight the record implies: enough tokens prove that it is one and the same for all of them."""
    if len(plain) < 2:
        return
    energy, bias = np.square(plain).sum(axis=0), _norm_of(q).bias(q.at)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(energy > 0, ((q.y.reshape(plain.shape) - bias) * plain).sum(axis=0) / energy, w)
    differing = int(q.wrong_channels.reshape(-1, w.size).any(axis=0).sum())
    words = f"{name} acts with other values in {differing} of {w.size} channels"
    yield Mistake("unknown", "weights", words, (plain * found + bias).reshape(q.right.shape), name, rank=FREE)


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
        for cause, how, other in bias_variants(q, name, turned=which != "v"):
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


def bias_variants(q: Question, name: str, turned: bool) -> Iterator[tuple[str, str, Values]]:
    """What is added in place of a bias: cause, words, values. turned : its channels may be in rotary order."""
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
