"""The keys that ask a question about the pair: bisect, views, patch, parts, bytes, lab."""

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual.app import App
from textual.screen import Screen

from kernels.stages import Site
from store.text import printable
from workbench.app.laboratory import Laboratory
from workbench.app.map.screen import MapScreen
from workbench.app.pages.lab_page import LabPage
from workbench.app.pages.page_screen import PageScreen, VerdictScreen
from workbench.cells.decomposition import Checked
from workbench.cells.view import ASPECTS, OBSERVED
from workbench.jobs.inquiry import Answered, Doing, Found, Inquiry, Kind, Refused

if TYPE_CHECKING:
    from workbench.app.cell.screen import CellScreen
    from workbench.app.pages.lab_screen import LabScreen
    from workbench.jobs.bisected import Bisected
    from workbench.session.session import Session

_ON_THE_MAP = ("bisect", "views", "examine")  # kinds of which the map says how far they are
_WAIT = "The pair can be asked once the capture is complete, or stopped (esc)."


class Inquiries(App[int]):
    """The part of the application that asks and shows what is answered."""

    session: "Session"
    map_screen: MapScreen

    @abstractmethod
    def examined(self, lacking: tuple[str, ...]) -> None:
        """Go on once everything that the findings rest on was found; `lacking` says what could not be had."""

    def action_bisect(self) -> None:
        """Show the verdict that the session holds, or find it."""
        known = self.standing_bisection()
        if known is not None:
            self._show_verdict(known.text, None if known.found.culprit is None else known.found.culprit.site)
        else:
            self.action_bisect_again()

    def action_bisect_again(self) -> None:
        """Find the first cell that is really wrong."""
        self._ask("bisect")

    def action_cycle_aspect(self) -> None:
        """Show the next view of the cells; what takes running them again is run when it is first shown."""
        screen, names = self.map_screen, list(ASPECTS)
        aspect = names[(names.index(screen.model.view.aspect) + 1) % len(names)]
        screen.change_view(replace(screen.model.view, aspect=aspect))
        self.on_map_screen_filled()

    def on_map_screen_filled(self) -> None:
        """Run the cells again if the view needs that; a reopened session may."""
        screen = self.map_screen
        busy = screen.laboratory.inquiry
        if screen.model.view.aspect != OBSERVED and not screen.model.viewed and (busy is None or busy.kind != "views"):
            self._ask("views")

    def action_patch(self) -> None:
        """Exchange the stage under the cursor."""
        site = self.map_screen.model.cursor
        self._ask("patch", f"patch {site}", site=site)

    def action_show_parts(self) -> None:
        """Show where in the cell its local error sits."""
        site = self.map_screen.model.cursor
        self._ask("parts", f"local error of {site}", site=site)

    def action_show_lab(self) -> None:
        """List the experiments."""
        from workbench.app.pages.lab_screen import LabScreen

        self._ask_on(LabScreen(self.map_screen.model.cursor), "lab")

    def on_lab_screen_asked(self, message: "LabScreen.Asked") -> None:
        """Run an experiment, and show what comes out."""
        from workbench.app.pages.experiment_screen import ExperimentScreen

        where = "published input" if message.site is None else str(message.site)
        page = ExperimentScreen(f"{message.experiment} on {where}")
        self._ask_on(page, "lab", experiment=message.experiment, site=message.site)

    def on_cell_screen_bytes_asked(self, message: "CellScreen.BytesAsked") -> None:
        """Show what an element was computed from."""
        title = f"bytes of {message.site}, token {message.token} channel {message.channel}"
        self._ask("bytes", title, site=message.site, token=message.token, channel=message.channel)

    def _ask(self, kind: Kind, title: str = "", **place: Any) -> None:  # noqa: ANN401
        """Ask a question; one with a title is answered on a page of its own."""
        self._ask_on(PageScreen(title) if title else None, kind, **place)

    def _ask_on(self, page: Screen[None] | None, kind: Kind, **place: Any) -> None:  # noqa: ANN401
        """Ask a question that is answered on a page."""
        if self.map_screen.phase in ("running", "stopping"):
            self.notify(_WAIT, markup=False)
            return
        if page is not None:
            self.push_screen(page)
        self.map_screen.laboratory.ask(Inquiry(self.session.folder, kind, **place))
        self.map_screen.asking = kind if kind in _ON_THE_MAP else ""

    def on_laboratory_heard(self, message: Laboratory.Heard) -> None:
        """Show how far the work is, or what it found."""
        inquiry, event, screen = message.inquiry, message.event, self.map_screen
        if inquiry is not screen.laboratory.inquiry:
            return
        page = self.screen if isinstance(self.screen, PageScreen | LabPage) else None
        match event:
            case Doing() if inquiry.kind in _ON_THE_MAP:
                screen.asking = f"{inquiry.kind} {event.done}/{event.total} {printable(event.text, 60)} (esc stops)"
            case Doing() if inquiry.kind == "test":
                self.heard_of_test(f"{event.done}/{event.total} {printable(event.text, 60)}")
            case Doing() if page is not None:
                page.doing(f"{event.done}/{event.total} {printable(event.text, 60)}")
            case Checked():
                screen.take_checked(event)
            case Answered() if inquiry.kind == "bisect":
                self._show_verdict(event.text, event.site)
            case Answered() if inquiry.kind == "views":
                screen.model.viewed = True
            case Answered() if inquiry.kind == "examine":
                self.examined(tuple(event.text.splitlines()))
            case Refused() if inquiry.kind == "examine":
                self.examined((event.message,))
            case Answered() if inquiry.kind == "test":
                self.test_ended(event.text)
            case Answered() if isinstance(page, PageScreen):
                page.fill(event.text)
            case Found() if isinstance(page, LabPage):
                page.take(event.record)
            case Refused() if inquiry.kind == "test":
                self.test_ended(f"no answer: {event.message}")
            case Refused() if page is not None:
                page.fill(printable(event.message, 1000))
            case Refused():
                self.notify(printable(event.message, 400), severity="error", timeout=15, markup=False)

    def on_laboratory_ended(self, message: Laboratory.Ended) -> None:
        """Say no longer that something is at work."""
        laboratory = self.map_screen.laboratory
        if laboratory.inquiry in (message.inquiry, None):
            laboratory.cancel()
            self.map_screen.asking = ""

    def heard_of_test(self, text: str) -> None:
        """Say how far a test of a hypothesis is."""

    def test_ended(self, text: str) -> None:
        """Say what became of a test of a hypothesis."""

    def _show_verdict(self, text: str, site: Site | None) -> None:
        if site is not None:
            self.map_screen.show_site(site)
        self.push_screen(VerdictScreen(text))

    def standing_bisection(self) -> "Bisected | None":
        """The last bisection in the session's log, if it was about the files that the map shows."""
        from workbench.jobs.bisected import standing_bisection

        return standing_bisection(self.session, self.map_screen.runs)
