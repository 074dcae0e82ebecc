"""Mistakes of attention: score scale, mask, which heads share keys and values, how finely they are kept."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Values
from kernels.kinds.attention import Attention
from kernels.stages import Site
from workbench.bisect.mistakes.heads import Heads, Try
from workbench.bisect.mistakes.masks import masked
from workbench.bisect.mistakes.mistake import FITTED, NAMED, Mistake, Question
from workbench.bisect.mistakes.norms import vector
from workbench.bisect.mistakes.product_roundings import Rule, float_rules, in_groups, to_grid_of

_SOME_ROWS = 24  # query rows of a long prompt that a first look is taken at
_LEFT = 0.3  # of the gap on those rows, beyond which a mistake is not tried on all
_STEPS = 48  # of a golden-section search: the scale to eleven digits
_GOLDEN = (5**0.5 - 1) / 2


def attention_mistakes(q: Question) -> Iterator[Mistake]:
    """Every family in turn; of a long prompt, what fails on some rows is not tried on all of them."""
    heads = Heads.of(q)
    wrong = np.flatnonzero(q.wrong_tokens)
    rows = [_spread(np.arange(len(heads.q))), _spread(wrong)]
    some = replace(heads, rows=np.unique(np.concatenate(rows)))
    for family in (_scales, _sinks, masked, _groupings, _sources, _precisions):
        for attempt in family(q, some):
            predicted = attempt.attend(some)
            if len(some.rows) < len(heads.rows):
                left, gap = (np.linalg.norm(q.y[some.rows] - x) for x in (predicted, q.right[some.rows]))
                if gap and left > _LEFT * gap:  # there is none where a mistake is only imagined
                    continue
                predicted = attempt.attend(heads)
            grid = attempt.factor == "numerics"
            yield Mistake(
                attempt.cause,
                attempt.factor,
                attempt.explanation,
                predicted,
                rank=attempt.rank,
                rounded=grid,
                setting=attempt.setting or (attempt.explanation,),
            )
    yield from _shapes(q)


def _spread(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some of the rows, from the first to the last."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, _SOME_ROWS).astype(np.int64))]


def _scales(q: Question, some: Heads) -> Iterator[Try]:
    kind = q.kind(Attention)
    d, count = q.config.head_dim, kind.heads  # where q and k are joined of parts, those are wider
    joined = [(kind.head_dim**-0.5, f"scaled by 1/sqrt({kind.head_dim})")] if kind.head_dim != d else []
    for scale, words in (
        *joined,
        (d**-0.5, "scaled by 1/sqrt(head_dim)"),
        (1.0, "not scaled"),
        (1 / d, "scaled by 1/head_dim"),
        (d**-0.25, "scaled by head_dim^-1/4"),
        ((count * d) ** -0.5, "scaled by 1/sqrt(heads * head_dim)"),
        (q.config.hidden_size**-0.5, "scaled by 1/sqrt(hidden)"),
        (d**0.5, "multiplied by sqrt(head_dim)"),
    ):
        if scale == kind.scale:
            continue
        words = f"attention scores are {words}"
        yield Try("attention_scale", "graph", words, partial(Heads.attend, scale=scale), setting=(scale,))
    for scale in _fitted_scales(q, some):
        words = f"attention scores are scaled by {scale:.6g} in place of {kind.scale:.6g}"
        yield Try("attention_scale", "graph", words, partial(Heads.attend, scale=scale), FITTED, (scale,))
    if kind.cap is not None:
        words = "attention scores are not capped"
        yield Try(
            "attention_scale", "graph", words, partial(Heads.attend, scale=kind.scale, cap=np.inf), setting=(words,)
        )
    for cap in (cap for cap in (20.0, 30.0, 50.0) if cap != kind.cap):
        words = f"attention scores are capped at {cap:g}"
        yield Try("unknown", "graph", words, partial(Heads.attend, scale=kind.scale, cap=cap))


def _sinks(q: Question, some: Heads) -> Iterator[Try]:
    """Other scores beside those of the keys than the sinks of the layer."""
    scale, sinks = q.kind(Attention).scale, some.sinks
    if sinks is None:
        return
    others: list[tuple[str, str, Values | None]] = [
        ("attention_sink", "the sinks are left out", None),
        ("attention_sink", "the sinks are subtracted", -sinks),
        ("attention_sink", "every sink is 0", np.zeros_like(sinks)),
        ("rows_permuted", "every head has the sink of the next one", np.roll(sinks, -1)),
        ("rows_permuted", "every head has the sink of the one before", np.roll(sinks, 1)),
        ("rows_permuted", "sinks are in reverse order", sinks[::-1]),
    ]
    own = q.at.stage.weights[0]
    for layer in range(q.config.num_hidden_layers):
        other = own.replace(f"layers.{q.at.layer}.", f"layers.{layer}.")
        if other != own:
            others.append(("wrong_layer", f"the sinks are {other}", vector(q, other)))
    for cause, words, changed in others:
        yield Try(cause, "graph", words, partial(_with_sinks, sinks=changed, scale=scale), setting=(words,))


def _with_sinks(heads: Heads, sinks: Values | None, scale: float) -> Values:
    return replace(heads, sinks=sinks).attend(scale)


def _fitted_scales(q: Question, some: Heads) -> Iterator[float]:
    """The score scale that comes closest, by golden-section search over its logarithm."""
    plain = q.kind(Attention).scale
    if not q.gap:
        return

    def gap(point: float) -> float:
        return float(np.linalg.norm(some.attend(float(np.exp(point))) - q.y[some.rows]))

    grid = np.log(plain) + np.linspace(np.log(1 / 64), np.log(64), 25)
    middle = int(np.argmin([gap(point) for point in grid]))
    low, high = grid[max(middle - 1, 0)], grid[min(middle + 1, len(grid) - 1)]
    for _ in range(_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if gap(left) < gap(right) else (left, high)
    fitted = float(np.exp((low + high) / 2))
    yield plain * round(fitted / plain, 3)
    yield fitted


def _groupings(q: Question, some: Heads) -> Iterator[Try]:
    kind = q.kind(Attention)
    count, groups = kind.heads, kind.kv_heads
    if groups == 1:
        return
    grouped, scale = some.owners(), kind.scale
    for words, owner in (
        ("heads share keys and values in turn instead of in groups", np.arange(count) % groups),
        ("all heads use the first key and value head", grouped * 0),
        ("key and value heads are in reverse order", groups - 1 - grouped),
        ("heads use the key and value head after their own", (grouped + 1) % groups),
        ("heads use the key and value head before their own", (grouped - 1) % groups),
        ("only the first key and value heads are used", np.minimum(np.arange(count), groups - 1)),
    ):
        if not np.array_equal(owner, grouped):
            yield Try("head_grouping", "config", words, partial(Heads.attend, scale=scale, owner=owner))


def _sources(q: Question, some: Heads) -> Iterator[Try]:
    """Other stages in the place of keys and values, of this layer or of others: as of one that shares with another."""
    scale, own, layers = q.kind(Attention).scale, q.at.stage.inputs, q.config.num_hidden_layers

    def attended(words: str, k: Values | None = None, v: Values | None = None) -> Try:
        def attend(heads: Heads) -> Values:
            keys, values = (
                given if other is None else other.reshape(given.shape) for given, other in ((heads.k, k), (heads.v, v))
            )
            return replace(heads, k=keys, v=values).attend(scale)

        return Try("kv_source", "graph", words, attend, setting=(words,))

    for name, values in q.known.items():
        if values.size == some.k.size and name != own["k"]:
            yield attended(f"{name} stands in place of keys", k=values)
        if values.size == some.v.size and name != own["v"]:
            yield attended(f"{name} stands in place of values", v=values)
    for layer in range(layers):
        k, v = (q.known.get(str(Site(layer, own[part]))) for part in "kv")
        if k is not None and v is not None and (k.size, v.size) == (some.k.size, some.v.size):
            yield attended(f"keys and values are those of layer {layer}", k, v)


def cache_rules(size: int) -> Iterator[Rule]:
    """Ways of keeping keys and values, which are rounded head by head."""
    yield from float_rules()
    yield "8 bits per head", partial(to_grid_of, axis=-1, top=127)
    yield "8 bits per tensor", partial(to_grid_of, axis=None, top=127)
    for block in (16, 32):
        if size % block == 0:
            yield f"8 bits in groups of {block}", partial(in_groups, size=block, top=127)
            yield f"Q8_0 in groups of {block}", partial(_half_scaled, block=block)
            yield f"4 bits in groups of {block}", partial(in_groups, size=block, top=7)


def _half_scaled(x: Values, block: int) -> Values:
    """8 bits with a step in half precision, with which the codes are made too."""
    groups = x.reshape(*x.shape[:-1], -1, block)
    step = (np.abs(groups).max(axis=-1, keepdims=True) / 127).astype(np.float16).astype(np.float64)
    codes = np.round(groups / np.where(step == 0, 1, step))
    return np.asarray((codes * step).reshape(x.shape))


def _precisions(q: Question, some: Heads) -> Iterator[Try]:
    del some
    scale = q.kind(Attention).scale

    def kept(heads: Heads, keep: Callable[[Values], Values], which: str) -> Values:
        q, k, v = (keep(getattr(heads, part)) if part in which else getattr(heads, part) for part in "qkv")
        return replace(heads, q=q, k=k, v=v).attend(scale)

    for words, keep in cache_rules(q.kind(Attention).head_dim):
        for which, what in (("kv", "keys and values are kept"), ("k", "keys are kept"), ("v", "values are kept")):
            yield Try(
                "kv_precision", "numerics", f"{what} in {words}", partial(kept, keep=keep, which=which), NAMED, (words,)
            )
        sentence = f"queries, keys and values are rounded to {words}"
        yield Try("kv_precision", "numerics", sentence, partial(kept, keep=keep, which="qkv"), NAMED, (words,))


def _shapes(q: Question) -> Iterator[Mistake]:
    """The right values in the wrong places."""
    tokens, count, d = len(q.right), q.kind(Attention).heads, q.kind(Attention).value_size
    right = q.right.reshape(tokens, count, d)
    mixed = right.swapaxes(0, 1).reshape(tokens, count * d)
    yield Mistake("transposed", "graph", "heads and tokens are not transposed back", mixed)
    inner = right.swapaxes(1, 2).reshape(tokens, count * d)
    yield Mistake("transposed", "graph", "heads and their channels are transposed", inner)
    for words, order in (
        ("in reverse order", np.arange(count)[::-1]),
        ("moved by one", np.roll(np.arange(count), 1)),
        ("moved back by one", np.roll(np.arange(count), -1)),
    ):
        yield Mistake("rows_permuted", "graph", f"heads are {words}", right[:, order].reshape(tokens, -1))
