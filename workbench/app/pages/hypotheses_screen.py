"""The hypotheses of a session: their status, their files, and the files that a hand has broken."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
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
from workbench.lab.chains import tree
from workbench.lab.hypothesis import STATUSES, Hypothesis, Status
from workbench.lab.shelf import keep, shelf_of
from workbench.lab.standing import Board, Standing
from workbench.lab.wording import evidence_lines
from workbench.session.files import LOG_FILE

if TYPE_CHECKING:
    from workbench.session.session import Session

_LOOK = 1.0  # seconds between looks at what other processes have written
_BY_HAND: tuple[Status, ...] = ("UNTESTED", "CONFIRMED", "PARTIAL", "FALSIFIED")


class HypothesesScreen(ListScreen):
    """Lists the hypotheses, the cursor on that of a number if there is one; follows what other processes write."""

    NAME = "hypotheses"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))
    HEAD = f"{'no':>3} {'status':<10} {'cell':<27} title"

    class CellChosen(Message):
        """The user wants to see the cell that a hypothesis is about."""

        def __init__(self, site: Site) -> None:
            super().__init__()
            self.site = site

    class TestAsked(Message):
        """The user wants a hypothesis to be tested, or all."""

        def __init__(self, number: int | None) -> None:
            super().__init__()
            self.number = number

    class Changed(Message):
        """A file or the log was changed, on which others may depend."""

    def __init__(self, session: "Session", number: int | None = None) -> None:
        super().__init__()
        self._session = session
        self._wanted = number
        self._lines: list[tuple[str, Standing]] = []
        self._problems: Sequence[str] = ()
        self._doing = ""
        self._seen: object = None

    def on_mount(self) -> None:
        """Read the files; how they stand is told later, and again when anybody writes."""
        self._reload()
        self.set_interval(_LOOK, self._look)
        numbers = [standing.number for _, standing in self._lines]
        if self._wanted in numbers:
            self.list.go(numbers.index(self._wanted))

    def take_board(self, board: Board) -> None:
        """Show how the hypotheses stand; the cursor stays on its hypothesis."""
        chosen = self._chosen()
        self._lines, self._problems = list(tree(board.standings)), board.problems
        numbers = [standing.number for _, standing in self._lines]
        place = numbers.index(chosen.number) if chosen is not None and chosen.number in numbers else None
        self.list.show(len(self._lines) + len(self._problems), self._line, place)
        self._say()
        self._describe_line()

    def doing(self, text: str) -> None:
        """Say how far a test is; "" when none is at work."""
        self._doing = text
        self._say()

    def action_test(self) -> None:
        """Test the hypothesis."""
        if (chosen := self._chosen()) is not None:
            self._ask_for_test(chosen.number)

    def action_test_all(self) -> None:
        """Test all hypotheses."""
        if self._lines:
            self._ask_for_test(None)

    def _ask_for_test(self, number: int | None) -> None:
        self.app.post_message(self.TestAsked(number))

    def on_line_list_chosen(self) -> None:
        """Go to the cell."""
        self.action_go_to_cell()

    def action_go_to_cell(self) -> None:
        """Go to the cell that the hypothesis is about."""
        if (chosen := self._chosen()) is None:
            return
        if chosen.site is None:
            self.notify("This hypothesis is about no single cell.", markup=False)
        else:
            self.app.post_message(self.CellChosen(chosen.site))

    def action_next_status(self) -> None:
        """Give the hypothesis its next status, and save it; only a test gives one to what can be tested."""
        if (chosen := self._chosen()) is None:
            return
        from workbench.lab.trial import is_testable  # loads what measures

        if is_testable(chosen):
            self.notify("This prediction can be measured: t tests it.", markup=False)
            return
        place = _BY_HAND.index(chosen.status) if chosen.status in _BY_HAND else -1
        status = _BY_HAND[(place + 1) % len(_BY_HAND)]
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
        return self._lines[index][1].hypothesis if index < len(self._lines) else None

    def _reload(self) -> None:
        """Show what the files say; whether that still holds is found out meanwhile."""
        self._seen = _written(self._session)
        hypotheses, problems = shelf_of(self._session)
        self.take_board(Board(tuple(Standing(each, each.status) for each in hypotheses), tuple(problems)))
        self.app.post_message(self.Changed())

    def _look(self) -> None:
        """Find out anew how they stand if anybody has written a test, a retraction or a file since the last look."""
        if (written := _written(self._session)) != self._seen:
            self._seen = written
            self.app.post_message(self.Changed())

    def _say(self) -> None:
        standings = [standing for _, standing in self._lines]
        counts = (f"{sum(s.status == status for s in standings)} {status}" for status in STATUSES)
        words = " │ ".join(counts) if standings else "No hypothesis yet: a on a cell of the map writes one"
        self.say(f"test {self._doing}" if self._doing else words)

    def _line(self, index: int) -> tuple[str, bool]:
        if index >= len(self._lines):
            return f"  ! {printable(self._problems[index - len(self._lines)], 400)}", True
        branch, standing = self._lines[index]
        after = standing.hypothesis.after
        follows = "" if after is None or not branch else f"if {after.verdict}: "
        cell = f"{'-' if standing.hypothesis.site is None else standing.hypothesis.site!s:<27}"
        title = f"{branch}{follows}{printable(standing.hypothesis.title)}"
        return f"{standing.number:>3} {standing.status:<10} {cell} {title}", standing.status == "STALE"

    def detail(self, index: int) -> Text:
        """Return a hypothesis in full."""
        text = Text()
        if index >= len(self._lines):
            return text.append(printable(self._problems[index - len(self._lines)], 1000))
        standing = self._lines[index][1]
        hypothesis = standing.hypothesis
        steps = "; ".join(f"{name} {step}" for name, step in (hypothesis.ladder_json() or {}).items())
        for label, words in (
            ("Verdict", "" if standing.by is None else standing.words),
            ("Stale", standing.stale_because or ""),
            ("Not due", "" if standing.stale_because else standing.not_due),
            ("Prediction", hypothesis.prediction),
            ("Ladder", steps),
            *((name.capitalize(), line) for name, line in evidence_lines(standing)),
            ("Claim", hypothesis.claim),
            ("Note", hypothesis.body),
        ):
            if words.strip():
                shown = " ".join(printable(line, 500) for line in words.split("\n") if line.strip())
                text.append(f"{label}: ", "bold").append(f"{shown}\n")
        return text.append(_noted(hypothesis))


def _written(session: "Session") -> list[tuple[str, int, int, int]]:
    """Name, size, time and inode of the log and of every file of a hypothesis, as far as they are there."""
    found = []
    for path in (session.folder / LOG_FILE, *session.hypotheses_folder.glob("*.md")):
        with suppress(OSError):  # another process replaces it
            status = path.lstat()
            found.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return sorted(found)


def _noted(hypothesis: Hypothesis) -> str:
    """The figures that the map showed when an untested hypothesis was written."""
    evidence = hypothesis.evidence
    population = evidence.get("population")
    if not population:
        return ""
    measured = {key: evidence.get(key) for key in ("std_ratio", "rel_rms", "max_abs")}
    figures = "  ".join(
        f"{METRICS[key].label} {format_value(value)}"
        for key, value in measured.items()
        if isinstance(value, int | float)
    )
    return f"Evidence: {printable(str(population))}  {printable(figures, 300)}"
