"""Ctrl-C, and a process that is told to end: at any instant, in one sentence, with 128 + the signal's number.

Python raises an exception wherever it happens to be, and some places swallow it (a finalizer, a callback from C) or
never come back (a lock of the import machinery). So whoever is told to end gets a moment for it, and is then ended.
"""

import os
import signal
import sys
from types import FrameType

_GRACE = 3.0  # seconds for what is left to do: ending a child takes up to two
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_received: list[int] = []


class Ended(KeyboardInterrupt):
    """This process was told to end by the signal of that number."""

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


def received() -> int | None:
    """The signal that told this process to end, if any."""
    return _received[0] if _received else None


def leave(status: int) -> None:
    """End the process; after a signal without waiting for threads that may still be at work."""
    if received() is None:
        end_at_once()
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(exit_code(_received[0]))


def _handle(handler: object) -> None:
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, handler)  # type: ignore[arg-type]


def _end(number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, f"workbench: {sentence(number)}\n".encode())
    finally:
        os._exit(exit_code(number))


def _raise(number: int, frame: FrameType | None) -> None:
    if _received:
        _end(_received[0], frame)
    _received.append(number)
    signal.signal(signal.SIGALRM, lambda *_: _end(number, None))
    signal.setitimer(signal.ITIMER_REAL, _GRACE)
    raise Ended(number)


def _not_swallowed(unraisable: "sys.UnraisableHookArgs") -> None:
    """Raise once more, in the main thread, what Python was about to ignore."""
    if isinstance(unraisable.exc_value, Ended):
        _received.clear()
        signal.raise_signal(unraisable.exc_value.number)
    else:
        sys.__unraisablehook__(unraisable)
