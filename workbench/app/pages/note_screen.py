"""Writing a hypothesis about a cell: what is claimed, and what would contradict it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input, Label, Static, TextArea

from kernels.errors import WorkbenchError
from kernels.stages import Site
from workbench.app.actions import bindings
from workbench.app.drafts import Draft, Drafts
from workbench.app.key_line import KeyLine

KEEP_AFTER = 0.2  # seconds without another letter until the draft is on disk


class NoteScreen(ModalScreen[str | None]):
    """Returns the path that `save` wrote the hypothesis to; None if it was put off, and its draft kept."""

    NAME = "note"
    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings(NAME),
        # Before the field gets them: what is typed on at once belongs into the next one.
        Binding("tab", "app.focus_next", show=False, priority=True),
        Binding("shift+tab", "app.focus_previous", show=False, priority=True),
        Binding("enter", "to_claim", show=False, priority=True),
    ]

    def __init__(
        self,
        site: Site,
        evidence: Text,
        drafts: Drafts,
        save: Callable[[Draft], str],
        proposals: Sequence[Draft] = (),
    ) -> None:
        super().__init__()
        self._proposals = proposals
        self._proposed = -1  # the last one shown
        self._site = site
        self._evidence = evidence
        self._drafts = drafts
        self._save = save
        self._timer: Timer | None = None
        self._written = Draft()  # what the fields hold, which are gone before the screen is
        self._left = False

    def compose(self) -> ComposeResult:
        """Lay out the form, filled with the draft that there may be."""
        draft = self._drafts.get(self._site)
        with VerticalScroll(classes="dialog") as box:
            box.border_title = Text(f"Hypothesis about {self._site}").plain
            yield Static(self._evidence, markup=False, id="evidence")
            yield Label("Title", markup=False)
            yield Input(draft.title, id="title", compact=True)
            yield Label("Claim: what is wrong, and why", markup=False)
            yield TextArea(draft.claim, id="claim", compact=True)
            yield Label('Prediction, such as cell(3, "ffn_up").rel_rms < 0.01; or a sentence', markup=False)
            yield TextArea(draft.prediction, id="prediction", compact=True)
            yield Label(self._about_proposals(), id="missing", markup=False)
        yield KeyLine()

    def on_mount(self) -> None:
        """Start with the title, at once: what was typed ahead is meant for it."""
        self.set_focus(self.query_one("#title"))

    def on_unmount(self) -> None:
        """Lose nothing when the program ends."""
        if self._timer is not None:
            self._keep()

    def on_input_changed(self) -> None:
        """Keep the draft."""
        self._keep_soon()

    def on_text_area_changed(self) -> None:
        """Keep the draft."""
        self._keep_soon()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Take enter for the end of the title, and for a new line elsewhere."""
        return action != "to_claim" or getattr(self.focused, "id", None) == "title"

    def action_to_claim(self) -> None:
        """Go on to the claim."""
        self.set_focus(self.query_one("#claim"))

    def _about_proposals(self) -> str:
        if not self._proposals:
            return "b on the map bisects the pair; then ^n here proposes predictions."
        return f"^n proposes: {len(self._proposals)} from the bisection"

    def action_propose(self) -> None:
        """Fill the form with the next proposal; what a hand has written is left alone."""
        if not self._proposals:
            self._complain(self._about_proposals())
            return
        if self._draft() not in (Draft(), *self._proposals):
            self._complain("Proposals only go into an empty form; save this first, or empty it.")
            return
        self._proposed = (self._proposed + 1) % len(self._proposals)
        proposal = self._proposals[self._proposed]
        self.query_one("#title", Input).value = proposal.title
        for name, text in (("#claim", proposal.claim), ("#prediction", proposal.prediction)):
            self.query_one(name, TextArea).text = text
        self._complain(f"proposal {self._proposed + 1} of {len(self._proposals)}")

    async def action_save(self) -> None:
        """Save the hypothesis, or say what is missing and go there."""
        await self._all_typed()
        draft = self._draft()
        missing = [name for name in ("title", "claim", "prediction") if not getattr(draft, name).strip()]
        if missing:
            needs = "A hypothesis needs a title, a claim and a prediction that a measurement could contradict"
            self._complain(f"{needs}; there is no {' and no '.join(missing)}.")
            self.set_focus(self.query_one(f"#{missing[0]}"))
            return
        try:
            path = self._save(draft)
        except (WorkbenchError, OSError) as error:
            self._complain(str(error))
            return
        self._left = True
        self._stop_timer()
        with suppress(OSError):  # the hypothesis is written, and that is what counts
            self._drafts.put(self._site, Draft())
        self.dismiss(path)

    async def action_keep_draft(self) -> None:
        """Go back, and keep what is written."""
        await self._all_typed()
        self._left = True
        self._written = self._draft()
        self._keep()
        self.dismiss(None)

    async def _all_typed(self) -> None:
        """Wait until every field has taken the keys that were sent to it."""
        for field in self.query("Input, TextArea"):
            taken = asyncio.Event()
            field.call_later(taken.set)
            await taken.wait()

    def _complain(self, sentence: str) -> None:
        self.query_one("#missing", Label).update(Text(sentence, "bold"))

    def _draft(self) -> Draft:
        areas = (self.query_one(name, TextArea).text for name in ("#claim", "#prediction"))
        return Draft(self.query_one("#title", Input).value, *areas)

    def _keep_soon(self) -> None:
        if self._left:
            return
        self._written = self._draft()
        self._stop_timer()
        self._timer = self.set_timer(KEEP_AFTER, self._keep)

    def _keep(self) -> None:
        self._stop_timer()
        try:
            self._drafts.put(self._site, self._written)
        except OSError as error:
            self._complain(f"The draft cannot be written ({error.strerror}); copy it before you leave.")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
