"""The keys that ask a question about the pair: bisect, views, patch, parts, bytes, lab; and what is known of it."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual import work
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.message import Message
from textual.screen import Screen

from store.text import printable
from workbench.app.laboratory import Laboratory
from workbench.app.map.screen import MapScreen
from workbench.app.pages.lab_page import LabPage
from workbench.app.pages.page_screen import EvidenceScreen, PageScreen
from workbench.cells.decomposition import Checked
from workbench.cells.view import ASPECTS, OBSERVED
from workbench.jobs.inquiry import Answered, Doing, Found, Inquiry, Kind, Logged, Refused
from workbench.machine.time_left import TimeLeft

if TYPE_CHECKING:
    from workbench.app.cell.screen import CellScreen
    from workbench.app.pages.lab_screen import LabScreen
    from workbench.jobs.known import Known
    from workbench.session.session import Session

_WAIT = "The pair can be asked once the capture is complete, or stopped (esc)."
_OF_THE_MAP = ("bisect", "views", "examine")  # kinds that are answered on the map itself
_AROUND_DOING = 43  # columns around what is being done: which question, how far, the time left, how to stop


class Inquiries(App[int]):
    """The part of the application that asks and shows what is answered.

    bisects : whether the pair is bisected as soon as it was captured.
    """

    session: "Session"
    map_screen: MapScreen
    bisects: bool

    @dataclass(eq=False, repr=False)
    class KnownRead(Message):
        """What the session knows of its pair was read from its log; `first` when the capture is complete."""

        known: "Known"
        first: bool

    def __init__(self) -> None:
        super().__init__()
        self._pages: dict[Inquiry, Screen[None]] = {}  # on which a question is answered
        self._time_left = TimeLeft()
        self.exporting = False  # whether findings are asked for and not written yet
        self._going = False  # to the culprit, once it is known

    @abstractmethod
    def export(self, lacking: tuple[str, ...]) -> None:
        """Write the findings; `lacking` says what could not be had of what they rest on."""

    # The verdict

    def on_map_screen_filled(self) -> None:
        """Find out what the session knows already, and what that leaves to ask."""
        self._read_known(first=True)

    @work(thread=True, exclusive=True, group="known", exit_on_error=False)
    def _read_known(self, first: bool = False) -> None:
        from workbench.jobs.known import Known

        self.post_message(self.KnownRead(Known.of(self.session, self.map_screen.runs), first))

    def on_inquiries_known_read(self, message: KnownRead) -> None:
        """Show it on the map; at first also ask what nobody has found out yet."""
        screen, known = self.map_screen, message.known
        if not screen.children:  # the app is being left
            return
        before = screen.bisected
        screen.take_known(known)
        new = known.bisected is not None and (before is None or before.time != known.bisected.time)
        if new and not message.first and self.screen is not screen:
            self.notify("The verdict is ready; it stands above the map.", markup=False)
        if message.first:
            if known.bisected is None and self.bisects:
                self._ask("examine")
            self._ask_for_view()
        if self._going and known.bisected is not None and self.screen is screen:
            self.action_bisect()

    def action_bisect(self) -> None:
        """Go to what the verdict accuses, then to its evidence; where there is no verdict, find it."""
        screen = self.map_screen
        bisected = screen.bisected
        if bisected is None:
            self._going = self._ask("examine")
            return
        self._going = False
        site = screen.accused
        if site is not None and site != screen.model.cursor:
            screen.show_site(site)
        else:
            self.push_screen(EvidenceScreen(screen.evidence(), bisected.text))

    def action_bisect_again(self) -> None:
        """Find the first cell that is really wrong once more."""
        self._going = self._ask("bisect")

    async def action_open(self) -> None:
        """Go to the evidence at the cell that the verdict accuses, elsewhere into the cell."""
        screen = self.map_screen
        bisected = screen.bisected
        if bisected is not None and screen.accused == screen.model.cursor:
            self.push_screen(EvidenceScreen(screen.evidence(), bisected.text))
        else:
            await self.run_action("app.open_cell")

    # Other questions

    def action_cycle_aspect(self) -> None:
        """Show the next view of the cells; what takes running them again is run when it is first shown."""
        screen, names = self.map_screen, list(ASPECTS)
        aspect = names[(names.index(screen.model.view.aspect) + 1) % len(names)]
        screen.change_view(screen.model.view._replace(aspect=aspect))
        self._ask_for_view()

    def _ask_for_view(self) -> None:
        screen = self.map_screen
        if screen.model.view.aspect != OBSERVED and not screen.model.viewed:
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
        self._ask_on(page, "lab", experiment=message.experiment, site=message.site, settings=message.settings)

    def on_cell_screen_bytes_asked(self, message: "CellScreen.BytesAsked") -> None:
        """Show what an element was computed from."""
        title = f"bytes of {message.site}, token {message.token} channel {message.channel}"
        self._ask("bytes", title, site=message.site, token=message.token, channel=message.channel)

    def action_export(self) -> None:
        """Write the findings, once it was found out what they rest on."""
        self.exporting = self._ask("examine")
        if self.exporting:
            self.map_screen.saver.now()
            self.notify("Finding what the findings rest on, then writing them.", markup=False)

    def _ask(self, kind: Kind, title: str = "", **place: Any) -> bool:  # noqa: ANN401
        """Ask a question; one with a title is answered on a page of its own. Returns whether it could be asked."""
        return self._ask_on(PageScreen(title) if title else None, kind, **place)

    def _ask_on(self, page: Screen[None] | None, kind: Kind, **place: Any) -> bool:  # noqa: ANN401
        """Ask a question that is answered on a page."""
        if self.map_screen.phase in ("running", "stopping"):
            self.notify(_WAIT, markup=False)
            return False
        inquiry, laboratory = Inquiry(self.session.folder, kind, **place), self.map_screen.laboratory
        if page is not None:
            self._pages[inquiry] = page
            self.push_screen(page)
        if laboratory.inquiry not in (None, inquiry):
            self.notify(f"It is answered after the work on {laboratory.inquiry.kind}.", markup=False)
        laboratory.ask(inquiry)
        self._say_doing(inquiry.kind)
        return True

    def pop_screen(self) -> AwaitComplete:
        """Leave a page; nobody waits any longer for what it was to show."""
        left = self.screen
        for inquiry in [inquiry for inquiry, page in self._pages.items() if page is left]:
            del self._pages[inquiry]
            self.map_screen.laboratory.give_up(inquiry)
        return super().pop_screen()

    # What is answered

    def on_laboratory_heard(self, message: Laboratory.Heard) -> None:
        """Show how far the work is, or what it found."""
        inquiry, event = message.inquiry, message.event
        page = self._pages.get(inquiry)
        match event:
            case Doing():
                left = self._time_left.words(f"{inquiry}{event.text.partition(' ')[0]}", event.done, event.total)
                room = min(max(self.size.width - _AROUND_DOING, 20), 60)
                self._say_doing(f"{event.done}/{event.total} {printable(event.text, room)}{left}", inquiry)
            case Checked():
                self.map_screen.take_checked(event)
            case Logged():
                self._read_known()
            case Answered() | Refused() if inquiry.kind == "test":
                self.test_ended(f"no answer: {event.message}" if isinstance(event, Refused) else event.text)
            case Answered() | Refused() if inquiry.kind in _OF_THE_MAP:
                self._answered_on_map(inquiry.kind, event)
            case Answered() if isinstance(page, PageScreen):
                page.fill(event.text)
                self._read_known()  # an exchange may prove the verdict
            case Found() if isinstance(page, LabPage):
                page.take(event.record)
            case Refused() if isinstance(page, PageScreen | LabPage):
                page.fill(printable(event.message, 1000))

    def _answered_on_map(self, kind: Kind, event: Answered | Refused) -> None:
        lacking = (event.message,) if isinstance(event, Refused) else tuple(event.text.splitlines())
        if kind == "views" and isinstance(event, Answered):
            self.map_screen.model.viewed = True
        elif kind == "examine" and self.exporting:
            self.export(lacking)
        elif isinstance(event, Refused) or kind == "examine":
            self.map_screen.take_refusal(lacking)
            for sentence in lacking:
                self.notify(printable(sentence, 400), severity="warning", timeout=15, markup=False)
        self._read_known()

    def on_laboratory_ended(self, message: Laboratory.Ended) -> None:
        """Say no longer that something is at work; what follows says so itself."""
        self._pages.pop(message.inquiry, None)
        if message.inquiry.kind == "examine" and self.map_screen.laboratory.given_up:
            self.exporting = False
        if self.map_screen.laboratory.inquiry is None:
            self.map_screen.asking = ""

    def _say_doing(self, text: str, inquiry: Inquiry | None = None) -> None:
        """Say how far the work is: on the map, and on the page that waits for it."""
        if inquiry is not None and isinstance(page := self._pages.get(inquiry), PageScreen | LabPage):
            page.doing(text)
        if inquiry is not None and inquiry.kind == "test":
            self.heard_of_test(text)
        waiting = len(self.map_screen.laboratory.waiting)
        more = f", {waiting} more wait{'s' * (waiting == 1)}" if waiting else ""
        what = "" if inquiry is None else f"{inquiry.kind} "
        self.map_screen.asking = f"{what}{text} (esc stops{more})"

    def heard_of_test(self, text: str) -> None:
        """Say how far a test of a hypothesis is."""

    def test_ended(self, text: str) -> None:
        """Say what became of a test of a hypothesis."""
