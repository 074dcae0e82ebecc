"""What layers without attention compute from the tokens before, compiled."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.graph import Array, Inputs
from kernels.kinds.delta import DeltaNet
from kernels.kinds.scan import Scan
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.parallel import by_token, over_rows

Real = TypeVar("Real", np.float32, np.float64)


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[::1], float32[:, ::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[::1], float64[:, ::1], int64, int64)",
)
def _convolved(
    x: NDArray[Real], weight: NDArray[Real], bias: NDArray[Real], out: NDArray[Real], start: int, stop: int
) -> None:
    taps, channels = weight.shape
    for t in range(start, stop):
        for i in range(channels):
            out[t, i] = 0
        for tap in range(max(taps - 1 - t, 0), taps):
            earlier = t - (taps - 1 - tap)
            for i in range(channels):
                out[t, i] += weight[tap, i] * x[earlier, i]
        for i in range(channels):
            out[t, i] += bias[i]


def convolved(x: NDArray[Real], weight: NDArray[Real], bias: NDArray[Real] | None) -> NDArray[Real]:
    """The sum over taps of weight[:, tap] * x[token - taps + 1 + tap], the farthest token first, plus the bias.

    x (tokens, channels); weight (channels, taps), bias (channels,); before the first token there are zeros. In the
    dtype of x.
    """
    out = lent(x.shape, x.dtype.type)
    taps = np.ascontiguousarray(weight.T)
    added = np.zeros(x.shape[1], x.dtype) if bias is None else bias
    by_token(lambda t: _convolved(x, taps, added, out, t.start, t.stop), x.shape)
    return out


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], "
    "int64, int64, int64, boolean, float64[:, :, ::1], float32[:, ::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], "
    "int64, int64, int64, boolean, float64[:, :, ::1], float64[:, ::1], int64, int64)",
)
def _delta(
    q: NDArray[Real],
    k: NDArray[Real],
    v: NDArray[Real],
    beta: NDArray[Real],
    decay: NDArray[Real],
    groups: int,
    size: int,
    value_start: int,
    tiled: bool,
    states: NDArray[np.float64],
    out: NDArray[Real],
    start: int,
    stop: int,
) -> None:
    """The heads from start to stop. states (heads, values, keys) : zeros."""
    heads, keys = beta.shape[1], q.shape[1] // groups
    scale = 1 / np.sqrt(keys)
    for head in range(start, stop):
        first = (head % groups if tiled else head // (heads // groups)) * keys
        state = states[head]
        for t in range(q.shape[0]):
            share, rate = np.exp(np.float64(decay[t, head])), np.float64(beta[t, head])
            for j in range(size):
                held = 0.0
                for i in range(keys):
                    state[j, i] *= share
                    held += state[j, i] * np.float64(k[t, first + i])
                step = (np.float64(v[t, value_start + head * size + j]) - held) * rate
                read = 0.0
                for i in range(keys):
                    state[j, i] += step * np.float64(k[t, first + i])
                    read += state[j, i] * np.float64(q[t, first + i])
                out[t, head * size + j] = read * scale


def delta(x: Inputs, how: DeltaNet) -> Array:
    """The gated delta rule over all tokens, every head by itself from a state of zeros, (tokens, heads * head_dim).

    x : q, k (tokens, groups * keys); v (tokens, channels), of which the values start at how.value_start; beta, decay
    (tokens, heads). States and the sums over them are float64.
    """
    q, k, v, beta, decay = (x[role] for role in how.roles)
    heads = beta.shape[1]
    out = lent((len(q), heads * how.head_dim), q.dtype.type)
    states = np.zeros((heads, how.head_dim, q.shape[1] // how.groups))

    def compute(start: int, stop: int) -> None:
        shape = how.groups, how.head_dim, how.value_start, how.tiled
        _delta(q, k, v, beta, decay, *shape, states, out, start, stop)

    over_rows(compute, heads)
    return out


@kernel(
    "void(float32[:, ::1], float32[:, ::1], float32[::1], float32[::1], int64, int64, float64[:, :, ::1], "
    "float32[:, ::1], int64, int64)",
    "void(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], int64, int64, float64[:, :, ::1], "
    "float64[:, ::1], int64, int64)",
)
def _scan(
    x: NDArray[Real],
    step: NDArray[Real],
    a: NDArray[Real],
    d: NDArray[Real],
    groups: int,
    size: int,
    states: NDArray[np.float64],
    out: NDArray[Real],
    start: int,
    stop: int,
) -> None:
    """The heads from start to stop. states (heads, channels, state) : zeros."""
    heads, keys = step.shape[1], states.shape[2]
    for head in range(start, stop):
        b = heads * size + head // (heads // groups) * keys
        c = b + groups * keys
        state = states[head]
        for t in range(x.shape[0]):
            rate = np.float64(step[t, head])
            share = np.exp(rate * np.float64(a[head]))
            for j in range(size):
                put, read = np.float64(x[t, head * size + j]) * rate, 0.0
                for i in range(keys):
                    state[j, i] = state[j, i] * share + np.float64(x[t, b + i]) * put
                    read += state[j, i] * np.float64(x[t, c + i])
                out[t, head * size + j] = read + np.float64(d[head]) * np.float64(x[t, head * size + j])


def scan(x: Inputs, a: Array, d: Array, how: Scan) -> Array:
    """A state space over all tokens, every head by itself from a state of zeros, (tokens, heads * head_dim).

    x : x, B and C (tokens, channels) and steps (tokens, heads). a, d : (heads,). States and the sums over them are
    float64.
    """
    given, step = (x[role] for role in how.roles)
    heads = step.shape[1]
    out = lent((len(given), heads * how.head_dim), given.dtype.type)
    states = np.zeros((heads, how.head_dim, how.state))

    def compute(start: int, stop: int) -> None:
        _scan(given, step, a, d, how.groups, how.head_dim, states, out, start, stop)

    over_rows(compute, heads)
    return out
