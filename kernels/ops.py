"""The operations of a decoder that are not matmuls: norms, rotary tables, attention, activation.

Each engine's own rule is a function of its own where the rules differ; paths.py says which path uses which.
"""

from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import kernel
from kernels.config import ModelConfig
from kernels.parallel import over_rows

Real = TypeVar("Real", np.float32, np.float64)


@kernel("void(float32[:, ::1], float32[::1], float32, float32[:, ::1])")
def _rms_norm_ggml(x: NDArray[np.float32], w: NDArray[np.float32], eps: np.float32, out: NDArray[np.float32]) -> None:
    for t in range(x.shape[0]):
        total = np.float64(0)
        for i in range(x.shape[1]):
            total += np.float64(x[t, i] * x[t, i])
        mean = np.float32(total / x.shape[1])
        scale = np.float32(1) / np.sqrt(mean + eps)
        for i in range(x.shape[1]):
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
    out = np.empty_like(x)
    _rms_norm_ggml(x, weight, np.float32(eps), out)
    return out


def rms_norm_apr(x: NDArray[np.float32], weight: NDArray[np.float32], eps: float) -> NDArray[np.float32]:
    """APR's RMS norm: squares summed from left to right in float32."""
    out = np.empty_like(x)
    _rms_norm_apr(x, weight, np.float32(eps), out)
    return out


def rms_norm(x: NDArray[Real], weight: NDArray[Real], eps: float) -> NDArray[Real]:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, mean taken in float64, result in the dtype of x."""
    mean = np.square(x, dtype=np.float64).mean(axis=-1, keepdims=True)
    scale = (1.0 / np.sqrt(mean + eps)).astype(x.dtype)
    result: NDArray[Real] = weight * (x * scale)
    return result


def rope_angles_f64(positions: NDArray[np.int64], config: ModelConfig) -> NDArray[np.float64]:
    """Rotation angles (tokens, head_dim/2) in radians: position / theta^(2i/head_dim) / factor."""
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = config.rope_theta**-exponents / _factors(config)
    return positions[:, None] * frequencies


def rope_angles_f32(positions: NDArray[np.int64], config: ModelConfig) -> NDArray[np.float32]:
    """The same in float32 throughout, as transformers and APR compute their tables."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    powers = np.power(np.float32(config.rope_theta), exponents, dtype=np.float32)
    frequencies = np.float32(1) / powers / _factors(config).astype(np.float32)
    angles: NDArray[np.float32] = positions[:, None].astype(np.float32) * frequencies
    return angles


def rope_angles_ggml(positions: NDArray[np.int64], config: ModelConfig) -> NDArray[np.float32]:
    """The same as llama.cpp computes it: the angle is multiplied by theta^(-2/head_dim) again and again in float32.

    The error grows with position and channel (ggml-cpu/ops.cpp `ggml_rope_cache_init`).
    """
    step = np.float32(float(np.float32(config.rope_theta)) ** float(np.float32(-2.0 / config.head_dim)))
    angle: NDArray[np.float32] = positions.astype(np.float32)
    angles = np.empty((len(positions), config.head_dim // 2), np.float32)
    for i in range(angles.shape[1]):
        angles[:, i] = angle
        angle *= step
    return cast("NDArray[np.float32]", angles / _factors(config).astype(np.float32))


def _factors(config: ModelConfig) -> NDArray[np.float64]:
    factors = config.rope_factors or (1.0,) * (config.head_dim // 2)
    return np.array(factors, dtype=np.float64)


def rotate(x: NDArray[Real], angles: NDArray[Real], config: ModelConfig) -> NDArray[Real]:
    """Rotary embedding of q or k: x (tokens, heads * head_dim), angles (tokens, head_dim/2), same shape out."""
    cos, sin = (f(angles.astype(np.float64)).astype(x.dtype)[:, None, :] for f in (np.cos, np.sin))
    heads = x.reshape(len(x), -1, config.head_dim)
    out = np.empty_like(heads)
    if config.rope_type == "neox":  # channel i turns with channel i + head_dim/2
        low, high = slice(None, config.head_dim // 2), slice(config.head_dim // 2, None)
    else:  # channel 2i turns with channel 2i+1
        low, high = slice(0, None, 2), slice(1, None, 2)
    out[..., low] = heads[..., low] * cos - heads[..., high] * sin
    out[..., high] = heads[..., high] * cos + heads[..., low] * sin
    return out.reshape(x.shape)


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], int64, int64, float32, float32[:, ::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[:, ::1], int64, int64, float64, float64[:, ::1], int64, int64)",
    reassociate=True,
)
def _attention(
    q: NDArray[Real],
    k: NDArray[Real],
    v: NDArray[Real],
    head_dim: int,
    group: int,
    scale: Real,
    out: NDArray[Real],
    start: int,
    stop: int,
) -> None:
    tokens = q.shape[0]
    p = np.empty(tokens, q.dtype)
    for head in range(start, stop):
        first, shared = head * head_dim, head // group * head_dim
        for t in range(tokens):
            largest = q.dtype.type(-np.inf)
            for s in range(t + 1):
                dot = q.dtype.type(0)
                for i in range(head_dim):
                    dot += q[t, first + i] * k[s, shared + i]
                p[s] = dot * scale
                largest = max(largest, p[s])
            total = 0.0
            for s in range(t + 1):
                p[s] = np.exp(p[s] - largest)
                total += p[s]
            share = q.dtype.type(1.0 / total)
            out[t, first : first + head_dim] = 0
            for s in range(t + 1):
                weight = p[s] * share
                for i in range(head_dim):
                    out[t, first + i] += weight * v[s, shared + i]


def attention(q: NDArray[Real], k: NDArray[Real], v: NDArray[Real], config: ModelConfig) -> NDArray[Real]:
    """Causal grouped-query attention before the output projection.

    q (tokens, heads * head_dim); k, v (tokens, key_value_heads * head_dim); returns the shape and dtype of q.
    softmax(q k^T / sqrt(head_dim)) v with the maximum subtracted and the denominator summed in float64.
    """
    out = np.empty_like(q)
    q, k, v = (np.ascontiguousarray(x) for x in (q, k, v))
    group = config.num_attention_heads // config.num_key_value_heads
    scale = q.dtype.type(config.head_dim**-0.5)
    over_rows(lambda a, b: _attention(q, k, v, config.head_dim, group, scale, out, a, b), config.num_attention_heads)
    return out


def silu(x: NDArray[Real]) -> NDArray[Real]:
    """Elementwise x / (1 + exp(-x)) in the dtype of x."""
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right limit, -0
        result: NDArray[Real] = np.divide(x, np.exp(-x) + 1, dtype=x.dtype)
    return result
