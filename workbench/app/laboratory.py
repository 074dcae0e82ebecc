"""Questions at work, one at a time and in the order asked, each in a process of its own; what it says are messages."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from textual import work
from textual.message import Message
from textual.widget import Widget

from workbench.app.workers import ReportsWorkerErrors

if TYPE_CHECKING:
    from workbench.jobs.inquiry import Inquiry, InquiryEvent


class Asking(Protocol):
    """What the app needs of workbench.jobs.inquiry.InquiryProcess."""

    def events(self) -> Iterator["InquiryEvent"]:
        """Events as they arrive, until the process ends."""

    def cancel(self) -> None:
        """End the process; returns when it has ended."""


StartInquiry = Callable[["Inquiry"], Asking]


class Laboratory(ReportsWorkerErrors, Widget):
    """Works on the first question asked; others wait. Has no place on the screen.

    inquiry : the question at work. waiting : those that follow. given_up : whether the last was not to be answered.
    """

    @dataclass(eq=False, repr=False)
    class Heard(Message):
        """The work on a question said something."""

        inquiry: "Inquiry"
        event: "InquiryEvent"

    @dataclass(eq=False, repr=False)
    class Ended(Message):
        """Nobody works on the question any more, for whatever reason."""

        inquiry: "Inquiry"

    def __init__(self, start: StartInquiry) -> None:
        super().__init__()
        self.display = False
        self.inquiry: Inquiry | None = None
        self.waiting: deque[Inquiry] = deque()
        self._start = start
        self._asking: Asking | None = None
        self.given_up = False

    def ask(self, inquiry: "Inquiry") -> None:
        """Work on a question, after those that were asked before; one that waits already is not asked twice."""
        if inquiry != self.inquiry and inquiry not in self.waiting:
            self.waiting.append(inquiry)
            self._begin()

    def give_up(self, inquiry: "Inquiry | None" = None) -> None:
        """Give a question up; None for the one at work."""
        if inquiry is not None and inquiry in self.waiting:
            self.waiting.remove(inquiry)
        elif self.inquiry is not None and inquiry in (None, self.inquiry):
            self.given_up = True
            if self._asking is not None:
                self._end(self._asking)

    def on_unmount(self) -> None:
        """Leave no process behind."""
        self.waiting.clear()
        self.given_up = True
        if self._asking is not None:
            self._asking.cancel()

    def on_laboratory_heard(self, message: Heard) -> None:
        """Keep what a question that was given up still says to ourselves."""
        if self.given_up or message.inquiry is not self.inquiry:
            message.stop()

    def on_laboratory_ended(self) -> None:
        """Turn to the next question."""
        self.inquiry = self._asking = None
        self._begin()

    def _begin(self) -> None:
        if self.inquiry is None and self.waiting:
            self.inquiry, self.given_up = self.waiting.popleft(), False
            self._work(self.inquiry)

    @work(thread=True, group="inquiry", exit_on_error=False)
    def _work(self, inquiry: "Inquiry") -> None:
        asking = None
        try:
            asking = self._asking = self._start(inquiry)
            for event in asking.events() if not self.given_up else ():
                if self.given_up:
                    break
                self.post_message(self.Heard(inquiry, event))
        finally:
            if asking is not None:
                asking.cancel()
            self.post_message(self.Ended(inquiry))

    @work(thread=True, group="inquiry end", exit_on_error=False)
    def _end(self, asking: Asking) -> None:
        asking.cancel()
