"""The part of the map's screen that runs a capture: what it says is taken in, and it can be stopped and resumed."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from textual import work

from store.text import printable
from workbench.app.laboratory import Laboratory
from workbench.app.map.feed import CaptureEvent, Feed, StartCapture
from workbench.app.map.keys import MapKeys
from workbench.app.map.words import Phase
from workbench.capture.job import CellReady, Failed, Finished, Progress, SideReady
from workbench.cells.cell import Cell

if TYPE_CHECKING:
    from store.traces.run import RunRecord


_COMPILING = "for this machine, once"  # the names of kernels say nothing to whoever waits


class Captures(MapKeys):
    """Runs what `start_capture` makes, and knows how far it is.

    runs : of the sides that have been opened, "a" and "b". asking : how far the work on a question is.
    """

    laboratory: Laboratory
    asking: str

    def __init__(self, start_capture: StartCapture) -> None:
        super().__init__()
        self.runs: dict[str, RunRecord] = {}
        self.phase: Phase = "running"
        self._start_capture = start_capture
        self._feed: Feed | None = None
        self._doing = "starting"
        self._changed = True  # whether what is said of the map has
        self._arrived = False  # whether cells have, that are not shown yet

    @abstractmethod
    def filled(self) -> None:
        """The capture is complete."""

    @abstractmethod
    def _show_cell(self) -> None:
        """Show the cell under the cursor."""

    @abstractmethod
    def _keys_changed(self) -> None:
        """Other keys can do something now."""

    @work(thread=True, exclusive=True, group="capture", exit_on_error=False)
    def follow_capture(self) -> None:
        """Run a capture and take in what it says."""
        feed = self._feed = Feed(self._start_capture)
        feed.follow(self.post_message)

    def leave_capture(self) -> None:
        """Leave no capture behind."""
        if self._feed is not None:
            self._feed.stop()

    def on_capture_event(self, message: CaptureEvent) -> None:
        """Take in one event."""
        match message.event:
            case Progress() as event:
                share = f" {event.done}/{event.total}" if event.total else ""
                text = _COMPILING if event.phase == "compile" else printable(event.text, 60)
                self._doing = f"{event.phase}{share} {text}"
            case SideReady() as event:
                self._side_ready(event.side, event.run)
            case CellReady() as event:
                self._cell_ready(event.cell)
            case Finished() as event:
                self.phase, self._doing = "finished", f"done in {event.seconds:.1f} s"
                self.filled()
                self._keys_changed()
            case Failed() as event if self.phase == "running":
                self._fail(printable(event.message, 400))
        self._changed = True

    def on_capture_ended(self) -> None:
        """Say how the capture ended, if it did not say so itself."""
        if self.phase == "stopping":
            self.phase, self._doing = "stopped", "stopped; r resumes"
        elif self.phase == "running":
            self._fail("the capture ended without a word; r tries again")
        self._changed = True
        self._keys_changed()

    def _fail(self, sentence: str) -> None:
        self.phase, self._doing = "failed", f"FAILED: {sentence}"
        self.notify(sentence, severity="error", timeout=15, markup=False)
        self._show_cell()
        self._keys_changed()

    def _side_ready(self, side: str, run: "RunRecord") -> None:
        self.runs[side] = run
        self.model.set_size(len(run.tokens), *(known.config for known in self.runs.values()))
        self.lay_out()

    def _cell_ready(self, cell: Cell) -> None:
        self.model.receive(cell)
        self._arrived = True
        if cell.site == self.model.cursor:
            self._show_cell()

    def action_cancel(self) -> None:
        """Stop the capture; when there is none, what is being worked on; else take the filter away."""
        if self.phase == "running" and self._feed is not None:
            self.phase, self._doing = "stopping", "stopping"
            self._changed = True
            self._keys_changed()
            self._stop(self._feed)
        elif self.laboratory.inquiry is not None:
            self.laboratory.give_up()
            self.asking = "giving up"
        elif self.model.view.filter:
            self.change_view(self.model.view._replace(filter=""))

    @work(thread=True, group="stop", exit_on_error=False)
    def _stop(self, feed: Feed) -> None:
        feed.stop()

    def action_resume(self) -> None:
        """Go on with a capture that was stopped or that failed."""
        self.model.forget()
        self.map.refresh()
        self.phase, self._doing = "running", "starting"
        self._keys_changed()
        self.follow_capture()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Offer to stop what runs, and to resume what was stopped."""
        if action == "resume":
            return self.phase in ("stopped", "failed")
        if action == "cancel":
            return self.phase == "running" or bool(self.asking or self.model.view.filter)
        return True
