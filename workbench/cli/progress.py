"""How far a command has come: a line on stderr, nothing where stderr is not a terminal; and how long the rest takes."""

import shutil
import sys
import time
from types import TracebackType

from store.text import printable
from workbench.machine.time_left import TimeLeft

_INTERVAL = 0.1  # seconds between two paintings
_BAR = 20  # characters
_MANY = 100_000  # steps beyond which, as with bytes, a share says more than their number


class ProgressLine:
    """Shows the latest progress on one line, and takes the line away when the work is done."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._painted = 0.0
        self._width = 0
        self._left = TimeLeft()

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._paint("")

    def __call__(self, done: int, total: int, text: str) -> None:
        """Show `done` of `total` steps, and what is being done; total 0 where it is not known."""
        now = time.monotonic()
        if not self._terminal:
            return
        left = self._left.words(text.partition(" ")[0], done, total)
        if now - self._painted < _INTERVAL:
            return
        self._painted = now
        full = round(_BAR * min(done, total) / total) if total else 0
        count = f"{100 * done // total} %" if total > _MANY else f"{done}/{total}"
        bar = f"[{'#' * full}{'-' * (_BAR - full)}] {count}{left}  " if total else ""
        self._paint(bar + printable(text))

    def _paint(self, line: str) -> None:
        if not self._terminal or not (line or self._width):
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write("\r" + line.ljust(self._width) + ("" if line else "\r"))
        sys.stderr.flush()
        self._width = len(line)
