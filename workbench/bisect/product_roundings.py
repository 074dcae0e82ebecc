"""Products whose activations or weights were rounded in a way that the engine does not admit to."""

from collections.abc import Callable, Iterator

import numpy as np

from kernels.activations import quantize_q8_0, quantize_q8_k, quantize_q8_k_apr
from kernels.dequantize import dequantize_rows
from workbench.bisect.floor import decoded
from workbench.bisect.mistakes import FREE, Flags, Mistake, Question, Values
from workbench.bisect.product_mistakes import parts, stage_input
from workbench.bisect.roundings import cut, rounded

_LARGE = 1 << 22  # elements of a weight that are tried; beyond, some of its rows
_NEAR = 0.2  # of the norm of the activations; rounding to 4 bits costs 0.1
_LEAST = 1e-30
Rule = tuple[str, Callable[[Values], Values]]


def product_roundings(q: Question) -> Iterator[Mistake]:
    """The right product with rounded activations, then with rounded weights, then with any other activations."""
    x = stage_input(q)
    chosen = _chosen(q, x.shape[1])
    weights = np.concatenate([_rows(q, name, chosen[part]) for name, part in parts(q)])
    base = q.with_channels(q.wrong_channels, q.y[:, q.wrong_channels])

    def predicted(values: Values) -> Values:
        result = base.copy()
        result[:, chosen] = values
        return result

    for words, keep in activation_rules(x.shape[1]):
        words = f"activations are rounded to {words} first"
        yield Mistake("activation_quantization", "numerics", words, predicted(keep(x) @ weights.T), rounded=True)
    tensor = next(name for name, part in parts(q) if q.wrong_channels[part].any())
    for cause, words, change in _weight_rules(weights.shape[1]):
        yield Mistake(cause, "weights", f"weights are {words}", predicted(x @ change(weights).T), tensor, rounded=True)
    found = _any_activations(q, weights, chosen)
    if found is not None:
        words = f"the product is that of other activations, {found[0]:.2g} of their norm away, as rounding makes them"
        yield Mistake("activation_quantization", "numerics", words, predicted(found[1]), rank=FREE)


def _chosen(q: Question, columns: int) -> Flags:
    """The wrong channels, or of a large weight as many as show what happened; the others are taken as explained."""
    channels = np.flatnonzero(q.wrong_channels)
    most = max(64, _LARGE // columns)
    chosen = np.zeros_like(q.wrong_channels)
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
        yield "ggml's Q8_K", lambda x: decoded(quantize_q8_k(_single(x)))
        yield "APR's Q8_K", lambda x: decoded(quantize_q8_k_apr(_single(x)))
    if channels % 32 == 0:
        yield "Q8_0", lambda x: decoded(quantize_q8_0(_single(x)))
    for bits in (8, 4):
        top = 2 ** (bits - 1) - 1
        yield f"{bits} bits per token", lambda x, t=top: to_grid(x, _largest(x) / t)
        yield f"{bits} bits per token, down to -{top + 1}", lambda x, t=top: to_grid(x, _largest(x) / (t + 1), t)
        yield f"{bits} bits per tensor", lambda x, t=top: to_grid(x, np.abs(x).max() / t)
        yield f"{bits} bits per channel", lambda x, t=top: to_grid(x, np.abs(x).max(axis=0) / t)
        yield f"{bits} unsigned bits per token", lambda x, b=bits: from_zero(x, b, axis=1)
        yield f"{bits} unsigned bits per tensor", lambda x, b=bits: from_zero(x, b, axis=None)
        for size in (16, 32, 64, 128, 256):
            if channels % size == 0:
                yield f"{bits} bits in groups of {size}", lambda x, s=size, t=top: _in_groups(x, s, t)


def float_rules() -> Iterator[Rule]:
    """Float formats that are narrower than float32."""
    yield "float16", lambda x: half(x)
    yield "bfloat16", lambda x: rounded(_single(x), 7).astype(np.float64)
    yield "TF32", lambda x: rounded(_single(x), 10).astype(np.float64)
    yield "FP8 E4M3", lambda x: _e4m3(x)
    yield "FP8 E4M3 scaled per tensor", lambda x: _e4m3(x * (448 / np.abs(x).max())) * (np.abs(x).max() / 448)
    yield "FP8 E4M3 scaled per token", lambda x: _e4m3(x * (448 / _largest(x))) * (_largest(x) / 448)
    yield "FP8 E5M2", lambda x: rounded(_single(x), 2, -14).astype(np.float64)


def half(x: Values) -> Values:
    """Values rounded to IEEE half precision."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def _e4m3(x: Values) -> Values:
    return np.clip(rounded(_single(x), 3, -6).astype(np.float64), -448, 448)


def _single(x: Values) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32)


def _largest(x: Values) -> Values:
    return np.maximum(np.abs(x).max(axis=-1, keepdims=True), _LEAST)


def to_grid(x: Values, step: Values | float, top: int | None = None) -> Values:
    """Values rounded half to even to multiples of a step, codes at most `top`."""
    codes = np.round(x / np.maximum(step, _LEAST))
    return np.asarray((codes if top is None else np.minimum(codes, top)) * step)


def from_zero(x: Values, bits: int, axis: int | None) -> Values:
    """Values as unsigned codes between the smallest and the largest, with a whole zero point."""
    low, high = x.min(axis=axis, keepdims=True), x.max(axis=axis, keepdims=True)
    step = np.maximum(high - low, _LEAST) / (2**bits - 1)
    zero = np.round(-low / step)
    return np.asarray((np.clip(np.round(x / step + zero), 0, 2**bits - 1) - zero) * step)


def _in_groups(x: Values, size: int, top: int) -> Values:
    groups = x.reshape(*x.shape[:-1], -1, size)
    return to_grid(groups, _largest(groups) / top).reshape(x.shape)


def _weight_rules(columns: int) -> Iterator[tuple[str, str, Callable[[Values], Values]]]:
    yield "dtype_truncated", "cut off at bfloat16", lambda w: cut(_single(w), 7).astype(np.float64)
    for words, keep in float_rules():
        yield "dtype_truncated", f"rounded to {words}", keep
    for bits in (8, 4):
        top = 2 ** (bits - 1) - 1
        yield "requantized", f"rounded to {bits} bits per row", lambda w, t=top: to_grid(w, _largest(w) / t)
        yield "requantized", f"rounded to {bits} unsigned bits per row", lambda w, b=bits: from_zero(w, b, 1)
        for size in (32, 64, 128):
            if columns % size == 0:
                words = f"rounded to {bits} bits in groups of {size}"
                yield "requantized", words, lambda w, s=size, t=top: _in_groups(w, s, t)
    if columns % 32 == 0:
        yield "requantized", "rounded to Q8_0", lambda w: decoded(quantize_q8_0(_single(w)))
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
    change, *_ = np.linalg.lstsq(weights, (q.y - q.right)[:, chosen].T, rcond=None)
    off = float(np.linalg.norm(change) / np.linalg.norm(stage_input(q)))
    return (off, q.right[:, chosen] + (weights @ change).T) if off < _NEAR else None
