"""The main screen: the map, the cell under the cursor, and what the capture is doing."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.message import Message
from textual.widgets import Static

from kernels.stages import Site
from store.text import printable
from workbench.app.actions import bindings
from workbench.app.cell.inspector import CellReport, Inspector
from workbench.app.key_line import KeyLine
from workbench.app.laboratory import Laboratory, StartInquiry
from workbench.app.map.arrangement import arrangement
from workbench.app.map.capture import Captures
from workbench.app.map.feed import StartCapture
from workbench.app.map.follow import Follow
from workbench.app.map.model import MapModel
from workbench.app.map.saving import ViewSaver
from workbench.app.map.undo import Undo
from workbench.app.map.view import MapView
from workbench.app.map.words import claims_by_site, headline, legend, next_steps, side_name, status
from workbench.app.status_line import StatusLine
from workbench.app.workers import ReportsWorkerErrors
from workbench.cells.cell import Cell
from workbench.cells.decomposition import Checked
from workbench.cells.view import OBSERVED, View
from workbench.pair.sources import open_tensors

if TYPE_CHECKING:
    from workbench.app.cell.evidence import Section
    from workbench.app.map.below import Below
    from workbench.jobs.bisected import Bisected
    from workbench.jobs.known import Known
    from workbench.lab.standing import Board
    from workbench.session.session import Session

SMALLEST = (60, 20)
REFRESH = 0.1  # seconds between two paintings of what has arrived


class MapScreen(ReportsWorkerErrors, Captures):
    """Shows a session; `start_capture` makes the process that fills it, `metric` is what a new map opens on.

    asking : how far the work on a question is; empty when there is none.
    """

    NAME = "map"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    @dataclass(eq=False, repr=False)
    class Aligned(Message):
        """Last-token cells of stages whose whole populations are unlike."""

        cells: list[Cell]

    class Filled(Message):
        """The capture is complete."""

    def __init__(
        self, session: "Session", start_capture: StartCapture, start_inquiry: StartInquiry, metric: str
    ) -> None:
        super().__init__(start_capture)
        self.session = session
        self.model = MapModel(View.from_json({"metric": metric} | session.spec.view))
        self.model.set_size(len(session.spec.tokens))
        self.laboratory = Laboratory(start_inquiry)
        self._asking = ""
        self.follow = Follow(self, self._cursor_rests)
        self.undo = Undo()
        self._below: Below | None = None
        self._second = False  # whether a second map is asked for
        self.saver = ViewSaver(self, self.model, session)
        self.known: Known | None = None
        self._refusal = ""  # why there is no verdict
        self._hypotheses: dict[Site, list[str]] = {}  # what is claimed of a cell, and how that stands

    def compose(self) -> ComposeResult:
        """Lay out the verdict, the map, the inspector, the legend and the keys."""
        yield StatusLine(id="headline")
        yield StatusLine(id="status")
        with Container(id="body"):
            with Container(id="left"), Container(id="maps"):
                yield MapView(self.model, id="map")
            yield Inspector(id="inspector")
        yield self.laboratory
        yield Static(legend(self.model.view.aspect, ()), id="legend", markup=False)
        yield Static(f"The map needs {SMALLEST[0]}x{SMALLEST[1]} characters.", id="too-small", markup=False)
        yield KeyLine()

    def on_mount(self) -> None:
        """Paint first; only then add what has nothing to show yet, and start the capture."""
        self.set_interval(REFRESH, self._refresh_changed)
        self._refresh_changed()
        self.call_after_refresh(self._after_paint)

    async def _after_paint(self) -> None:
        from workbench.app.map.below import Below
        from workbench.app.map.second import SecondMap

        self._below = Below(self.model, self.query_one("#map", MapView), self.session.folder)
        for place, widget in (("#maps", SecondMap(self.model)), ("#left", self._below)):
            if not (there := self.query_one(place)).is_attached:
                return  # the app is being left already
            await there.mount(widget)
        self.lay_out()
        self.follow_capture()

    def on_unmount(self) -> None:
        """Leave no capture behind, and save the view."""
        self.leave_capture()
        self.saver.now()

    # Layout

    def on_resize(self) -> None:
        """Fit the map and the inspector to the terminal."""
        self.lay_out()

    def lay_out(self) -> None:
        """Put the inspector beside the map or below it, and a second map beside it if one is asked for and fits."""
        width, height = self.size
        panel, stage_rows, maps, shared = arrangement(width, height, self.model, self._second)
        self.set_class(width < SMALLEST[0] or height < SMALLEST[1], "-too-small")
        self.set_class(panel > 0, "-panel")
        self.set_class(panel > 0 or height > 24, "-legend")
        self.set_class(height > 24, "-high")
        self.set_class(maps > 1, "-two")
        self.query_one(Inspector).beside(panel)
        for view in self.query(MapView):
            view.lay_out(stage_rows, shared)
        self._changed = True
        self.follow.moved()  # the cell is shown once the map was painted

    @property
    def two(self) -> bool:
        """Whether a second map stands beside the first."""
        return self.has_class("-two")

    def action_second(self) -> None:
        """Show two maps beside one another, or one again."""
        self._second = not self._second
        self.lay_out()
        if self._second and not self.two:
            self._second = False
            self.notify("Two maps do not fit beside one another; / shows fewer layers, z takes some together.")

    # The view

    def change_view(self, view: View) -> None:
        """Show the map in another way, and keep the one before."""
        self.undo.leaving(self.model.view)
        self.show_view(view)

    def show_view(self, view: View) -> None:
        """Show the map in another way, and save that soon."""
        self.model.set_view(view)
        self.lay_out()
        self._align_if_needed()
        self._view_changed()

    def on_map_view_cursor_moved(self) -> None:
        """Show the cell when the cursor rests, and save where it is."""
        if self.two:
            for view in self.query(MapView):
                view.follow()
        self.follow.moved()
        self.saver.soon()

    async def on_map_view_opened(self) -> None:
        """Open the cell that was clicked."""
        await self.run_action("app.open_cell")

    def _view_changed(self) -> None:
        self._changed = True
        self._refresh_changed()  # in one painting with the map
        self._keys_changed()  # a filter can be taken away
        self.saver.soon()

    def filled(self) -> None:
        """Measure what could not be compared before, and tell the app."""
        self._align_if_needed()
        self.post_message(self.Filled())

    # Questions about the pair

    @property
    def asking(self) -> str:
        """How far the work on a question is; empty when there is none."""
        return self._asking

    @asking.setter
    def asking(self, text: str) -> None:
        begins_or_ends = bool(self._asking) != bool(text)
        self._asking, self._changed = text, True
        if begins_or_ends:
            self._keys_changed()

    def take_checked(self, checked: Checked) -> None:
        """Show a cell that was run again."""
        self.model.check(checked)
        self._changed = self._arrived = True
        if checked.cell.site == self.model.cursor:
            self._show_cell()

    def take_board(self, board: "Board") -> None:
        """Show beside a cell what is claimed of it, and how that stands."""
        self._hypotheses = claims_by_site(board)
        if self.model.cursor in self._hypotheses:
            self._show_cell()

    # Aligning to the last token

    def _align_if_needed(self) -> None:
        """Measure stages of unlike populations at their last tokens, as soon as the tensors can be read."""
        unlike = [site for site, cell in self.model.cells.items() if cell.status == "uncomparable"]
        waiting = [site for site in unlike if site not in self.model.aligned]
        if waiting and self.model.view.tokens.kind == "last" and self.phase in ("finished", "stopped"):
            self._align(waiting)

    @work(thread=True, exclusive=True, group="align", exit_on_error=False)
    def _align(self, sites: list[Site]) -> None:
        self.post_message(self.Aligned(open_tensors(self.session).align(sites)))

    def on_map_screen_aligned(self, message: Aligned) -> None:
        """Show cells whose last tokens could be compared."""
        self.model.align(message.cells)
        self.map.refresh()
        self._show_cell()

    # The verdict

    @property
    def bisected(self) -> "Bisected | None":
        """The verdict on the files that the map shows."""
        return None if self.known is None else self.known.bisected

    @property
    def accused(self) -> Site | None:
        """The cell that the verdict is about, if it is about one."""
        found = None if self.bisected is None else self.bisected.found
        return None if found is None else found.first_divergent if found.culprit is None else found.culprit.site

    def take_known(self, known: "Known") -> None:
        """Show the verdict, and what it says of the cells."""
        self.known = known
        if known.bisected is not None:
            self._refusal = ""
        self.model.take_known(known)
        self._changed = self._arrived = True
        self.lay_out()

    def take_refusal(self, lacking: tuple[str, ...]) -> None:
        """Say why there is no verdict, where there is none."""
        self._refusal = lacking[0] if lacking else ""
        self._changed = True

    def evidence(self) -> "tuple[Section, ...]":
        """Return why the verdict holds."""
        from workbench.app.cell.evidence import evidence

        logits = next((cell for cell in self.model.cells.values() if cell.logits is not None), None)
        return () if self.known is None else evidence(self.known, logits)

    def exit_code(self) -> int:
        """Answer as `compare` does: 0 alike, 1 different, 2 if nothing could be compared."""
        from workbench.cells.compared_cells import NOT_COMPARABLE
        from workbench.cells.comparison import Comparison

        if len(self.runs) < 2 or self.phase == "failed":
            return NOT_COMPARABLE
        cells = list(self.model.cells.values())
        a, b, view = self.runs["a"], self.runs["b"], self.model.view
        return Comparison(a, b, cells=cells, metric=self.model.metric, scope=view.tokens).exit_code()

    # Words

    def _cursor_rests(self) -> None:
        self._show_cell()
        if self._below is not None:
            self._below.show()

    def _show_cell(self) -> None:
        self.query_one(KeyLine).next_steps(*self._next_steps())
        if self.phase == "failed" and self.model.cell(self.model.cursor) is None:
            self.query_one(Inspector).say(self._doing)
            return
        self.query_one(Inspector).show(self.report())

    def report(self) -> CellReport:
        """Return what there is to say about the cell under the cursor."""
        cell, spec = self.model.cell(self.model.cursor), self.session.spec
        return CellReport(
            site=self.model.cursor,
            cell=cell,
            row=None if cell is None else self.model.row(cell),
            metric=self.model.metric,
            scope=self.model.view.tokens.label(self.model.tokens),
            sides=(side_name(spec.a, self.runs.get("a")), side_name(spec.b, self.runs.get("b"))),
            session=printable(self.session.folder.name, 60),
            checked=self.model.checked.get(self.model.cursor),
            again_first=self.model.view.aspect != OBSERVED,
            mark=self.model.marks.get(self.model.cursor),
            evidence=self.evidence() if self.accused == self.model.cursor else (),
            hypotheses=tuple(self._hypotheses.get(self.model.cursor, ())),
        )

    def _say_verdict(self) -> None:
        """Say the verdict above the map, or what there is instead, and which keys come next."""
        line = self.query_one("#headline", StatusLine)
        kind, text = headline(self.bisected, self.phase, self._refusal, self._bisecting)
        line.set_classes(f"-{kind}")
        line.say(text)
        self.query_one(KeyLine).next_steps(*self._next_steps())

    def _keys_changed(self) -> None:
        for line in self.query(KeyLine):  # there is none any more when the app is being left
            line.refresh()

    @property
    def _bisecting(self) -> bool:
        inquiry = self.laboratory.inquiry
        return inquiry is not None and inquiry.kind in ("bisect", "examine")

    def _next_steps(self) -> tuple[str, ...]:
        return next_steps(self.phase, self.known, self.accused, self.model.cursor, self._bisecting)

    def _refresh_changed(self) -> None:
        """Show the cells that have arrived, what is shown of them and how far it is."""
        if self._arrived:
            self._arrived = False
            if self.model.folded:
                self.model.fold(True)
                self.lay_out()
            for view in self.query(MapView):
                view.refresh()
            if self._below is not None:
                self._below.later()
        if self._changed:
            self._changed = False
            self._say_verdict()
            self.query_one("#status", StatusLine).say(
                status(self.model, self.phase, self._doing, self._asking, self.two)
            )
            marks = set(self.model.marks.values())
            self.query_one("#legend", Static).update(
                legend(
                    self.model.view.aspect,
                    marks,
                    self.model.second_aspect if self.two else "",
                    small=self.map.shared > 0,
                ),
                layout=False,
            )
