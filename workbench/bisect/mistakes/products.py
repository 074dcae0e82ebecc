"""Mistakes of a product with a weight: another tensor, another order, another input, a bias too many."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.graph import BIAS, WEIGHT, Array, Heads, Values
from kernels.kinds.product import Product
from kernels.matmul.floats import matmul_f64
from kernels.rows.dequantize import dequantize
from kernels.rows.reach import BLOCK
from workbench.bisect.mistakes.mistake import FITTED, FREE, Flags, Mistake, Question, least_squares
from workbench.bisect.mistakes.norms import bias_variants, vector
from workbench.bisect.traces.spans import evaluated
from workbench.bisect.weights.other_tensors import of_others

_LARGE = 1 << 26  # elements of a weight beyond which it is not dequantized as a whole
_EXCHANGED = (
    (".gate_proj", ".up_proj", "gate_up_swapped"),
    ("q_proj", "k_proj", "qk_swapped"),
    ("k_proj", "v_proj", "qk_swapped"),
    ("q_proj", "v_proj", "qk_swapped"),
)


def product_mistakes(q: Question) -> Iterator[Mistake]:
    """Every tensor of the stage in turn: Q|K|V has three."""
    yield from _unfinished(q)
    for name, part in parts(q):
        if q.wrong_channels[part].any():
            for cause, words, product in (*_other_tensors(q, name), *_rearranged(q, name)):
                predicted = q.with_channels(part, q.kind(Product).finished(q.at, product, part))
                yield Mistake(cause, "weights", words, predicted, name, exact=product.dtype == np.float32)
    yield from _missing_columns(q)
    yield from _other_input(q)
    yield from _other_biases(q)
    yield from _constant(q)


def _unfinished(q: Question) -> Iterator[Mistake]:
    """A product that is not multiplied by its factor, or not bent below its bound."""
    kind = q.kind(Product)
    for words, other in (
        (f"the product is not multiplied by {kind.times:.6g}", replace(kind, times=1.0)),
        (f"the product is not bent below {kind.cap or 0:.6g}", replace(kind, cap=None)),
    ):
        if other != kind:
            yield Mistake("scaled", "graph", words, evaluated(q.at.doing(other), q.x), exact=True, setting=(words,))


def parts(q: Question) -> Iterator[tuple[str, Flags]]:
    """The tensors that are multiplied, each with its output channels."""
    start = 0
    count = q.right.shape[1]
    for name in q.tensors:
        if name.endswith(".weight"):
            size = q.at.model.weight(name).shape[0]
            part = np.zeros(count, dtype=bool)
            part[start : start + size] = True
            start += size
            yield name, part


def stage_input(q: Question) -> Values:
    """What the stage multiplies, float64 (tokens, in)."""
    return q.x["x"]


def _input_heads(q: Question) -> Heads | None:
    """How the channels that are multiplied are heads; None if they are not."""
    read = q.read("x")
    return None if read is None else read.heads


def _multiply(q: Question, name: str) -> Array:
    return q.at.path.matmul(np.ascontiguousarray(stage_input(q), dtype=q.at.path.dtype), q.at.model.weight(name))


def _other_tensors(q: Question, name: str) -> Iterator[tuple[str, str, Array]]:
    model = q.at.model

    def fits(other: str) -> bool:
        return other in model and model.weight(other).shape == model.weight(name).shape

    for one, two, cause in _EXCHANGED:
        for mine, other in ((one, two), (two, one)):
            if mine in name and fits(name.replace(mine, other)):
                yield cause, f"the product is with {name.replace(mine, other)}", _multiply(q, name.replace(mine, other))
    for cause, other in of_others(name, q.config):
        if fits(other):
            yield cause, f"the product is with {other}", _multiply(q, other)
    if name == "lm_head.weight" and not q.config.tie_word_embeddings:
        yield "tied_embedding", "the head is the embedding matrix", _multiply(q, "model.embed_tokens.weight")
    for layer in range(q.config.num_hidden_layers):
        other = name.replace(f"layers.{q.at.layer}.", f"layers.{layer}.")
        if q.at.layer is not None and layer != q.at.layer and fits(other):
            yield "wrong_layer", f"the product is with {other}", _multiply(q, other)


def _rearranged(q: Question, name: str) -> Iterator[tuple[str, str, Array]]:
    weight, x = q.at.model.weight(name), stage_input(q)
    rows, columns = weight.shape
    if rows * columns > _LARGE:
        return
    values = dequantize(weight).astype(np.float64)
    if rows == columns:
        yield "transposed", f"{name} is transposed", x @ values
    else:
        yield "transposed", f"{name} is transposed and read with its own shape", x @ values.T.reshape(rows, columns).T
        words = f"{name} is read with the shape of its transpose and transposed"
        yield "transposed", words, x @ values.reshape(columns, rows)
    heads = _input_heads(q)
    if heads is not None:
        d = heads.size
        for words, order in _head_orders(columns // d):
            moved = values.reshape(rows, -1, d)[:, order].reshape(rows, columns)
            yield "rows_permuted", f"{name} has the columns of its heads {words}", x @ moved.T


def _head_orders(heads: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
    plain = np.arange(heads)
    yield "in reverse order", plain[::-1]
    yield "moved by one", np.roll(plain, 1)
    yield "moved back by one", np.roll(plain, -1)


def _missing_columns(q: Question) -> Iterator[Mistake]:
    """Runs of input channels that count with another factor than 1: a head that is silent, a block that is scaled."""
    names = [name for name, _ in parts(q)]
    x = stage_input(q)
    heads = _input_heads(q)
    size = BLOCK if heads is None else heads.size
    runs = x.shape[1] // size
    if len(names) != 1 or x.shape[1] % size or not 1 < runs <= 256 or q.right.shape[1] * runs * len(x) > _LARGE:
        return
    weight = q.at.model.weight(names[0])
    shares = np.stack([_with_runs(x, run, size, lambda kept: matmul_f64(kept, weight)) for run in range(runs)])
    flat = shares.reshape(runs, -1)
    found = least_squares(flat @ flat.T, flat @ (q.y - q.right).reshape(-1), 1e-10)
    if found is None:
        return
    factors = found + 1
    nearly, digits = (1e-3, 3) if q.most is None else (0.05, 1)  # rounded weights blur what is found
    other = np.abs(factors - 1) > nearly
    if not other.any() or other.sum() > runs // 2:
        return
    rounded = np.round(factors, digits) + 0.0
    predicted = q.right + np.tensordot(np.where(other, rounded - 1, 0), shares, axes=1)
    what = "head" if heads is not None else f"run of {size} input channels"
    counts = sorted(set(rounded[other].tolist()))
    words = f"{what} {int(np.flatnonzero(other)[0])} and {int(other.sum()) - 1} more count {counts[0]:g} times"
    cause = {0.0: "zeroed", -1.0: "sign_flipped"}.get(counts[0], "scaled") if len(counts) == 1 else "unknown"
    yield Mistake(cause, "weights", words, predicted, names[0], rank=FITTED)


def _with_runs(x: Values, run: int, size: int, multiply: Callable[[Values], Values]) -> Values:
    kept = np.zeros_like(x)
    kept[:, run * size : (run + 1) * size] = x[:, run * size : (run + 1) * size]
    return multiply(kept)


def _other_input(q: Question) -> Iterator[Mistake]:
    """The right weight with what another stage returned."""
    own, x = q.at.stage.reads[0], q.x["x"]
    for stage, values in q.known.items():
        if stage != own and values.shape == x.shape and not np.array_equal(values, x):
            ready = np.ascontiguousarray(values, dtype=q.at.path.dtype)
            product = np.concatenate([q.at.path.matmul(ready, q.at.model.weight(n)) for n, _ in parts(q)], axis=1)
            product = q.kind(Product).finished(q.at, product)
            words = f"the product is with {stage} in place of {own}"
            yield Mistake("unknown", "graph", words, product, exact=product.dtype == np.float32)


def _other_biases(q: Question) -> Iterator[Mistake]:
    """A bias of the product that is not added, or another one than the model's."""
    kind = q.kind(Product)
    for name in q.at.stage.biases if kind.cap is None else ():
        times = kind.factor(q.at, name.removesuffix(BIAS) + WEIGHT) if kind.bias_scaled else kind.times
        for cause, how, other in bias_variants(q, name, turned=False):
            words = f"{name} {how}"
            yield Mistake(cause, "weights", words, q.right + times * (other - vector(q, name)), name, exact=True)


def _constant(q: Question) -> Iterator[Mistake]:
    """One vector added to every token."""
    if len(q.y) < 3:
        return
    offset = (q.y - q.right).mean(axis=0)
    own = next(iter(q.at.stage.biases), None)
    words = f"another bias than {own} is added" if own else "a bias is added that the model does not have"
    yield Mistake("bias_wrong", "weights", words, q.right + offset, own or q.tensors[0], rank=FREE)
