"""The hypotheses of a session: their status, their files, and the files that a hand has broken."""

import os
import shlex
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import SuspendNotSupported
from textual.binding import BindingType
from textual.message import Message

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.text import printable
from workbench.app.actions import bindings
from workbench.app.pages.list_screen import ListScreen
from workbench.app.workers import complain
from workbench.cells.metrics import METRICS, format_value
from workbench.lab.hypotheses import STATUSES, Hypothesis
from workbench.lab.shelf import keep, shelf_of

if TYPE_CHECKING:
    from workbench.session.session import Session


class HypothesesScreen(ListScreen):
    """Lists the hypotheses."""

    NAME = "hypotheses"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))
    HEAD = f"{'no':>3} {'status':<10} {'cell':<27} title"

    class CellChosen(Message):
        """The user wants to see the cell that a hypothesis is about."""

        def __init__(self, site: Site) -> None:
            super().__init__()
            self.site = site

    def __init__(self, session: "Session") -> None:
        super().__init__()
        self._session = session
        self._hypotheses: list[Hypothesis] = []
        self._problems: list[str] = []

    def on_mount(self) -> None:
        """Read the files."""
        self._reload()

    def on_line_list_chosen(self) -> None:
        """Go to the cell."""
        self.action_go_to_cell()

    def action_go_to_cell(self) -> None:
        """Go to the cell that the hypothesis is about."""
        if (chosen := self._chosen()) is not None:
            self.app.post_message(self.CellChosen(chosen.site))

    def action_next_status(self) -> None:
        """Give the hypothesis its next status, and save it."""
        if (chosen := self._chosen()) is None:
            return
        status = STATUSES[(STATUSES.index(chosen.status) + 1) % len(STATUSES)]
        try:
            keep(self._session, replace(chosen, status=status))
        except WorkbenchError as error:
            complain(self.app, error)
        self._reload()

    def action_edit(self) -> None:
        """Open the file in the user's editor."""
        if (chosen := self._chosen()) is None:
            return
        path = self._session.hypotheses_folder / chosen.filename
        editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            with self.app.suspend():
                subprocess.run([*shlex.split(editor), str(path)], check=False)  # noqa: S603
        except (SuspendNotSupported, OSError, ValueError):
            sentence = f"{editor} cannot be started here; set EDITOR, or edit {path} yourself."
            self.notify(printable(sentence, 400), severity="warning", timeout=15, markup=False)
        self._reload()

    def _chosen(self) -> Hypothesis | None:
        index = self.list.cursor
        return self._hypotheses[index] if index < len(self._hypotheses) else None

    def _reload(self) -> None:
        self._hypotheses, self._problems = shelf_of(self._session)
        self.list.show(len(self._hypotheses) + len(self._problems), self._line)
        counts = (f"{sum(h.status == status for h in self._hypotheses)} {status}" for status in STATUSES)
        self.say(" │ ".join(counts) if self._hypotheses else "No hypothesis yet: a on a cell of the map writes one")

    def _line(self, index: int) -> tuple[str, bool]:
        if index >= len(self._hypotheses):
            return f"  ! {printable(self._problems[index - len(self._hypotheses)], 400)}", True
        hypothesis = self._hypotheses[index]
        cell = f"{hypothesis.site!s:<27}"
        return f"{hypothesis.number:>3} {hypothesis.status:<10} {cell} {printable(hypothesis.title)}", False

    def detail(self, index: int) -> Text:
        """Return a hypothesis in full."""
        text = Text()
        if index >= len(self._hypotheses):
            return text.append(printable(self._problems[index - len(self._hypotheses)], 1000))
        hypothesis = self._hypotheses[index]
        for label, words in (
            ("Claim", hypothesis.claim),
            ("Prediction", hypothesis.prediction),
            ("Note", hypothesis.body),
        ):
            if words.strip():
                shown = " ".join(printable(line, 500) for line in words.split("\n") if line.strip())
                text.append(f"{label}: ", "bold").append(f"{shown}\n")
        population = hypothesis.evidence.get("population")
        if population:
            measured = {key: hypothesis.evidence.get(key) for key in ("std_ratio", "rel_rms", "max_abs")}
            figures = "  ".join(
                f"{METRICS[key].label} {format_value(value)}"
                for key, value in measured.items()
                if isinstance(value, int | float)
            )
            text.append(f"Evidence: {printable(str(population))}  {printable(figures, 300)}")
        return text
