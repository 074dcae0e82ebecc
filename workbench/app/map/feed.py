"""The capture as the map sees it: one child process whose events arrive as messages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from textual.message import Message

if TYPE_CHECKING:
    from workbench.capture.job import Event


class Capture(Protocol):
    """What the app needs of workbench.capture.job.CaptureProcess."""

    def events(self) -> Iterator["Event"]:
        """Events as they arrive, until the process ends."""

    def cancel(self) -> None:
        """End the process; returns when it has ended."""


StartCapture = Callable[[], Capture]


@dataclass(eq=False, repr=False)
class CaptureEvent(Message):
    """The capture said something."""

    event: "Event"


@dataclass(eq=False, repr=False)
class CaptureEnded(Message):
    """The capture process is gone, for whatever reason."""


class Feed:
    """One run of a capture. `follow` is for a worker thread; `stop` may be called from any other."""

    def __init__(self, start: StartCapture) -> None:
        self._start = start
        self._capture: Capture | None = None
        self._stopped = False

    def follow(self, post: Callable[[Message], object]) -> None:
        """Start the capture and post its events as they come, until it ends or is stopped."""
        try:
            self._capture = self._start()
            for event in self._capture.events():
                if self._stopped:
                    break
                post(CaptureEvent(event))
        finally:
            self.stop()
            post(CaptureEnded())

    def stop(self) -> None:
        """End the capture and wait for it; what it wrote stays and can be resumed."""
        self._stopped = True
        if self._capture is not None:
            self._capture.cancel()
