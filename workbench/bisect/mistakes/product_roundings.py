"""Products whose activations or weights were rounded in a way that the engine does not admit to."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from kernels.graph import Values
from kernels.kinds.product import Product
from kernels.matmul.activations import quantize_q8_0, quantize_q8_k, quantize_q8_k_apr
from kernels.rows.dequantize import dequantize_rows
from workbench.bisect.mistakes.mistake import FREE, Flags, Mistake, Question, least_squares
from workbench.bisect.mistakes.products import parts, stage_input
from workbench.bisect.weights.roundings import cut, rounded

_LARGE = 1 << 22  # elements of a weight that are tried; beyond, some of its rows
_NEAR = 0.2  # of the norm of the activations; rounding to 4 bits costs 0.1
_LEAST = 1e-30
Rule = tuple[str, Callable[[Values], Values]]


def product_roundings(q: Question) -> Iterator[Mistake]:
    """The right product with rounded activations, then with rounded weights, then with any other activations."""
    x = stage_input(q)
    chosen = _chosen(q, x.shape[1])
    weights = np.concatenate([_rows(q, name, chosen[part]) for name, part in parts(q)])
    base = q.with_channels(q.wrong_tensors, q.y[:, q.wrong_tensors])

    def predicted(values: Values) -> Values:
        result = base.copy()
        result[:, chosen] = q.kind(Product).finished(q.at, values, chosen)
        return result

    for words, keep in activation_rules(x.shape[1]):
        sentence, values = f"activations are rounded to {words} first", predicted(keep(x) @ weights.T)
        yield Mistake("activation_quantization", "numerics", sentence, values, rounded=True, setting=(words,))
    tensor = next(name for name, part in parts(q) if q.wrong_channels[part].any())
    for cause, words, change in weight_rules(weights.shape[1]):
        yield Mistake(cause, "weights", f"weights are {words}", predicted(x @ change(weights).T), tensor, rounded=True)
    found = _any_activations(q, weights, chosen)
    if found is not None:
        words = f"the product is that of other activations, {found[0]:.2g} of their norm away, as rounding makes them"
        result = base.copy()
        result[:, chosen] = found[1]
        yield Mistake("activation_quantization", "numerics", words, result, rank=FREE)


def _chosen(q: Question, columns: int) -> Flags:
    """The channels of wrong tensors, or of large ones as many as show what happened; others count as explained."""
    channels = np.flatnonzero(q.wrong_tensors)
    most = max(64, _LARGE // columns)
    chosen = np.zeros_like(q.wrong_tensors)
    chosen[channels[:: -(-len(channels) // most)]] = True
    return chosen


def _rows(q: Question, name: str, rows: Flags) -> Values:
    weight = q.at.model.weight(name)
    raw = np.ascontiguousarray(weight.rows[np.flatnonzero(rows)])
    return dequantize_rows(weight.type, raw, weight.shape[1]).astype(np.float64)


def activation_rules(channels: int) -> Iterator[Rule]:
    """Ways of rounding activations, each from (tokens, channels) to the values that it keeps."""
    yield from float_rules()
    if channels % 256 == 0:
        yield "ggml's Q8_K", lambda x: quantize_q8_k(_single(x)).values()
        yield "APR's Q8_K", lambda x: quantize_q8_k_apr(_single(x)).values()
    if channels % 32 == 0:
        yield "Q8_0", lambda x: quantize_q8_0(_single(x)).values()
    for bits in (8, 4):
        top = 2 ** (bits - 1) - 1
        yield f"{bits} bits per token", partial(to_grid_of, axis=1, top=top)
        yield f"{bits} bits per token, down to -{top + 1}", partial(to_grid_of, axis=1, top=top + 1, cut_at=top)
        yield f"{bits} bits per tensor", partial(to_grid_of, axis=None, top=top)
        yield f"{bits} bits per channel", partial(to_grid_of, axis=0, top=top)
        yield f"{bits} unsigned bits per token", partial(from_zero, bits=bits, axis=1)
        yield f"{bits} unsigned bits per tensor", partial(from_zero, bits=bits, axis=None)
        for size in (16, 32, 64, 128, 256):
            if channels % size == 0:
                yield f"{bits} bits in groups of {size}", partial(in_groups, size=size, top=top)


def float_rules() -> Iterator[Rule]:
    """Float formats that are narrower than float32."""
    yield "float16", lambda x: half(x)
    yield "bfloat16", lambda x: rounded(_single(x), 7).astype(np.float64)
    yield "TF32", lambda x: rounded(_single(x), 10).astype(np.float64)
    yield "TF32 by cutting it off", lambda x: cut(_single(x), 10).astype(np.float64)
    yield "FP8 E4M3", lambda x: _e4m3(x)
    yield "FP8 E4M3 scaled per tensor", lambda x: _e4m3(x * (448 / np.abs(x).max())) * (np.abs(x).max() / 448)
    yield "FP8 E4M3 scaled per token", lambda x: _e4m3(x * (448 / _largest(x))) * (_largest(x) / 448)
    yield "FP8 E5M2", lambda x: rounded(_single(x), 2, -14).astype(np.float64)


def half(x: Values) -> Values:
    """Values rounded to IEEE half precision."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def _e4m3(x: Values) -> Values:
    return np.asarray(np.clip(rounded(_single(x), 3, -6).astype(np.float64), -448, 448))


def _single(x: Values) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32)


def _largest(x: Values) -> Values:
    return np.asarray(np.maximum(np.abs(x).max(axis=-1, keepdims=True), _LEAST))


def to_grid_of(x: Values, axis: int | None, top: int, cut_at: int | None = None) -> Values:
    """Values rounded half to even to multiples of a step that makes the largest along an axis `top` of them.

    cut_at : the largest code, where it is not `top`.
    """
    step = np.maximum(np.abs(x).max(axis=axis, keepdims=True), _LEAST) / top
    codes = np.round(x / step)
    return np.asarray((codes if cut_at is None else np.minimum(codes, cut_at)) * step)


def from_zero(x: Values, bits: int, axis: int | None) -> Values:
    """Values as unsigned codes between the smallest and the largest, with a whole zero point."""
    low, high = x.min(axis=axis, keepdims=True), x.max(axis=axis, keepdims=True)
    step = np.maximum(high - low, _LEAST) / (2**bits - 1)
    zero = np.round(-low / step)
    return np.asarray((np.clip(np.round(x / step + zero), 0, 2**bits - 1) - zero) * step)


def in_groups(x: Values, size: int, top: int) -> Values:
    """Values rounded with a step of their own for every run of `size` channels."""
    groups = x.reshape(*x.shape[:-1], -1, size)
    return to_grid_of(groups, -1, top).reshape(x.shape)


def weight_rules(columns: int) -> Iterator[tuple[str, str, Callable[[Values], Values]]]:
    """Ways of rounding weights: cause, words, and from (rows, columns) to the values that are kept."""
    yield "dtype_truncated", "cut off at bfloat16", lambda w: cut(_single(w), 7).astype(np.float64)
    for words, keep in float_rules():
        yield "dtype_truncated", f"rounded to {words}", keep
    for bits in (8, 4):
        top = 2 ** (bits - 1) - 1
        yield "requantized", f"rounded to {bits} bits per row", partial(to_grid_of, axis=1, top=top)
        yield "requantized", f"rounded to {bits} unsigned bits per row", partial(from_zero, bits=bits, axis=1)
        for size in (32, 64, 128):
            if columns % size == 0:
                words = f"rounded to {bits} bits in groups of {size}"
                yield "requantized", words, partial(in_groups, size=size, top=top)
    if columns % 32 == 0:
        yield "requantized", "rounded to Q8_0", lambda w: quantize_q8_0(_single(w)).values()
        yield "requantized", "rounded to Q4_0", lambda w: _signed_extreme(w, 8)
        yield "requantized", "rounded to Q5_0", lambda w: _signed_extreme(w, 16)


def _signed_extreme(w: Values, least: int) -> Values:
    """ggml's Q4_0 and Q5_0: the largest value of 32 becomes the lowest code (`quantize_row_q4_0_ref`)."""
    blocks = w.reshape(len(w), -1, 32)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2)[:, :, None], axis=2)
    step = largest / -least
    codes = np.floor(blocks / np.where(step == 0, 1, step) + least + 0.5)
    with np.errstate(over="ignore"):
        kept = step.astype(np.float16).astype(np.float64)
    return np.asarray(((np.clip(codes, 0, 2 * least - 1) - least) * kept).reshape(w.shape))


def _any_activations(q: Question, weights: Values, chosen: Flags) -> tuple[float, Values] | None:
    """Any activations near the right ones: with more rows than columns, an output that they explain proves them."""
    if len(weights) <= 1.1 * weights.shape[1]:
        return None
    change = least_squares(weights, (q.y - q.right)[:, chosen].T)
    if change is None:
        return None
    sizes = np.linalg.norm(stage_input(q), axis=1)
    off = float((np.linalg.norm(change, axis=0) / np.maximum(sizes, _LEAST)).max())  # of any token
    return (off, q.right[:, chosen] + (weights @ change).T) if off < _NEAR else None
