"""How long work will still take, from how long it took so far."""

import time

_ENOUGH = 1.0  # seconds of work before which nothing is foretold


class TimeLeft:
    """Follows one piece of work after another."""

    def __init__(self) -> None:
        self._phase, self._since, self._first = "", 0.0, 0

    def words(self, phase: str, done: int, total: int) -> str:
        """Return ", about 8 s left", or nothing as long as that is not known.

        phase : what is being done; time is counted anew when that changes.
        """
        now = time.monotonic()
        if phase != self._phase or done < self._first:
            self._phase, self._since, self._first = phase, now, done
        elapsed, steps = now - self._since, done - self._first
        if elapsed < _ENOUGH or steps <= 0 or total <= done:
            return ""
        seconds = elapsed / steps * (total - done)
        return f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
