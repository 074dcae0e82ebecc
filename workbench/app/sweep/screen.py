"""The screen of a sweep: parts or prompts, what costs most first, filled while workers are at work."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from rich.text import Text
from textual.binding import BindingType
from textual.message import Message

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.app.actions import bindings
from workbench.app.pages.list_screen import ListScreen
from workbench.machine.time_left import TimeLeft
from workbench.sweep.planning import Plan
from workbench.sweep.running import Done, Engine, run
from workbench.sweep.tally import METRICS, PromptRow, Row, Tally
from workbench.sweep.words import PARTS, PROMPTS, headline, part_name, part_row, prompt_row, prompt_text

_INTERVAL = 0.5  # seconds between two paintings of what comes in
_PATIENCE = 2.0  # seconds that leaving waits for workers to be told
_FIGURE = 10  # columns

State = Literal["running", "stopping", "stopped", "finished", "failed"]


class SweepScreen(ListScreen):
    """Runs a sweep in a thread of its own. error : what it could not go on for."""

    NAME = "sweep"
    BINDINGS: ClassVar[list[BindingType]] = list(bindings(NAME))

    @dataclass
    class Further(Message):
        """More is finished, or the work has ended."""

    def __init__(self, plan: Plan, engine: Engine, output: Path, resume: bool, tally: Tally, metric: str) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.state: State = "running"
        self._plan, self._engine, self._output, self._resume = plan, engine, output, resume
        self._tally, self._metric = tally, metric
        self._by_prompt = not plan.parts[1:]
        self._done = Done(0, 0.0, None)
        self._left = TimeLeft()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._rows: list[Row] = []
        self._prompts: list[PromptRow] = []

    def on_mount(self) -> None:
        """Begin."""
        self._fill()
        self._thread.start()

    def on_resize(self) -> None:
        """Give the names what room there is."""
        self._fill()

    def _run(self) -> None:
        """What the thread does: the work, until it is finished or stopped."""
        painted = 0.0
        steps = run(self._plan, self._engine, self._output, self._resume, self._tally)
        try:
            for done in steps:
                self._done = done
                if self._stop.is_set():
                    break
                if time.monotonic() - painted > _INTERVAL:
                    painted = time.monotonic()
                    self.post_message(self.Further())
            steps.close()
            self.state = "finished" if self._done.units == self._plan.units else "stopped"
        except Exception as error:  # said on the screen, and once more when it is left
            self.error, self.state = error, "failed"
        self.post_message(self.Further())

    def ended(self) -> None:
        """Let the thread come to an end, if that is soon."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)

    # What is shown

    def on_sweep_screen_further(self) -> None:
        """Show what has come in."""
        self._fill()

    def _fill(self) -> None:
        self._rows = [row for row in self._tally.ordered(self._metric) if row.figure(self._metric)]
        self._prompts = sorted(self._tally.prompts.values(), key=lambda row: row.order, reverse=True)
        self.say(self._words())
        heading = PROMPTS if self._by_prompt else PARTS
        self.list.head = f"  {self._laid_out(heading)}"
        self.list.show(len(self._prompts if self._by_prompt else self._rows), self._line)
        if not self.list.count:
            self.describe(Text("Nothing has moved the output yet."))

    def _words(self) -> str:
        done, plan = self._done, self._plan
        share = done.cost / plan.total if plan.total else 1.0
        steps = round(1000 * done.cost), round(1000 * plan.total)
        left = self._left.words(self.state, *steps) if self.state == "running" else ""
        state = {"failed": "failed", "stopping": "stopping", "stopped": "stopped, r resumes"}.get(self.state, "")
        order = "by prompt" if self._by_prompt else f"by {self._metric}"
        parts = [f"{done.units}/{plan.units} units, {share:.0%}{left}", state, order, self._whole()]
        return " │ ".join(part for part in parts if part)

    def _whole(self) -> str:
        if self._tally.head is None or self._tally.whole.kl is None:
            return ""
        whole = self._tally.whole
        return f"KL(B‖A) {whole.kl:.3g}, floor {'not known' if whole.floor is None else f'{whole.floor:.3g}'}"

    def _line(self, index: int) -> tuple[str, bool]:
        if self._by_prompt:
            row = self._prompts[index]
            return self._laid_out(prompt_row(row)), row.shows is not False
        part = self._rows[index]
        return self._laid_out(part_row(part)), bool(part.broken)

    def _laid_out(self, cells: list[str]) -> str:
        """The cells of a row, the first as wide as there is room for."""
        if self._by_prompt:
            number, *figures, worst, cost, text = cells
            return f"{number:<6} " + " ".join(f"{cell:>{_FIGURE}}" for cell in [*figures, cost]) + f"  {worst}  {text}"
        name, types, *figures = cells
        width = max(self.size.width - 4 - 12 - (_FIGURE + 1) * len(figures), 30)
        return f"{printable(name, width - 1):<{width}} {types:<11}" + " ".join(f"{cell:>{_FIGURE}}" for cell in figures)

    def detail(self, index: int) -> Text:
        """Return what is said of the line under the cursor, and of the sweep."""
        if self._by_prompt:
            row = self._prompts[index]
            text = Text(f"prompt {row.number}\n", "bold").append(printable(prompt_text(row), 400), "not bold")
        else:
            part = self._rows[index]
            text = Text(f"{part_name(part.name)}\n", "bold")
            text.append(f"its worst token, {part.worst[0]:.3g} nats, is in prompt {part.worst[1]}", "not bold")
        if self.error is not None:
            text.append(f"\n{printable(_sentence(self.error), 400)}", "bold")
        elif self._tally.head is not None:
            text.append("\n" + "\n".join(printable(line, 400) for line in list(headline(self._tally))[:2]), "not bold")
        return text

    # Keys

    def action_stop(self) -> None:
        """Stop once a unit under way is finished."""
        if self.state == "running":
            self.state = "stopping"
            self._stop.set()
            self._fill()

    def action_resume(self) -> None:
        """Do what is left."""
        if self.state not in ("stopped", "failed") or self._thread.is_alive():
            self.app.notify("There is nothing to resume: it is at work or finished.", markup=False)
            return
        self.error, self.state, self._resume = None, "running", True
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._fill()

    def action_cycle_order(self) -> None:
        """Order parts by the next metric."""
        self._by_prompt = False
        self._metric = METRICS[(METRICS.index(self._metric) + 1) % len(METRICS)]
        self._fill()
        self.list.go(0)

    def action_other_table(self) -> None:
        """Show prompts in place of parts, or parts again."""
        self._by_prompt = not self._by_prompt
        self._fill()
        self.list.go(0)

    def action_leave(self) -> None:
        """Leave; what is finished stays in the file."""
        self._stop.set()
        self.app.exit()


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, WorkbenchError | OSError) else f"{type(error).__name__}: {error}"
