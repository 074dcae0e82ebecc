"""The operations of a decoder that are not matmuls: norms, rotary tables, attention, activation.

Each engine's own rule is a function of its own where the rules differ; paths.py says which path uses which.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.kinds.attention import Attention
from kernels.kinds.rotate import Rotation
from kernels.machine.compiler import helper, kernel
from kernels.machine.memory import lent
from kernels.machine.parallel import by_token, over_rows
from kernels.matmul.float_dot import LANES, sum_of_squares, weighted_sum

Real = TypeVar("Real", np.float32, np.float64)


_CHAINS = 8  # tokens that are summed side by side, because every sum waits for the one before
_QUICK = 1 << 17  # values worth a thread when NumPy computes them
_SCORES = 1 << 24  # of a head in one call of a kernel, which nothing can interrupt: some tenths of a second


def _each(compute: Callable[[slice], object], shape: tuple[int, ...]) -> None:
    """by_token for NumPy's functions, which are quick, and take and give the interpreter's lock each time."""
    by_token(compute, shape, -(-_QUICK // shape[1]))


def elementwise(function: np.ufunc, a: NDArray[Real], b: NDArray[Real]) -> NDArray[Real]:
    """function(a, b) of two arrays (tokens, channels) of the same shape and dtype."""
    out = lent(a.shape, a.dtype.type)
    _each(lambda t: function(a[t], b[t], out=out[t]), a.shape)
    return out


@kernel("void(float32[:, ::1], float32[::1], float32, float32[:, ::1])")
def _rms_norm_ggml(x: NDArray[np.float32], w: NDArray[np.float32], eps: np.float32, out: NDArray[np.float32]) -> None:
    tokens, n = x.shape
    totals = np.empty(_CHAINS, np.float64)
    for first in range(0, tokens, _CHAINS):
        totals[:] = 0
        for i in range(n):
            for k in range(_CHAINS):
                value = x[min(first + k, tokens - 1), i]
                totals[k] += np.float64(value * value)
        for t in range(first, min(first + _CHAINS, tokens)):
            scale = np.float32(1) / np.sqrt(np.float32(totals[t - first] / n) + eps)
            for i in range(n):
                out[t, i] = (x[t, i] * scale) * w[i]


@kernel("void(float32[:, ::1], float32[::1], float32, float32[:, ::1])")
def _rms_norm_apr(x: NDArray[np.float32], w: NDArray[np.float32], eps: np.float32, out: NDArray[np.float32]) -> None:
    for t in range(x.shape[0]):
        total = np.float32(0)
        for i in range(x.shape[1]):
            total += x[t, i] * x[t, i]
        root = np.sqrt(total / np.float32(x.shape[1]) + eps)
        for i in range(x.shape[1]):
            out[t, i] = (x[t, i] / root) * w[i]


def rms_norm_ggml(x: NDArray[np.float32], weight: NDArray[np.float32], eps: float) -> NDArray[np.float32]:
    """llama.cpp's RMS norm, bit for bit: float32 squares summed in order in float64 (ggml-cpu/ops.cpp)."""
    out = lent(x.shape, x.dtype.type)
    by_token(lambda t: _rms_norm_ggml(x[t], weight, np.float32(eps), out[t]), x.shape, _CHAINS)
    return out


def rms_norm_apr(x: NDArray[np.float32], weight: NDArray[np.float32], eps: float) -> NDArray[np.float32]:
    """APR's RMS norm: squares summed from left to right in float32."""
    out = lent(x.shape, x.dtype.type)
    by_token(lambda t: _rms_norm_apr(x[t], weight, np.float32(eps), out[t]), x.shape)
    return out


@kernel(
    "void(float32[:, ::1], float32[::1], float64, float32[:, ::1])",
    "void(float64[:, ::1], float64[::1], float64, float64[:, ::1])",
)
def _rms_norm(x: NDArray[Real], w: NDArray[Real], eps: float, out: NDArray[Real]) -> None:
    for t in range(x.shape[0]):
        total = sum_of_squares(x, t * x.shape[1], x.shape[1])
        scale = x.dtype.type(1.0 / np.sqrt(total / x.shape[1] + eps))
        for i in range(x.shape[1]):
            out[t, i] = w[i] * (x[t, i] * scale)


def rms_norm(x: NDArray[Real], weight: NDArray[Real], eps: float) -> NDArray[Real]:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, mean taken in float64, result in the dtype of x."""
    out = lent(x.shape, x.dtype.type)
    by_token(lambda t: _rms_norm(x[t], weight, eps, out[t]), x.shape)
    return out


# Powers, cosines and the exponentials of float64 are those of the C library: NumPy has functions of its own for some
# processors, which differ from it in the last bit.
@kernel("void(float32, float32[::1], float32[::1])", "void(float64, float64[::1], float64[::1])")
def _power(base: Real, exponents: NDArray[Real], out: NDArray[Real]) -> None:
    for i in range(exponents.size):
        out[i] = base ** exponents[i]


def power(base: Real, exponents: NDArray[Real]) -> NDArray[Real]:
    """base ** exponents by the C library, in the type of the base."""
    out = np.empty_like(exponents)
    _power(base, exponents, out)
    return out


@kernel("void(float64[:, ::1], float64[:, ::1], float64[:, ::1])")
def _cos_sin(angles: NDArray[np.float64], cos: NDArray[np.float64], sin: NDArray[np.float64]) -> None:
    for t in range(angles.shape[0]):
        for i in range(angles.shape[1]):
            cos[t, i], sin[t, i] = np.cos(angles[t, i]), np.sin(angles[t, i])


def rope_angles_f64(positions: NDArray[np.int64], rotation: Rotation) -> NDArray[np.float64]:
    """Rotation angles (tokens, pairs) in radians: position / theta^(2i/d) / factor, of the d channels that turn."""
    exponents = np.arange(0, rotation.width, 2) / rotation.width
    frequencies = power(np.float64(rotation.theta), -exponents) / _factors(rotation)
    return positions[:, None] * frequencies


def rope_angles_f32(positions: NDArray[np.int64], rotation: Rotation) -> NDArray[np.float32]:
    """The same in float32 throughout, as transformers and APR compute their tables."""
    exponents = np.arange(0, rotation.width, 2, dtype=np.float32) / np.float32(rotation.width)
    powers = power(np.float32(rotation.theta), exponents)
    frequencies: NDArray[Any] = np.float32(1) / powers / _factors(rotation).astype(np.float32)
    angles: NDArray[np.float32] = positions[:, None].astype(np.float32) * frequencies
    return angles


def _factors(rotation: Rotation) -> NDArray[np.float64]:
    factors = rotation.factors or (1.0,) * (rotation.width // 2)
    return np.array(factors, dtype=np.float64)


_ONE, _TWO = np.uint64(1), np.uint64(2)  # unsigned numbers cannot count from the end, so loops over them vectorise


@helper()
def _turn(
    x: NDArray[Real],
    at: np.uint64,
    step: np.uint64,
    apart: np.uint64,
    cos: NDArray[Real],
    sin: NDArray[Real],
    out: NDArray[Real],
    to: np.uint64,
) -> None:
    """Turn each channel at + step * i together with the one `apart` from it."""
    for i in range(np.uint64(len(cos))):
        low = step * i
        a, b = x[at + low], x[at + low + apart]
        out[to + low] = a * cos[i] - b * sin[i]
        out[to + low + apart] = b * cos[i] + a * sin[i]


@kernel(
    "void(float32[:, ::1], int64, float32[:, ::1], float32[:, ::1], boolean, int64, float32[:, ::1])",
    "void(float64[:, ::1], int64, float64[:, ::1], float64[:, ::1], boolean, int64, float64[:, ::1])",
)
def _rotate(
    x: NDArray[Real], column: int, cos: NDArray[Real], sin: NDArray[Real], neox: bool, head: int, out: NDArray[Real]
) -> None:
    half = cos.shape[1]
    for t in range(x.shape[0]):
        token, turned, c, s = x[t], out[t], cos[t], sin[t]
        for first in range(0, out.shape[1], head):
            at, to = np.uint64(column + first), np.uint64(first)
            if neox:  # channel i turns with channel i + half
                _turn(token, at, _ONE, np.uint64(half), c, s, turned, to)
            else:  # channel 2i turns with channel 2i+1
                _turn(token, at, _TWO, _ONE, c, s, turned, to)
            for i in range(first + 2 * half, first + head):
                turned[i] = token[column + i]


def rotate(x: NDArray[Real], angles: NDArray[Real], rotation: Rotation, columns: slice = slice(None)) -> NDArray[Real]:
    """Rotary embedding of q or k: angles (tokens, pairs), x (tokens, channels) with heads in these columns.

    Returns (tokens, columns).
    """
    start, stop, _ = columns.indices(x.shape[1])
    factor = x.dtype.type(rotation.magnitude)
    wide = angles.astype(np.float64)
    tables = np.empty_like(wide), np.empty_like(wide)
    _cos_sin(wide, *tables)
    cos, sin = (table.astype(x.dtype) * factor for table in tables)
    neox, head = rotation.pairs == "neox", rotation.head_dim
    out = lent((len(x), stop - start), x.dtype.type)
    by_token(lambda t: _rotate(x[t], start, cos[t], sin[t], neox, head, out[t]), out.shape)
    return out


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64, float32, float32, boolean, int64, "
    "int64, float32[::1], float32[:, ::1], int64, int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64, float64, float64, boolean, int64, "
    "int64, float64[::1], float64[:, ::1], int64, int64, int64)",
)
def _attention(
    q: NDArray[Real],
    k: NDArray[Real],
    v: NDArray[Real],
    head_dim: int,
    group: int,
    scale: Real,
    cap: Real,
    causal: bool,
    window: int,
    chunk: int,
    sinks: NDArray[Real],
    out: NDArray[Real],
    block: int,
    start: int,
    stop: int,
) -> None:
    tokens, room = q.shape[0], (q.shape[0] + LANES - 1) // LANES * LANES
    vectors = (head_dim + LANES - 1) // LANES
    keys, values = np.zeros((head_dim, room), q.dtype), np.zeros((tokens, vectors * LANES), q.dtype)
    p, mixed = np.empty(room, q.dtype), np.empty(vectors * LANES, q.dtype)
    blocks = (tokens + block - 1) // block
    for unit in range(start, stop):
        shared, begin = unit // blocks, unit % blocks * block
        for s in range(tokens):
            for i in range(head_dim):
                keys[i, s] = k[s, shared * head_dim + i]
                values[s, i] = v[s, shared * head_dim + i]
        for first in range(shared * group * head_dim, (shared + 1) * group * head_dim, head_dim):
            for t in range(begin, min(begin + block, tokens)):
                seen = t + 1 if causal else tokens
                unseen = max(t + 1 - window, t // chunk * chunk)
                weighted_sum(head_dim, q, t * q.shape[1] + first, keys, (seen - 1) // LANES + 1, room, p)
                largest = q.dtype.type(-np.inf)
                p[:unseen] = 0
                for s in range(unseen, seen):
                    p[s] *= scale
                    largest = max(largest, p[s])
                if cap > 0:
                    largest = q.dtype.type(-np.inf)
                    for s in range(unseen, seen):
                        p[s] = cap * np.tanh(p[s] / cap)
                        largest = max(largest, p[s])
                if sinks.size:
                    largest = max(largest, sinks[first // head_dim])
                total = 0.0
                for s in range(unseen, seen):
                    p[s] = np.exp(p[s] - largest)
                    total += p[s]
                if sinks.size:
                    total += np.exp(sinks[first // head_dim] - largest)
                share = q.dtype.type(1.0 / total)
                for s in range(unseen, seen):
                    p[s] *= share
                weighted_sum(seen, p, 0, values, vectors, vectors * LANES, mixed)
                for i in range(head_dim):
                    out[t, first + i] = mixed[i]


def attention(
    q: NDArray[Real], k: NDArray[Real], v: NDArray[Real], how: Attention, sinks: NDArray[Real] | None = None
) -> NDArray[Real]:
    """Grouped-query attention before the output projection.

    q (tokens, heads * head_dim); k, v (tokens, kv_heads * head_dim), v of other heads where it says so; returns the
    shape and dtype of q, or as many channels a head as v has. sinks (heads,): a score of every head beside those of
    its keys, whose share is lost.
    softmax(q k^T scale) v, scores bent below a cap if there is one, with the maximum subtracted and the denominator
    summed in float64.
    """
    if how.value_size != how.head_dim:
        return _narrow(q, k, v, how, sinks)
    out, sinks = lent(q.shape, q.dtype.type), np.empty(0, q.dtype) if sinks is None else sinks
    q, k, v = (np.ascontiguousarray(x) for x in (q, k, v))
    group, scale, window = how.heads // how.kv_heads, q.dtype.type(how.scale), how.window or len(q)
    cap = q.dtype.type(how.cap or 0)
    block = min(max(_SCORES // len(q), 1), len(q))
    blocks = -(-len(q) // block)

    def compute(start: int, stop: int) -> None:
        chunk = how.chunk or len(q)
        _attention(q, k, v, how.head_dim, group, scale, cap, how.causal, window, chunk, sinks, out, block, start, stop)

    over_rows(compute, how.kv_heads * blocks, most=1 if blocks > 1 else None)
    return out


def _narrow(
    q: NDArray[Real], k: NDArray[Real], v: NDArray[Real], how: Attention, sinks: NDArray[Real] | None
) -> NDArray[Real]:
    """The same with heads of v that are narrower, or wider, than those of k: what is missing is filled with zeros."""
    size = max(how.head_dim, how.value_size)

    def filled(x: NDArray[Real], channels: int) -> NDArray[Real]:
        heads = x.reshape(len(x), -1, channels)
        return np.pad(heads, ((0, 0), (0, 0), (0, size - channels))).reshape(len(x), -1)

    wide = replace(how, head_dim=size, value_dim=None)
    out = attention(filled(q, how.head_dim), filled(k, how.head_dim), filled(v, how.value_size), wide, sinks)
    return np.ascontiguousarray(out.reshape(len(q), -1, size)[:, :, : how.value_size]).reshape(len(q), -1)


@kernel("void(float32[:, ::1], float32, float32[:, ::1])", "void(float64[:, ::1], float64, float64[:, ::1])")
def _capped(x: NDArray[Real], cap: Real, out: NDArray[Real]) -> None:
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = cap * np.tanh(x[t, i] * (x.dtype.type(1) / cap))


def capped(x: NDArray[Real], cap: float) -> NDArray[Real]:
    """cap * tanh(x / cap) of x (tokens, channels) in its dtype."""
    out = lent(x.shape, x.dtype.type)
    by_token(lambda t: _capped(x[t], x.dtype.type(cap), out[t]), x.shape)
    return out


@kernel("void(float64[:, ::1], float64[:, ::1])")
def _silu(x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for t in range(x.shape[0]):
        for i in range(x.shape[1]):
            out[t, i] = x[t, i] / (np.exp(-x[t, i]) + 1)


def silu(x: NDArray[Real]) -> NDArray[Real]:
    """x / (1 + exp(-x)) of x (tokens, channels) in its dtype."""
    out = lent(x.shape, x.dtype.type)
    if x.dtype == np.float64:
        by_token(lambda t: _silu(x[t], out[t]), x.shape)  # type: ignore[arg-type] # they are float64
        return out

    def compute(tokens: slice) -> None:
        some, result = x[tokens], out[tokens]
        with np.errstate(over="ignore"):  # exp(-x) = inf gives the right limit, -0
            np.negative(some, out=result)
            np.exp(result, out=result)
            result += 1
            np.divide(some, result, out=result)

    _each(compute, x.shape)
    return out
