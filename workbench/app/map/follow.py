"""What follows the cursor: it waits until the cursor rests, so that a key that is held is painted first."""

from collections.abc import Callable

from textual.message_pump import MessagePump
from textual.timer import Timer

REST = 0.02  # seconds without a move; a held key comes every 30 ms or so


class Follow:
    """Calls back once the cursor rests; `screen` owns the timer."""

    def __init__(self, screen: MessagePump, callback: Callable[[], None]) -> None:
        self._screen = screen
        self._callback = callback
        self._timer: Timer | None = None

    @property
    def pending(self) -> bool:
        """Whether the cursor has moved and there was no call since."""
        return self._timer is not None

    def moved(self) -> None:
        """Wait anew."""
        if self._timer is not None:
            self._timer.stop()
        self._timer = self._screen.set_timer(REST, self._rests)

    def _rests(self) -> None:
        self._timer = None
        self._callback()
