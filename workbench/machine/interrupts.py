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

_GRACE = 5.0  # seconds for what is left to do: ending a child takes up to two
# Where an exception does harm: LLVM's objects are freed twice, locks of modules are never released again, and what a
# finalizer raises is ignored.
_UNSAFE = frozenset({"numba", "llvmlite", "importlib", "_frozen_importlib", "_frozen_importlib_external", "weakref"})
_GRACE_WHERE_UNSAFE, _LOOK = 1.0, 0.01  # seconds
# The ordinary screen, the cursor, no reports of the mouse, of pasting or of keys.
_PLAIN_SCREEN = b"\x1b[?1049l\x1b[?25h\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[<u"
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_received: list[int] = []
_restore: list[Callable[[], object]] = []  # what a screen owes to the terminal


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

    def told(number: int) -> None:
        if not _received:
            _received.append(number)
            _later(_GRACE, _end, number)
            end(number)

    import asyncio
    import termios

    with suppress(termios.error):
        _restore.append(partial(termios.tcsetattr, 0, termios.TCSANOW, termios.tcgetattr(0)))
    _restore.append(partial(os.write, 1, _PLAIN_SCREEN))
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, told, number)


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
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    for restore in _restore:
        with suppress(Exception):  # the terminal may be gone
            restore()
    with suppress(OSError):
        line = "\n" if os.isatty(2) else ""  # a progress line may stand there
        os.write(2, f"{line}workbench: {sentence(number)}\n".encode())
    os._exit(exit_code(number))


def _raise(number: int, frame: FrameType | None) -> None:
    if _received:
        _end(_received[0], frame)
    _received.append(number)
    _raise_where_safe(number, frame, _looks=int(_GRACE_WHERE_UNSAFE / _LOOK))


def _raise_where_safe(number: int, frame: FrameType | None, _looks: int) -> None:
    """Raise once nothing is going on that an exception would leave in disorder; end at once if that takes long."""
    if not _unsafe(frame):
        _later(_GRACE, _end, number)
        raise Ended(number)
    if _looks == 0:
        _end(number, frame)
    _later(_LOOK, partial(_raise_where_safe, _looks=_looks - 1), number)


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
        _received.clear()
        _later(0.001, _raise, unraisable.exc_value.number)
    else:
        sys.__unraisablehook__(unraisable)
