"""What layers without attention compute from the tokens before, as llama.cpp's CPU backend does, bit for bit.

ggml-cpu/ops.cpp `ggml_compute_forward_ssm_conv_f32`, `..._ssm_scan_f32`, `..._gated_delta_net_one_chunk`, and models.h
`build_gdn_l2_norm`. States are read in the order of `dot`.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from kernels.c_library import expf, logf
from kernels.ggml.order import AT_ONCE, WIDTHS, dot
from kernels.ggml.sums import LANES, weighted_sum
from kernels.graph import Inputs
from kernels.kinds.delta import DeltaNet
from kernels.kinds.scan import Scan
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.operations import fma
from kernels.machine.parallel import by_token, over_rows
from kernels.ops import rms_norm_ggml

_LINEAR = np.float32(20)  # from here on the softplus is its argument

Floats = NDArray[np.float32]


@kernel("void(float32[:, ::1], float32[:, ::1], float32[::1], int64, float32[:, ::1], int64, int64)")
def _convolved(x: Floats, weight: Floats, bias: Floats, at_once: int, out: Floats, start: int, stop: int) -> None:
    taps, channels = weight.shape
    rounded = taps // at_once * at_once
    for t in range(start, stop):
        for i in range(channels):
            out[t, i] = 0
        for tap in range(max(taps - 1 - t, 0), taps):
            earlier = t - (taps - 1 - tap)
            if tap < rounded:
                for i in range(channels):
                    out[t, i] += weight[tap, i] * x[earlier, i]
            else:
                for i in range(channels):
                    out[t, i] = fma(weight[tap, i], x[earlier, i], out[t, i])
        for i in range(channels):
            out[t, i] += bias[i]


def convolved(x: Floats, weight: Floats, bias: Floats | None, width: int) -> Floats:
    """The sum over taps of weight[:, tap] * x[token - taps + 1 + tap], the farthest token first, plus the bias.

    x (tokens, channels); weight (channels, taps), bias (channels,); before the first token there are zeros. width :
    float lanes of the vectors that llama.cpp was built with.
    """
    out = lent(x.shape, np.float32)
    taps = np.ascontiguousarray(weight.T)
    added = np.zeros(x.shape[1], np.float32) if bias is None else bias
    at_once = AT_ONCE if width == WIDTHS[0] else width
    by_token(lambda t: _convolved(x, taps, added, at_once, out, t.start, t.stop), x.shape)
    return out


@kernel("void(float32[::1], float32[::1])")
def _softplus(x: Floats, out: Floats) -> None:
    for i in range(x.size):
        out[i] = x[i] if x[i] > _LINEAR else logf(np.float32(1) + expf(x[i]))


def softplus(x: Floats) -> Floats:
    """log(1 + exp(x)) of any array."""
    flat = np.array(x, dtype=np.float32, order="C").reshape(-1)
    out = np.empty_like(flat)
    _softplus(flat, out)
    return out.reshape(x.shape)


def unit_norm(x: Floats, eps: float) -> Floats:
    """x / sqrt(sum(x^2) + eps) over the channels of x (norms, channels): an RMS norm that is scaled."""
    size = np.float32(x.shape[1])
    normed = rms_norm_ggml(x, np.ones(x.shape[1], np.float32), float(np.float32(eps) / size))
    return np.asarray(normed * (np.float32(1) / np.sqrt(size)))


def _compiled_delta(width: int) -> Callable[..., None]:
    by_dot = weighted_sum(dot(width))

    @kernel(
        "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], "
        "UniTuple(int64, 3), boolean, float32[:, ::1], int64, int64)",
        of=width,
    )
    def delta(
        q: Floats,
        k: Floats,
        v: Floats,
        beta: Floats,
        decay: Floats,
        shape: tuple[int, int, int],  # groups of heads, values of a head, channel of v at which they start
        tiled: bool,
        out: Floats,
        start: int,
        stop: int,
    ) -> None:
        groups, size, value_start = shape
        heads, keys = beta.shape[1], q.shape[1] // groups
        vectors = (size + LANES - 1) // LANES
        state = np.empty((keys, vectors * LANES), np.float32)
        read, step = np.empty(vectors * LANES, np.float32), np.empty(size, np.float32)
        scale = np.float32(1) / np.sqrt(np.float32(size))
        for head in range(start, stop):
            first = (head % groups if tiled else head // (heads // groups)) * keys
            state[:] = 0
            for t in range(q.shape[0]):
                share = expf(decay[t, head])
                for i in range(keys):
                    for j in range(size):
                        state[i, j] *= share
                by_dot(keys, k, t * k.shape[1] + first, state, vectors, vectors * LANES, read)
                for j in range(size):
                    step[j] = (v[t, value_start + head * size + j] - read[j]) * beta[t, head]
                for i in range(keys):
                    for j in range(size):
                        state[i, j] = fma(k[t, first + i], step[j], state[i, j])
                by_dot(keys, q, t * q.shape[1] + first, state, vectors, vectors * LANES, read)
                for j in range(size):
                    out[t, head * size + j] = read[j] * scale

    return delta


_delta = cache(_compiled_delta)
_delta(WIDTHS[0])


def delta(x: Inputs, how: DeltaNet, width: int) -> Floats:
    """The gated delta rule over all tokens, every head by itself from a state of zeros, (tokens, heads * head_dim).

    x : q, k (tokens, groups * keys); v (tokens, channels), of which the values start at how.value_start; beta, decay
    (tokens, heads).
    """
    values = tuple(np.ascontiguousarray(x[role]) for role in how.roles)
    heads = values[3].shape[1]
    out = lent((len(values[0]), heads * how.head_dim), np.float32)
    shape = how.groups, how.head_dim, how.value_start
    over_rows(lambda start, stop: _delta(width)(*values, shape, how.tiled, out, start, stop), heads)
    return out


def _compiled_scan(width: int) -> Callable[..., None]:
    by_dot = weighted_sum(dot(width)._replace(at_once=0))

    @kernel(
        "void(float32[:, ::1], float32[:, ::1], float32[::1], float32[::1], UniTuple(int64, 3), float32[:, ::1], "
        "int64, int64)",
        of=width,
    )
    def scan(
        x: Floats,
        step: Floats,
        a: Floats,
        d: Floats,
        shape: tuple[int, int, int],  # groups of heads, channels of a head, numbers that each of these keeps
        out: Floats,
        start: int,
        stop: int,
    ) -> None:
        groups, size, keys = shape
        heads = step.shape[1]
        vectors = (size + LANES - 1) // LANES
        state, put = np.empty((keys, vectors * LANES), np.float32), np.empty(size, np.float32)
        read = np.empty(vectors * LANES, np.float32)
        for head in range(start, stop):
            b = heads * size + head // (heads // groups) * keys
            c = b + groups * keys
            state[:] = 0
            for t in range(x.shape[0]):
                share = expf(step[t, head] * a[head])
                for j in range(size):
                    put[j] = x[t, head * size + j] * step[t, head]
                for i in range(keys):
                    for j in range(size):
                        state[i, j] = fma(state[i, j], share, x[t, b + i] * put[j])
                by_dot(keys, x, t * x.shape[1] + c, state, vectors, vectors * LANES, read)
                for j in range(size):
                    out[t, head * size + j] = read[j] + x[t, head * size + j] * d[head]

    return scan


_scan = cache(_compiled_scan)
_scan(WIDTHS[0])


def scan(x: Inputs, a: Floats, d: Floats, how: Scan, width: int) -> Floats:
    """A state space over all tokens, every head by itself from a state of zeros, (tokens, heads * head_dim).

    x : x, B and C (tokens, channels) and steps (tokens, heads). a, d : (heads,).
    """
    given, step = (np.ascontiguousarray(x[role]) for role in how.roles)
    heads, shape = step.shape[1], (how.groups, how.head_dim, how.state)
    out = lent((len(given), heads * how.head_dim), np.float32)
    over_rows(lambda start, stop: _scan(width)(given, step, a, d, shape, out, start, stop), heads)
    return out
