"""Working through the tokens a few at a time, so that what is loaded for one serves its neighbours too."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import helper

TOKENS = 4  # taken together at most


def over_tokens(make: "partial[Callable[..., None]]") -> Callable[..., None]:
    """A kernel function of (tokens, *arguments) that calls f(t, *arguments) for groups of up to TOKENS tokens.

    make(k) gives the function f for k tokens t, t+1, ...; the groups cover range(tokens).
    """
    one, two, three, four = (make(count) for count in range(1, TOKENS + 1))

    @helper(of=(make.func.__qualname__, make.args))
    def run(tokens: int, *arguments: Any) -> None:  # noqa: ANN401
        for t in range(0, tokens, 4):
            left = tokens - t
            if left >= 4:
                four(t, *arguments)
            elif left == 3:
                three(t, *arguments)
            elif left == 2:
                two(t, *arguments)
            else:
                one(t, *arguments)

    return run


_LINE = 64  # bytes of a cache line; a vector that lies across two takes twice as long to load


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """An empty array that begins with a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + _LINE, np.uint8)
    skipped = -room.ctypes.data % _LINE
    return room[skipped : skipped + size].view(dtype).reshape(shape)


@helper()
def aligned_floats(count: int) -> NDArray[np.float32]:
    """The same for kernels: `count` float32."""
    room = np.empty(count + _LINE // 4, np.float32)
    skipped = -room.ctypes.data % _LINE // 4
    return room[skipped : skipped + count]
