"""When the app looks for garbage: while nobody waits for it."""

import gc
import time

from textual.app import App
from textual.events import Event, InputEvent

_NEW = 2_000  # objects between two looks among them: a look at so few takes less than 1 ms
_NEVER = 1 << 30
_REST = 0.5  # seconds without a key, after which a look among all objects, of a tenth of a second, is in nobody's way
_WORTH = 4  # looks among the younger ones, after which one among all is worth it


class LooksForGarbageAtRest(App[int]):
    """An app that looks among all objects for garbage only when no key has come for a while.

    Python looks among all when enough have become old, which a key that opens a screen makes them: its first use took
    the tenth of a second more that this takes.
    """

    _last_input = 0.0  # in seconds, as `time.monotonic` counts
    _looked = 0

    def begin_looking(self) -> None:
        """Look for garbage from now on: no object is any that was there before. For the app that `run` has begun."""
        if not gc.isenabled():
            self._last_input, self._looked = time.monotonic(), self._younger_looks()
            gc.freeze()
            gc.set_threshold(_NEW, gc.get_threshold()[1], _NEVER)
            gc.enable()
            self.set_interval(_REST, self._look)

    async def on_event(self, event: Event) -> None:
        """Know when the user did something last."""
        if isinstance(event, InputEvent):
            self._last_input = time.monotonic()
        await super().on_event(event)

    def _look(self) -> None:
        rests = time.monotonic() - self._last_input >= _REST
        if rests and self._younger_looks() - self._looked >= _WORTH:
            gc.collect()
            self._looked = self._younger_looks()

    @staticmethod
    def _younger_looks() -> int:
        """How often Python has looked among the middle-aged objects."""
        return int(gc.get_stats()[1]["collections"])
