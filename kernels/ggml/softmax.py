"""Softmax and exponentials as llama.cpp's CPU backend computes them, bit for bit (ops.cpp, vec.cpp, unary-ops.cpp)."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.c_library import expf
from kernels.ggml.exponential import powers_and_sum
from kernels.machine.compiler import helper, kernel

Floats = NDArray[np.float32]


def shares(width: int) -> Callable[..., Any]:
    """A kernel function of (p, unseen, seen, stop, sink), by a build with vectors of `width` lanes.

    It makes shares of the scores p[unseen:seen] in place, and zeros of all others up to `stop`. sink : one more score,
    whose share is lost; NaN for none.
    """
    powers = powers_and_sum(width)

    @helper(of=width)
    def softmax(p, unseen, seen, stop, sink):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Shares of the scores p[unseen:seen], in place; zero from there on up to `stop`. sink : NaN for none."""
        largest = np.float32(-np.inf)
        for s in range(unseen, seen):
            largest = max(largest, p[s])
        if sink == sink:
            largest = max(largest, sink)
        p[:unseen] = -np.inf
        p[seen:stop] = -np.inf
        whole = stop // width * width
        total = powers(p, largest, whole)
        for s in range(whole, stop):
            p[s] = expf(p[s] - largest)
            total += np.float64(p[s])
        if sink == sink:
            total += np.float64(expf(sink - largest))
        share = np.float32(1.0 / total)
        for s in range(stop):
            p[s] *= share

    return softmax


def _compiled(width: int) -> Callable[..., None]:
    softmax = shares(width)

    @kernel("void(float32[:, ::1])", of=width)
    def softmax_of_rows(x: Floats) -> None:
        for row in range(x.shape[0]):
            softmax(x[row], 0, x.shape[1], x.shape[1], np.float32(np.nan))

    return softmax_of_rows


_softmax = cache(_compiled)


def softmax(x: Floats, width: int) -> Floats:
    """exp(x) / sum(exp(x)) over the last axis of x (tokens, scores)."""
    out = np.array(x, dtype=np.float32, order="C")
    _softmax(width)(out)
    return out


@kernel("void(float32[::1], float32[::1])")
def _exp(x: Floats, out: Floats) -> None:
    for i in range(x.size):
        out[i] = expf(x[i])


def exp(x: Floats) -> Floats:
    """The exponential of any array, as the C library has it."""
    flat = np.array(x, dtype=np.float32, order="C").reshape(-1)
    out = np.empty_like(flat)
    _exp(flat, out)
    return out.reshape(x.shape)
