"""Waiting for another thread for a moment without going to sleep: a hint, on which nothing but time depends."""

import platform
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from kernels.machine.compiler import kernel
from kernels.machine.vectors import Vectors, array_intrinsic

_ROUNDS = 16_000  # 0.2 ms, some times what waking up takes
_COURTESY = 600  # 8 us: who raised the flag holds the interpreter's lock still, and to find it taken means to sleep


def _emit_looks_raised(b: Any, flag: Any) -> Any:  # noqa: ANN401
    """Load what another thread may have written; in between, let the processor know that this is waiting."""
    if platform.machine() in ("x86_64", "AMD64"):
        Vectors(b).call("llvm.x86.sse2.pause", ir.VoidType())
    return b.load_atomic(flag, "monotonic", 8)


_looks_raised = array_intrinsic(1, types.int64, _emit_looks_raised)


@kernel("void(int64[::1], int64, int64)")
def _look_out(flag: NDArray[np.int64], rounds: int, courtesy: int) -> None:
    for _ in range(rounds):
        if _looks_raised(flag) != 0:
            break
    flag[0] = 0
    for _ in range(courtesy):
        _looks_raised(flag)


class Flag:
    """Raised by one thread, looked out for by another."""

    def __init__(self) -> None:
        self._raised = np.zeros(1, np.int64)

    def raise_(self) -> None:
        """Let whoever looks out know."""
        self._raised[0] = 1

    def look_out(self) -> None:
        """Return when the flag is raised, or after a moment; the flag is down again."""
        _look_out(self._raised, _ROUNDS, _COURTESY)
