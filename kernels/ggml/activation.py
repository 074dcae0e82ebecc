"""SiLU as llama.cpp's CPU backend computes it, bit for bit (ggml-cpu/vec.cpp `ggml_vec_silu_f32`)."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from kernels.c_library import expf
from kernels.ggml.exponential import silu_vectors
from kernels.ggml.order import WIDTHS
from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.parallel import by_token

Floats = NDArray[np.float32]


def _compiled(width: int) -> Callable[..., None]:
    vectors = silu_vectors(width)

    @kernel("void(float32[:, ::1], float32[:, ::1])", of=width)
    def silu_of_rows(x: Floats, out: Floats) -> None:
        n = x.shape[1]
        for t in range(x.shape[0]):
            vectors(x, t * n, n, out)
            for i in range(n // width * width, n):
                out[t, i] = x[t, i] / (np.float32(1) + expf(-x[t, i]))

    return silu_of_rows


_silu = cache(_compiled)
_silu(WIDTHS[0])


def silu(x: Floats, width: int) -> Floats:
    """x / (1 + exp(-x)) of x (tokens, channels), as a build with vectors of `width` lanes computes it."""
    out = lent(x.shape, np.float32)
    by_token(lambda t: _silu(width)(x[t], out[t]), x.shape)
    return out
