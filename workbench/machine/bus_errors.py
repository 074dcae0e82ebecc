"""Models and traces are mapped, and reading a part of a map whose file was cut short meanwhile is a bus error.

Python can neither catch it nor go on after it. What it can do is to say so before it ends.
"""

import ctypes
import os
import signal
from typing import Any

from workbench.machine import terminal

CHANGED = "a file was cut short while it was read"
_NOT_ANSWERED = 2
_kept: list[Any] = []  # what C calls must not be collected


def tell_bus_errors() -> None:
    """End this process with a sentence and exit code 2 on a bus error from now on, where the system has them."""
    if not hasattr(signal, "SIGBUS") or _kept:
        return
    _kept.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(_end))
    ctypes.CDLL(None).signal(signal.SIGBUS, _kept[0])


def _end(_signal: int) -> None:
    terminal.end_with(f"{CHANGED}; run it again once the file is whole")
    os._exit(_NOT_ANSWERED)
