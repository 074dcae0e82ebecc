"""What layers without attention compute from the tokens before, compiled."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import kernel
from kernels.machine.memory import lent
from kernels.machine.parallel import by_token

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
