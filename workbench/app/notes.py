"""Hypotheses in the application: writing them, listing them, testing them, and how they stand."""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from textual import work
from textual.message import Message
from textual.worker import get_current_worker

from kernels.stages import Site
from store.text import printable
from workbench.app.cell.inspector import compact_text
from workbench.app.inquiries import Inquiries

if TYPE_CHECKING:
    from textual.notifications import SeverityLevel

    from workbench.app.drafts import Draft
    from workbench.app.pages.hypotheses_screen import HypothesesScreen
    from workbench.lab.standing import Board


class Notes(Inquiries):
    """The part of the application that is about hypotheses."""

    @dataclasses.dataclass(eq=False, repr=False)
    class BoardRead(Message):
        """How the hypotheses of the session stand was found out."""

        board: "Board"

    def read_board(self) -> None:
        """Find out how the hypotheses stand, in the background: files may have to be hashed for it."""
        self._read_board()

    @work(thread=True, exclusive=True, group="board", exit_on_error=False)
    def _read_board(self) -> None:
        from workbench.lab.standing import board_of

        board = board_of(self.session)
        if not get_current_worker().is_cancelled:  # else a newer one is on its way, or was there before
            self.post_message(self.BoardRead(board))

    def on_notes_board_read(self, message: BoardRead) -> None:
        """Show it on the map and on the list."""
        self.map_screen.take_board(message.board)
        if (screen := self._listed()) is not None:
            screen.take_board(message.board)

    def on_map_screen_filled(self) -> None:
        """Once the map is there, find out what hypotheses say about its cells."""
        super().on_map_screen_filled()
        self.read_board()

    def action_add_note(self) -> None:
        """Write a hypothesis about the cell under the cursor."""
        from workbench.app.drafts import Draft, Drafts
        from workbench.app.pages.note_screen import NoteScreen
        from workbench.lab.proposals import proposals

        screen = self.map_screen
        site = screen.model.cursor
        evidence = compact_text(screen.report(), 64, 2)
        known = screen.bisected
        proposed = [] if known is None else [Draft(*each) for each in proposals(site, known.found)]

        def saved(path: str | None) -> None:
            if path is not None:
                self.notify(f"Saved: {printable(path, 400)}", markup=False)
                self.read_board()
            elif not drafts.get(site).empty:
                self.notify("The draft is kept.", markup=False)

        drafts, save = Drafts(self.session.folder), partial(self._save_note, site)
        self.push_screen(NoteScreen(site, evidence, drafts, save, proposed), saved)

    def _save_note(self, site: Site, draft: "Draft") -> str:
        """Write a hypothesis bound to what the map shows of a site; return where."""
        from workbench.lab.evidence import cell_evidence
        from workbench.lab.hypothesis import Hypothesis
        from workbench.lab.shelf import keep

        model = self.map_screen.model
        cell = model.cell(site)
        evidence = {} if cell is None else cell_evidence(cell, model.view.tokens, self.map_screen.runs)
        written = keep(
            self.session,
            Hypothesis(
                draft.title.strip(), site, draft.claim, draft.prediction, evidence=evidence, metric=model.metric.key
            ),
        )
        return str(self.session.hypotheses_folder / written.filename)

    def action_show_hypotheses(self) -> None:
        """List the hypotheses."""
        self.show_hypotheses(None)

    def show_hypotheses(self, number: int | None) -> None:
        """List the hypotheses, the cursor on one of them."""
        from workbench.app.pages.hypotheses_screen import HypothesesScreen

        self.push_screen(HypothesesScreen(self.session, number))

    def on_hypotheses_screen_cell_chosen(self, message: "HypothesesScreen.CellChosen") -> None:
        """Show the cell that a hypothesis is about."""
        while self.screen is not self.map_screen:
            self.pop_screen()
        self.map_screen.show_site(message.site)

    def on_hypotheses_screen_changed(self) -> None:
        """Find out what a change made of the others."""
        self.read_board()

    def on_hypotheses_screen_test_asked(self, message: "HypothesesScreen.TestAsked") -> None:
        """Test a hypothesis, or all."""
        self._ask("test", number=message.number)

    def heard_of_test(self, text: str) -> None:
        """Say how far a test is."""
        if (screen := self._listed()) is not None:
            screen.doing(text)

    def test_ended(self, text: str) -> None:
        """Say what became of a test."""
        self.heard_of_test("")
        severity: SeverityLevel = "warning" if "no answer" in text else "information"
        self.notify(printable(text.replace("\n", " │ "), 400), severity=severity, timeout=15, markup=False)
        self.read_board()

    def _listed(self) -> "HypothesesScreen | None":
        from workbench.app.pages.hypotheses_screen import HypothesesScreen

        return next((each for each in self.screen_stack if isinstance(each, HypothesesScreen)), None)
