"""Ctrl-C, and a process that is told to end: at any instant, in one sentence, with 128 + the signal's number.

Python raises an exception wherever it happens to be, and some places swallow it (a finalizer, a callback from C), never
come back (a lock of the import machinery) or crash (LLVM's objects). So an exception is raised where that is safe, and
who is told to end gets a moment for it, and is then ended.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import NoReturn

from workbench.machine import terminal

_GRACE = 5.0  # seconds for what is left to do: ending a child takes up to two
# Where an exception does harm: LLVM's objects are freed twice, locks of modules are never released again, and what a
# finalizer raises is ignored.
_UNSAFE = frozenset({"numba", "llvmlite", "importlib", "_frozen_importlib", "_frozen_importlib_external", "weakref"})
_GRACE_WHERE_UNSAFE, _LOOK = 1.0, 0.01  # seconds
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_received: list[int] = []


class Ended(KeyboardInterrupt):
    """Somebody told the process to end, by the signal of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def sentence(number: int) -> str:
    """What is said of a signal that ended the program."""
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def exit_code(number: int) -> int:
    """As shells report it."""
    return 128 + number


def end_at_once() -> None:
    """From now on nothing is lost if the process just ends: while the program is loaded, and when it is through."""
    _handle(_end)


def unwind() -> None:
    """From now on let whatever is going on be wound up."""
    sys.unraisablehook = _not_swallowed
    _handle(_raise)


def tell(end: Callable[[int], object]) -> None:
    """From now on let the running event loop call end(number), which must leave what holds the terminal."""
    if sys.unraisablehook is not _not_swallowed:
        return  # this is not the program, but a test

    import asyncio

    loop = asyncio.get_running_loop()

    def told(number: int, _frame: FrameType | None) -> None:
        if not _received:
            _received.append(number)
            with suppress(RuntimeError):  # the loop has just come to its own end
                loop.call_soon_threadsafe(wind_up, number)

    def wind_up(number: int) -> None:
        _later(_GRACE, _end, number)
        end(number)

    _handle(told)
    if _received:  # it was to be raised where that is safe: once the terminal is taken, that is nowhere
        wind_up(_received[0])
    terminal.hold()


def received() -> int | None:
    """The signal that told this process to end, if any."""
    return _received[0] if _received else None


def leave(status: int) -> NoReturn:
    """End the process at once: Python's own way to the end waits for threads, and has no answer to a signal."""
    end_at_once()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code(_received[0]) if _received else status)


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    terminal.end_with(sentence(number))
    os._exit(exit_code(number))


def _raise(number: int, frame: FrameType | None) -> None:
    if _received:
        _end(_received[0], frame)
    _received.append(number)
    _raise_where_safe(number, frame)


def _raise_where_safe(number: int, frame: FrameType | None, waited: float = 0.0) -> None:
    """Raise once nothing is going on that an exception would leave in disorder; end at once if that takes long."""
    if not _unsafe(frame):
        _later(_GRACE, _end, number)
        raise Ended(number)
    if waited >= _GRACE_WHERE_UNSAFE:
        _end(number, frame)
    _later(_LOOK, partial(_raise_where_safe, waited=waited + _LOOK), number)


def _unsafe(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _UNSAFE:
            return True
        frame = frame.f_back
    return False


def _later(seconds: float, handler: Callable[[int, FrameType | None], None], number: int) -> None:
    signal.signal(signal.SIGALRM, lambda _alarm, frame: handler(number, frame))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _not_swallowed(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raise once more what Python was about to ignore: a moment later, because from here it would be ignored too."""
    if isinstance(unraisable.exc_value, Ended):
        _later(0.001, _raise_where_safe, unraisable.exc_value.number)
    else:
        sys.__unraisablehook__(unraisable)
