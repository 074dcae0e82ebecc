"""Questions at work, one at a time, each in a process of its own; what it says arrives as messages."""

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
    """Works on the last question asked; an earlier one is given up. Has no place on the screen."""

    @dataclass
    class Heard(Message):
        """The work on a question said something."""

        inquiry: "Inquiry"
        event: "InquiryEvent"

    @dataclass
    class Ended(Message):
        """Nobody works on the question any more, for whatever reason."""

        inquiry: "Inquiry"

    def __init__(self, start: StartInquiry) -> None:
        super().__init__()
        self.display = False
        self.inquiry: Inquiry | None = None
        self._start = start
        self._asking: Asking | None = None

    def ask(self, inquiry: "Inquiry") -> None:
        """Begin to work on a question."""
        self.cancel()
        self.inquiry = inquiry
        self._work(inquiry)

    def cancel(self) -> None:
        """Give the question up."""
        asking, self._asking, self.inquiry = self._asking, None, None
        if asking is not None:
            self._end(asking)

    def on_unmount(self) -> None:
        """Leave no process behind."""
        if self._asking is not None:
            self._asking.cancel()

    @work(thread=True, group="inquiry", exit_on_error=False)
    def _work(self, inquiry: "Inquiry") -> None:
        asking = self._start(inquiry)
        try:
            if self.inquiry is not inquiry:
                return
            self._asking = asking
            for event in asking.events():
                if self.inquiry is not inquiry:
                    break
                self.post_message(self.Heard(inquiry, event))
        finally:
            asking.cancel()
            self.post_message(self.Ended(inquiry))

    @work(thread=True, group="inquiry end", exit_on_error=False)
    def _end(self, asking: Asking) -> None:
        asking.cancel()
