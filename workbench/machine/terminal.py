"""The terminal while the app holds it: given back as it was, however the process ends.

Textual gives it back when it comes to its own end. A process that is told to end, or that a bus error ends, may not get
there, and Textual's thread may still be painting.
"""

import os
import sys
import time
from contextlib import suppress
from typing import Any

# In Textual's order, as a screen has keys of its own: painting, pasting, wrapping, size, mouse, focus, keys; then the
# ordinary screen, colours and the cursor.
_PLAIN = (
    "\x1b[?2026l\x1b[?2004l\x1b[?7h\x1b[?2048l\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?1004l"
    "\x1b[<u\x1b[?1049l\x1b[0m\x1b[?25h"
)
_PATIENCE, _PAUSE = 0.5, 0.005  # seconds: for a terminal that takes nothing, and between two attempts
_BROWSER = "textual.drivers.web_driver:WebDriver"
_INPUT, _SCREEN = 0, 2  # what Textual reads, and where it paints

_modes: list[Any] | None = None
_terminal: int | None = None  # a way to the terminal of our own, which neither waits nor is painted to


def is_there() -> bool:
    """Whether the app has what it needs: keys to read, a screen, and stderr as well, since Textual paints there.

    A browser is a terminal too: whoever serves the app to it names the driver that talks to it in the environment.
    """
    return os.environ.get("TEXTUAL_DRIVER") == _BROWSER or all(
        stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)
    )


def hold() -> None:
    """Remember how the terminal is: the app is about to take it."""
    global _modes, _terminal
    try:
        import termios

        _modes = termios.tcgetattr(_INPUT)
    except (ImportError, termios.error):
        _modes = None
    with suppress(OSError):
        _terminal = os.open(os.ttyname(_SCREEN), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)


def returned() -> None:
    """Forget it: the app has given it back."""
    global _terminal
    if _terminal is not None:
        os.close(_terminal)
    _terminal = None


def end_with(sentence: str) -> None:
    """Say the last words on stderr, after giving the terminal back where the app holds it; no more is painted then.

    The process must end now. Nothing is waited for long, and nothing is raised: the terminal may be gone.
    """
    line = f"workbench: {sentence}\n"
    with suppress(OSError):
        if _terminal is None:
            os.write(2, ("\n" + line if os.isatty(2) else line).encode())  # a progress line may stand there
        else:
            os.dup2(os.open(os.devnull, os.O_WRONLY), _SCREEN)
            give_back(line)


def give_back(words: str = "") -> None:
    """Give the terminal back if the app holds it, and write something there."""
    if _terminal is None:
        return
    if _modes is not None and _in_foreground():
        import termios

        with suppress(termios.error):
            termios.tcflush(_INPUT, termios.TCIFLUSH)  # what it still answers is not for the shell
            termios.tcsetattr(_INPUT, termios.TCSANOW, _modes)
    _write(_terminal, (_PLAIN + words).encode())
    returned()


def _write(terminal: int, left: bytes) -> None:
    end = time.monotonic() + _PATIENCE
    while left and time.monotonic() < end:
        try:
            left = left[os.write(terminal, left) :]
        except BlockingIOError:  # it is full, or what was being painted is not there yet
            time.sleep(_PAUSE)
        except OSError:
            return


def _in_foreground() -> bool:
    """Whether the terminal's modes are ours to change: else whoever has taken it over changes them itself."""
    try:
        return os.tcgetpgrp(_INPUT) == os.getpgrp()
    except OSError:  # it controls no process
        return True
