"""Arrays that begin where a cache line begins."""

import math
import threading
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


_kept = threading.local()


def scratch(use: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """The same, from memory that the calling thread keeps: it is overwritten when the thread asks for `use` again.

    New memory costs a page fault every 4 KiB, more than many of the operations that need room.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room: NDArray[np.uint8] | None = getattr(_kept, use, None)
    if room is None or room.size < size:
        room = aligned((size,), np.uint8)
        setattr(_kept, use, room)
    return room[:size].view(dtype).reshape(shape)


@helper()
def aligned_floats(count: int) -> NDArray[np.float32]:
    """The same for kernels: `count` float32."""
    room = np.empty(count + _LINE // 4, np.float32)
    skipped = -room.ctypes.data % _LINE // 4
    return room[skipped : skipped + count]
