"""The Textual application: it holds the screens together and does what can be done from more than one of them.

All screens but the map are loaded when they are asked for, so that the map is there at once.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.dom import DOMNode
from textual.message import Message
from textual.screen import Screen

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.app.actions import EVERYWHERE
from workbench.app.copying import Copies
from workbench.app.garbage import LooksForGarbageAtRest
from workbench.app.jumps import Jumps
from workbench.app.laboratory import StartInquiry
from workbench.app.map.feed import Capture, StartCapture
from workbench.app.map.screen import MapScreen
from workbench.app.notes import Notes
from workbench.app.pages.palette import ActionProvider, PlaceProvider, TokenProvider
from workbench.app.painting import PaintsChanges
from workbench.app.preferences import USUAL, Preferences
from workbench.app.reasons import why_not
from workbench.app.tour import Guides, was_shown
from workbench.app.workers import ReportsWorkerErrors
from workbench.capture.job import CaptureJob, CaptureProcess
from workbench.cells.cell import Cell
from workbench.cells.kept_cells import KeptCells
from workbench.cells.stage_tensors import stage_tensors
from workbench.jobs.inquiry import InquiryProcess
from workbench.machine import interrupts
from workbench.pair.sources import Tensors, open_artifacts, open_captured, tensor_types

if TYPE_CHECKING:
    from textual.actions import ActionParseResult

    from workbench.cells.elements import Elements
    from workbench.cells.view import TokenScope
    from workbench.conventions.ledger import Ledger
    from workbench.session.session import Session
    from workbench.tensors.sweep import TensorDifference

BUSY = "The tensors can be read once the capture is complete, or stopped (esc)."


class WorkbenchApp(ReportsWorkerErrors, PaintsChanges, LooksForGarbageAtRest, Notes, Jumps, Copies, Guides):
    """Shows a session.

    start_capture : makes the process that runs the pair; by default that of the session. start_inquiry : makes the
    process that works on a question. bisects : whether the pair is bisected as soon as it was captured. tour : whether
    a user who has not seen the tour is shown it.
    """

    TITLE = "workbench"
    CSS_PATH = "app.tcss"
    NOTIFICATION_TIMEOUT = 4
    COMMANDS: ClassVar = {ActionProvider, PlaceProvider, TokenProvider}
    AUTO_FOCUS = "MapView, LineList, OptionList, Input"

    @dataclasses.dataclass(eq=False, repr=False)
    class Exported(Message):
        """The findings were written."""

        path: Path

    def __init__(
        self,
        session: "Session",
        start_capture: StartCapture | None = None,
        start_inquiry: StartInquiry = InquiryProcess,
        bisects: bool = True,
        preferences: Preferences = USUAL,
        tour: bool = False,
    ) -> None:
        super().__init__()
        self.obey(preferences)
        self.session = session
        self.bisects = bisects
        self._building = False
        self._captured: Tensors | KeptCells | None = None
        self._opening = Lock()
        self._begins_with_tour = tour
        self.map_screen = MapScreen(
            session, start_capture or partial(_capture_process, session), start_inquiry, preferences.metric
        )

    def get_default_screen(self) -> Screen[None]:
        """Start with the map."""
        return self.map_screen

    def on_load(self) -> None:
        """Before the screen is taken: give it back if this process is told to end."""
        interrupts.tell(self._told_to_end)
        self._building = True

    def on_ready(self) -> None:
        """Once the first frame is there, look for garbage again if `run` has put that off."""
        self._building = False
        if (number := interrupts.received()) is not None:
            self._told_to_end(number)
        if self._begins_with_tour and not was_shown():
            self.action_tour()
        self.begin_looking()

    def _told_to_end(self, number: int) -> None:
        if not self._building:  # Textual would leave the screen half built, and go on with the other half
            self.exit(interrupts.exit_code(number))

    async def run_action(
        self,
        action: "str | ActionParseResult",
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Do nothing as long as the map is not there: its keys have priority, and would come to it before.

        What cannot be done now says why.
        """
        if not self.map_screen.is_mounted:
            return False
        if isinstance(action, str) and (sentence := why_not(self.screen, action)):
            self.notify(sentence, markup=False)
            return False
        done = await super().run_action(action, default_namespace, namespaces)
        if done and isinstance(action, str):
            self.tour_saw(action)
        return done

    async def action_quit(self) -> None:
        """Leave; the verdict of the bisection is the exit code, or where there is none what the map says."""
        if self.exporting:
            self.exporting = False
            self.notify("The findings are not written yet; q again leaves without them.", markup=False)
            return
        screen = self.map_screen
        from workbench.bisect.verdict import EXIT_CODES
        from workbench.jobs.bisected import standing_bisection

        known = (
            standing_bisection(self.session, screen.runs)
            if len(screen.runs) == 2 and screen.phase != "failed"
            else None
        )
        self.exit(screen.exit_code() if known is None else EXIT_CODES[known.found.verdict])

    def action_show_help(self) -> None:
        """List every key, those of this screen first; from the list, go back."""
        from workbench.app.pages.help_screen import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
            return
        self.push_screen(HelpScreen(str(getattr(self.screen, "NAME", EVERYWHERE)), self.bound, self.session.folder))

    # Into a cell

    def action_open_cell(self) -> None:
        """Open the elements of the cell under the cursor."""
        cell = self.map_screen.model.cell(self.map_screen.model.cursor)
        if cell is None or self.map_screen.model.measures(cell.site) is None:
            self.notify("There are no elements to show here.", markup=False)
        elif self.map_screen.phase in ("running", "stopping"):
            self.notify(BUSY, markup=False)
        else:
            from workbench.app.cell.screen import CellScreen

            model, config = self.map_screen.model, self.map_screen.runs["a"].config
            scope, read = model.view.tokens, partial(self._elements, cell, model.view.tokens)
            describe = partial(tensor_types, self.session, config)
            population = scope.label(model.tokens) + (f", {printable(cell.note, 200)}" if cell.note else "")
            self.push_screen(CellScreen(cell.site, population, read, config, describe))

    def _elements(self, cell: Cell, scope: "TokenScope") -> "Elements":
        """Read the elements of a cell over the tokens of a scope."""
        return self._stored().elements(cell, scope)

    def _stored(self) -> Tensors | KeptCells:
        """Open what is stored of both sides; kept once the capture is complete, as nothing changes it any more."""
        with self._opening:
            captured = self._captured or open_captured(self.session)
            self._captured = captured if self.map_screen.phase == "finished" else None
        return captured

    @work(thread=True, exclusive=True, group="ahead", exit_on_error=False)
    def _load_ahead(self) -> None:
        """Load what the keys open most, so that their first use does not wait for it."""
        import workbench.app.cell.screen
        import workbench.app.pages.help_screen  # noqa: F401

        with suppress(WorkbenchError):  # whoever opens a cell is told
            self._stored()

    def on_map_screen_filled(self) -> None:
        """Once the map is there, load ahead."""
        super().on_map_screen_filled()
        self._load_ahead()

    # Weights, configuration, export

    def action_show_weights(self) -> None:
        """Compare every weight tensor; start at the one that the cell under the cursor uses."""
        runs = self.map_screen.runs
        names = stage_tensors(self.map_screen.model.cursor, runs["a"].config) if "a" in runs else ()
        self.show_weights(names[0] if names else None)

    def show_weights(self, name: str | None) -> None:
        """Compare every weight tensor, the cursor on one of them."""
        from workbench.app.pages.weights_screen import WeightsScreen

        self.push_screen(WeightsScreen(self._sweep, name))

    def _sweep(self) -> Iterator[tuple["TensorDifference", int]]:
        from workbench.tensors.sweep import sweep, tensor_names

        a, b = open_artifacts(self.session)
        expected = len(tensor_names(a, b))
        return ((difference, expected) for difference in sweep(a, b))

    def action_show_conventions(self) -> None:
        """Show what was done to the tensors of both sides, and how often it shows."""
        from workbench.app.pages.conventions_screen import ConventionsScreen

        self.push_screen(ConventionsScreen(self._ledgers))

    def _ledgers(self) -> tuple["Ledger", "Ledger"]:
        from workbench.conventions.ledger import ledgers

        return ledgers(*open_artifacts(self.session))

    def action_show_config(self) -> None:
        """Show both configurations side by side."""
        from workbench.app.pages.config_screen import ConfigScreen

        runs = self.map_screen.runs
        if len(runs) < 2:
            self.notify("The configurations are shown as soon as both sides have been opened.", markup=False)
        else:
            self.push_screen(ConfigScreen(runs["a"], runs["b"]))

    def action_export(self) -> None:
        """Write the findings."""
        if self.map_screen.phase != "finished":
            self.notify("The findings can be exported once the capture is complete.", markup=False)
        else:
            super().action_export()

    def export(self, lacking: tuple[str, ...]) -> None:
        """Write the findings; `lacking` says what could not be had."""
        self._export(lacking)

    @work(thread=True, exclusive=True, group="export", exit_on_error=False)
    def _export(self, lacking: tuple[str, ...]) -> None:
        from workbench.report import export

        try:
            self.post_message(self.Exported(export(self.session, lacking=lacking).path))
        finally:
            self.exporting = False

    def on_workbench_app_exported(self, message: Exported) -> None:
        """Say where the findings are."""
        self.notify(f"Written: {printable(str(message.path), 400)}", timeout=15, markup=False)


def _capture_process(session: "Session") -> Capture:
    return CaptureProcess(CaptureJob.of(session))
