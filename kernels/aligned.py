"""Arrays that begin where a cache line begins."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.compiler import helper

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
