"""One line of input at the foot of the screen."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label


def _no_problem(text: str) -> str:  # noqa: ARG001
    return ""


class PromptScreen(ModalScreen[str | None]):
    """Asks for a line of text, and again while `problem(text)` returns a sentence; returns None on escape."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss", "Back")]

    def __init__(self, title: str, value: str, problem: Callable[[str], str] = _no_problem) -> None:
        super().__init__()
        self._title = title
        self._value = value
        self._problem = problem

    def compose(self) -> ComposeResult:
        """Lay out the line."""
        with Vertical(classes="prompt"):
            yield Label(self._title, id="prompt-title", markup=False)
            yield Input(self._value, select_on_focus=True)

    def on_mount(self) -> None:
        """Take at once what was typed ahead."""
        self.set_focus(self.query_one(Input))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Return the text, or say what is wrong with it."""
        if problem := self._problem(event.value):
            self.query_one("#prompt-title", Label).update(problem)
        else:
            self.dismiss(event.value)
