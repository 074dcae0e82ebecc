"""Mistakes that any stage can make: the right output multiplied, silenced, rearranged, rounded, or of other tokens."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Values
from kernels.kinds.attention import Attention
from kernels.kinds.bias import Bias
from kernels.kinds.embed import Embed
from kernels.kinds.norm import Norm
from kernels.kinds.product import Product
from kernels.rows.dequantize import dequantize_rows
from workbench.bisect.mistakes.attention import cache_rules
from workbench.bisect.mistakes.mistake import FITTED, FREE, NAMED, Flags, Mistake, Question
from workbench.bisect.mistakes.product_roundings import activation_rules, half, weight_rules
from workbench.bisect.traces.spans import evaluated
from workbench.bisect.verdict import Factor
from workbench.bisect.weights.roundings import rounded

_CHUNK = 4096  # rows of an embedding matrix that recorded rows are compared with at once


def channel_mistakes(q: Question) -> Iterator[Mistake]:
    """The right output with other factors or in another order, in the wrong channels or in all of their tensors.

    What a weight makes is taken without the bias; that the sum of both is changed is no matter of one of them.
    """
    if (added := _added(q)) is None:
        yield from _of_parts(q, _tensor_of(q))
        return
    for mistake in _of_parts(replace(q, y=q.y - added, right=q.right - added), _tensor_of(q)):
        yield replace(mistake, predicted=mistake.predicted + added)
    yield from _of_parts(q, None)


def _added(q: Question) -> Values | None:
    """What biases add to every token, (channels,); None where nothing is added to what a weight makes."""
    kind = q.at.kind
    if not q.at.stage.biases or not q.at.stage.weights:
        return None
    if isinstance(kind, Norm):
        return np.resize(kind.bias(q.at), q.right.shape[1])
    if isinstance(kind, Product) and kind.cap is None:
        return np.asarray(kind.finished(q.at, np.zeros(q.right.shape[1], q.at.path.dtype)), dtype=np.float64)
    return None


def _of_parts(q: Question, name: str | None) -> Iterator[Mistake]:
    yield from _of_channels(q, q.wrong_channels, name)
    if not np.array_equal(q.wrong_tensors, q.wrong_channels):
        yield from _of_channels(q, q.wrong_tensors, name)


def _of_channels(q: Question, part: Flags, name: str | None) -> Iterator[Mistake]:
    y, right = q.y[:, part], q.right[:, part]
    where = "" if part.all() else f" in {int(part.sum())} of {part.size} channels"
    factor: Factor = "weights" if name else "graph"
    words = f"the output is zero{where}"
    yield Mistake("zeroed", factor, words, q.with_channels(part, np.zeros_like(y)), name)
    words = f"the output has the opposite sign{where}"
    yield Mistake("sign_flipped", factor, words, q.with_channels(part, -right), name)
    energy = float((right * right).sum())
    fitted = float((y * right).sum()) / energy if energy else 0.0
    for scale in dict.fromkeys((round(fitted, 2), round(fitted, 3), fitted)):
        words = f"the output is multiplied by {scale:.6g}{where}"
        yield Mistake("scaled", factor, words, q.with_channels(part, right * scale), name, rank=FITTED)
    yield from _own_factors(q, part, factor, name)
    yield from _rearranged(q, part, factor, name)


def _own_factors(q: Question, part: Flags, factor: Factor, name: str | None) -> Iterator[Mistake]:
    """Every wrong channel with a factor of its own, which only several tokens can prove."""
    if len(q.y) < 3 or isinstance(q.at.kind, Norm):  # of a norm they are another weight
        return
    y, right = q.y[:, part], q.right[:, part]
    energy = np.square(right).sum(axis=0)
    factors = (y * right).sum(axis=0) / np.where(energy > 0, energy, 1)
    words = f"channels are multiplied by factors between {factors.min():.4g} and {factors.max():.4g}"
    yield Mistake("scaled", factor, words, q.with_channels(part, right * factors), name, rank=FREE)


def _rearranged(q: Question, part: Flags, factor: Factor, name: str | None) -> Iterator[Mistake]:
    found = q.at.stage.heads
    if found is not None and not isinstance(q.at.kind, Attention):
        d, last = found.size, int(q.right.shape[1] - q.parts.get("v", np.zeros(0)).sum())  # what is rotated
        heads = q.right[:, :last].reshape(len(q.y), -1, d)
        wrong = np.asarray(part[:last].reshape(-1, d).any(axis=1))
        for shape, words in (((2, d // 2), "adjacent-pair"), ((d // 2, 2), "half-split")):
            order = np.arange(d).reshape(shape).T.reshape(-1)
            moved = np.where(wrong[None, :, None], heads[:, :, order], heads).reshape(len(q.y), last)
            predicted = np.concatenate([moved, q.right[:, last:]], axis=1)
            yield Mistake("permuted_rope", factor, f"channels are in {words} rotary order", predicted, name)
    for first, size in _runs(q):
        inside = np.zeros_like(part)
        inside[first : first + size] = part[first : first + size]
        if inside.sum() > 1 and (part & ~inside).sum() == 0:
            source = _matched(q.y[:, inside], q.right[:, inside])
            moved_count = int((source != np.arange(len(source))).sum())
            words = f"{moved_count} channels are in another order"
            predicted = q.with_channels(inside, q.right[:, inside][:, source])
            yield Mistake("rows_permuted", factor, words, predicted, name, rank=FITTED)
            if inside.sum() < size <= _CHUNK and len(q.y) > 2 and (len(q.parts) < 2 or size < len(part)):
                source = first + _matched(q.y[:, inside], q.right[:, first : first + size])
                words = f"{int(inside.sum())} channels are others of the same tensor"
                predicted = q.with_channels(inside, q.right[:, source])
                yield Mistake("rows_permuted", factor, words, predicted, name, rank=FITTED)


def _runs(q: Question) -> Iterator[tuple[int, int]]:
    """Channels that one tensor makes: Q, K and V apart, then all of them."""
    if len(q.parts) > 1:
        for part in q.parts.values():
            yield int(part.argmax()), int(part.sum())
    yield 0, q.right.shape[1]


def _matched(y: Values, right: Values) -> NDArray[np.int64]:
    """For every channel of y the channel of the right output that is most like it over all tokens."""
    if y.shape[1] > _CHUNK or len(y) < 2:
        source = np.empty(y.shape[1], np.int64)
        source[np.argsort(y[0], kind="stable")] = np.argsort(right[0], kind="stable")
        return source
    squares = np.square(right).sum(axis=0)
    return np.asarray((squares[None, :] - 2 * (y.T @ right)).argmin(axis=1))


def _tensor_of(q: Question) -> str | None:
    """The tensor behind the first wrong channel; of a bias it is not what makes the whole sum so."""
    if not q.tensors or isinstance(q.at.kind, Bias):
        return None
    channel = int(np.flatnonzero(q.wrong_channels)[0])
    names = zip(q.parts.values(), q.tensors, strict=False)
    return next((name for part, name in names if part[channel]), q.tensors[0])


def rounded_outputs(q: Question) -> Iterator[Mistake]:
    """The output in a narrower format; keys and values so rounded are those of a cache."""
    shape = q.right.shape
    for what, part, head_dim in _kept_in_cache(q):
        heads = q.right[:, part].reshape(len(q.right), -1, head_dim)
        for words, keep in cache_rules(head_dim):
            predicted = q.with_channels(part, keep(heads).reshape(len(heads), -1))
            sentence = f"{what} are kept in {words}"
            yield Mistake("kv_precision", "numerics", sentence, predicted, rounded=True, setting=(words,))
    for words, kept in (("bfloat16", rounded(q.right.astype(np.float32), 7)), ("float16", half(q.right))):
        sentence, values = f"the output is rounded to {words}", kept.astype(np.float64)
        yield Mistake("dtype_truncated", "numerics", sentence, values, rounded=True, setting=(sentence,))
    if any(isinstance(reader.kind, Product) for reader in q.readers):
        for words, keep in activation_rules(shape[1]):
            sentence = f"the output is rounded to {words} for the next product"
            yield Mistake(
                "activation_quantization",
                "numerics",
                sentence,
                keep(q.right),
                rank=FITTED,
                rounded=True,
                setting=(words,),
            )


def _kept_in_cache(q: Question) -> Iterator[tuple[str, Flags, int]]:
    """What of a stage attention reads as keys or as values: its name, its channels and those of a head."""
    for reader in q.readers:
        if isinstance(reader.kind, Attention):
            channels = np.arange(q.right.shape[1])
            if reader.inputs["k"] == q.site.stage:
                yield "keys", channels >= 0, reader.kind.head_dim
            if reader.inputs["v"] == q.site.stage:
                yield "values", channels >= reader.kind.value_start, reader.kind.value_size


def other_rows(q: Question) -> Iterator[Mistake]:
    """Rows of other tokens."""
    count = len(q.right)
    if count < 2:
        return
    for words, rows in (
        ("every row is that of the token before", np.roll(q.right, 1, axis=0)),
        ("every row is that of the token after", np.roll(q.right, -1, axis=0)),
        ("every row is that of the last token", np.repeat(q.right[-1:], count, axis=0)),
        ("every row is that of the first token", np.repeat(q.right[:1], count, axis=0)),
        ("rows are in reverse order", q.right[::-1]),
        ("every row is the mean over the tokens", np.repeat(q.right.mean(axis=0, keepdims=True), count, axis=0)),
    ):
        yield Mistake("token_scope", "graph", words, rows)
    source = np.square(q.y[:, None] - q.right[None]).sum(axis=2).argmin(axis=1) if count <= 64 else np.arange(count)
    if not np.array_equal(source, np.arange(count)):
        yield Mistake("token_scope", "graph", "rows are those of other tokens", q.right[source], rank=FITTED)


def embedding_mistakes(q: Question) -> Iterator[Mistake]:
    """A factor, another matrix, other tokens."""
    hidden, scale = q.right.shape[1], q.kind(Embed).scale
    if scale == 1:
        words = "embeddings are multiplied by sqrt(hidden)"
        yield Mistake("scaled", "graph", words, q.right * hidden**0.5)
    else:
        words = f"embeddings are not multiplied by {scale:.6g}"
        yield Mistake("scaled", "graph", words, q.right / scale)
    for cause, words, change in weight_rules(hidden):
        predicted = change(q.right / scale) * scale
        yield Mistake(cause, "weights", f"weights are {words}", predicted, q.tensors[0], rounded=True)
    model, tokens = q.at.model, np.array(q.at.tokens)
    yield from _of_other_layers(q)
    if not q.config.tie_word_embeddings and not q.kind(Embed).size:
        rows = scale * np.asarray(q.at.path.embed(model.weight("lm_head.weight"), tokens), dtype=np.float64)
        yield Mistake("tied_embedding", "weights", "embeddings come from the head", rows, q.tensors[0])
    found = _nearest_tokens(q)
    if found is not None and not np.array_equal(found, tokens):
        rows = evaluated(replace(q.at, tokens=tuple(found.tolist())), {}).astype(np.float64)
        shifts = set(((found - tokens) % q.config.vocab_size).tolist())
        shown = ", ".join(map(str, found[:6].tolist()))
        if len(shifts) == 1 and len(tokens) > 1:
            words = f"rows of the embedding matrix are {next(iter(shifts))} further on"
            yield Mistake("rows_permuted", "weights", words, rows, q.tensors[0], rank=NAMED)
        yield Mistake("token_scope", "graph", f"the rows are those of tokens {shown}", rows, rank=FITTED)


def _of_other_layers(q: Question) -> Iterator[Mistake]:
    """The channels of the next layer, or of the one before, where a table has those of all layers side by side."""
    kind, columns = q.kind(Embed), q.at.model.weight(q.tensors[0]).shape[1]
    for start in (kind.start + kind.size, kind.start - kind.size) if kind.size else ():
        if 0 <= start <= columns - kind.size:
            words = f"embeddings are those of layer {start // kind.size}"
            tokens = np.array(q.at.tokens)[q.tokens(np.arange(len(q.right)))]
            at = replace(q.at.doing(replace(kind, start=start)), tokens=tuple(tokens.tolist()))
            predicted = evaluated(at, {}).astype(np.float64)
            yield Mistake("wrong_layer", "weights", words, predicted, q.tensors[0])


def _nearest_tokens(q: Question) -> NDArray[np.int64] | None:
    """The token whose embedding every recorded row is nearest to."""
    weight, y = q.at.model.weight(q.tensors[0]), q.y / q.kind(Embed).scale
    best, found = np.full(len(q.y), np.inf), np.zeros(len(q.y), dtype=np.int64)
    if not np.isfinite(q.y).all():
        return None
    kind, block = q.kind(Embed), weight.type.block
    whole = not kind.size or kind.start % block.elements or kind.size % block.elements  # else its blocks are enough
    own = slice(*(count // block.elements * block.bytes for count in (kind.start, kind.start + kind.size)))
    for start in range(0, len(weight.rows), _CHUNK):
        stored = weight.rows[start : start + _CHUNK]
        if whole:
            rows = kind.part(dequantize_rows(weight.type, np.ascontiguousarray(stored), weight.shape[1]))
        else:
            rows = dequantize_rows(weight.type, np.ascontiguousarray(stored[:, own]), kind.size)
        far = np.square(rows, dtype=np.float64).sum(axis=1)[None, :] - 2 * (y @ rows.T.astype(np.float64))
        nearest = far.argmin(axis=1)
        closer = far[np.arange(len(far)), nearest] < best
        found[closer] = nearest[closer] + start
        best = np.minimum(best, far.min(axis=1))
    return found


def head_mistakes(q: Question) -> Iterator[Mistake]:
    """Logits that went through something else."""
    if q.readers or q.at.layer is not None:
        return
    for cap in (20.0, 30.0, 50.0, 100.0):
        words = f"logits are capped at {cap:g}"
        yield Mistake("unknown", "graph", words, cap * np.tanh(q.right / cap))
