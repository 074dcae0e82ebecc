"""What a conversation is about: a session, its cells, where the user is, and the work that answers questions."""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.text import printable
from store.traces.run import RunRecord
from workbench.bisect.verdict import EXIT_CODES
from workbench.capture.job import CaptureJob, CaptureProcess, CellReady, Failed, Progress, SideReady
from workbench.cells.cell import Cell
from workbench.cells.compared_cells import NOT_COMPARABLE
from workbench.cells.comparison import Comparison
from workbench.cells.decomposition import Checked
from workbench.cells.metrics import METRICS, Metric
from workbench.cells.view import View
from workbench.jobs.inquiry import Doing, Inquiry, InquiryEvent, InquiryProcess, Kind, Logged, Refused
from workbench.jobs.known import Known
from workbench.machine.time_left import TimeLeft
from workbench.session.session import Session

_PAUSE = 5.0  # seconds between two sentences about how far something is


class Pace:
    """Says how far work is, once in a while."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._left = TimeLeft()

    def sentence(self, done: int, total: int, text: str) -> str | None:
        """Return what to say now, if anything."""
        now = time.monotonic()
        left = self._left.words(text.partition(" ")[0], done, total)
        if now - self._said < _PAUSE:
            return None
        self._said = now
        count = f"{done} of {total}" if total else "at work"
        return f"{printable(text, 100)}: {count}{left}."


@dataclass
class Investigation:
    """A session in a conversation.

    read : the next line that the user types after a question, None where the input ends. cells : in execution order.
    known : what the session has found out. view : where the user is, the metric and the tokens of all figures.
    """

    session: Session
    read: Callable[[str], str | None]
    runs: dict[str, RunRecord] = field(default_factory=dict)
    cells: dict[Site, Cell] = field(default_factory=dict)
    known: Known = field(default_factory=Known)

    def __post_init__(self) -> None:
        self.view = View.from_json(self.session.spec.view)

    @property
    def metric(self) -> Metric:
        """The metric that is told first of every cell."""
        return METRICS[self.view.metric]

    @property
    def comparison(self) -> Comparison:
        """All cells over the tokens of the view."""
        cells, (a, b) = list(self.cells.values()), (self.runs["a"], self.runs["b"])
        return Comparison(a, b, cells=cells, metric=self.metric, scope=self.view.tokens)

    @property
    def tokens(self) -> int:
        """Number of tokens that both sides ran."""
        return len(self.runs["a"].tokens)

    def exit_code(self) -> int:
        """That of the verdict, and where there is none that of the comparison."""
        if self.known.bisected is not None:
            return EXIT_CODES[self.known.bisected.found.verdict]
        return self.comparison.exit_code() if len(self.runs) == 2 else NOT_COMPARABLE

    def look_at(self, view: View) -> None:
        """Be somewhere else, or look at it in another way; the session keeps that."""
        self.view = view
        self.keep_view()

    def go(self, site: Site) -> None:
        """Go to a cell."""
        self.look_at(self.view._replace(cursor=site))

    def keep_view(self) -> None:
        """Save how the session is looked at."""
        if self.view != View.from_json(self.session.spec.view):
            self.session.save_view(self.view.to_json())

    def capture(self) -> Generator[str, None, None]:
        """Run both sides, or read what is captured already; yields how far that is. WorkbenchError if it fails."""
        pace = Pace()
        for event in CaptureProcess(CaptureJob.of(self.session)).events():
            match event:
                case Progress():
                    if (said := pace.sentence(event.done, event.total, f"{event.phase} {event.text}")) is not None:
                        yield said
                case SideReady():
                    self.runs[event.side] = event.run
                case CellReady():
                    self.cells[event.cell.site] = event.cell
                case Failed():
                    raise WorkbenchError(event.message)
        self.recall()

    def recall(self) -> None:
        """Take up what the log of the session knows about these files."""
        self.known = Known.of(self.session, self.runs)

    def ask(self, kind: Kind, **place: Any) -> Generator[str, None, InquiryEvent]:  # noqa: ANN401
        """Have a question answered by a process of its own; yields how far it is, returns the answer.

        WorkbenchError says why there is none.
        """
        pace, last = Pace(), None
        for event in InquiryProcess(Inquiry(self.session.folder, kind, **place)).events():
            match event:
                case Doing():
                    if (said := pace.sentence(event.done, event.total, event.text)) is not None:
                        yield said
                case Checked() | Logged():  # the log has it
                    pass
                case Refused():
                    raise WorkbenchError(event.message)
                case _:
                    last = event
        if last is None:
            raise WorkbenchError(f"{kind} has no answer; ask again")
        self.recall()
        return last
