"""What to copy: a letter, or the mouse, chooses."""

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from store.text import printable

if TYPE_CHECKING:
    from workbench.app.copyable import Copyable

_NAME = 15  # columns
_SHOWN = 200  # characters of a text at most


class CopyScreen(ModalScreen["Copyable | None"]):
    """Lists what can be copied, each with its letter and how it begins; returns what was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q,y", "dismiss", "Back")]

    def __init__(self, texts: "list[Copyable]") -> None:
        super().__init__()
        self._texts = texts

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        choices = OptionList(*map(_option, self._texts), classes="dialog", markup=False)
        choices.border_title = "Copy"
        choices.border_subtitle = "a letter, or ↑↓ and ↵; esc back"
        yield choices

    def on_key(self, event: events.Key) -> None:
        """Choose by letter."""
        for index, text in enumerate(self._texts):
            if event.key == text.key:
                event.stop()
                self._choose(index)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Choose what the cursor is on, or what was clicked."""
        self._choose(event.option_index)

    def _choose(self, index: int) -> None:
        chosen = self._texts[index]
        if chosen.text:
            self.dismiss(chosen)
        else:
            self.notify(f"There is no {chosen.name} to copy: {chosen.lacking}.", markup=False)


def _option(text: "Copyable") -> Option:
    begins = printable(" ".join(text.text.split()), _SHOWN) if text.text else f"({text.lacking})"
    line = (
        Text(f"{text.key} ", "bold").append(f" {text.name:<{_NAME}}", "bold").append(begins, "" if text.text else "dim")
    )
    return Option(line)
