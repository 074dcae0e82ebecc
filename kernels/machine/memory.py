"""Memory for arrays: where a cache line begins, and used again instead of being new.

New memory costs a page fault every 4 KiB, and clearing it: more than many of the operations that need room.
"""

import math
from threading import RLock, local
from typing import Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from kernels.machine.compiler import helper

LINE = 64  # bytes of a cache line; a vector that lies across two takes twice as long to load
_MOST = 1 << 28  # bytes kept for the next arrays


def aligned(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """An empty array in new memory that begins with a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + LINE, np.uint8)
    skipped = -room.ctypes.data % LINE
    return room[skipped : skipped + size].view(dtype).reshape(shape)


_own = local()


def scratch(use: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """The same, from memory that the calling thread keeps: it is overwritten when the thread asks for `use` again."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room: NDArray[np.uint8] | None = getattr(_own, use, None)
    if room is None or room.size < size:
        room = aligned((size,), np.uint8)
        setattr(_own, use, room)
    return room[:size].view(dtype).reshape(shape)


def lent(shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
    """The same, from memory that an array before it may have had; it goes round when no array refers to it any more.

    The arrays of a layer have the sizes of those of the layer before.
    """
    block = _take(math.prod(shape) * np.dtype(dtype).itemsize)
    loan = _Loan(block)
    finalize(loan, _give_back, block).atexit = False
    return np.asarray(loan).view(dtype).reshape(shape)


class _Loan:
    """What the arrays in lent memory refer to."""

    def __init__(self, block: NDArray[np.uint8]) -> None:
        self.__array_interface__ = block.__array_interface__


_free: dict[int, list[NDArray[np.uint8]]] = {}  # by size
_lock = RLock()  # memory may be given back at any time, also by the thread that is taking some


def _take(size: int) -> NDArray[np.uint8]:
    with _lock:
        if _free.get(size):
            return _free[size].pop()
        if size > _kept():
            _free.clear()  # as logits are larger than all that layers need, which are behind then
    return aligned((size,), np.uint8)


def _kept() -> int:
    return sum(size * len(blocks) for size, blocks in _free.items())


def _give_back(block: NDArray[np.uint8]) -> None:
    with _lock:
        if _kept() + block.size > _MOST:
            _free.clear()  # of sizes, perhaps, that nobody needs any more
        _free.setdefault(block.size, []).append(block)


@helper()
def aligned_floats(count: int) -> NDArray[np.float32]:
    """`aligned` for kernels: `count` float32."""
    room = np.empty(count + LINE // 4, np.float32)
    skipped = -room.ctypes.data % LINE // 4
    return room[skipped : skipped + count]
