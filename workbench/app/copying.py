"""Copying what is on screen: to the clipboard of the terminal, and to a file, since not every terminal takes it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import work
from textual.app import App
from textual.message import Message

from store.whole_files import write_atomically
from workbench.app.map.screen import MapScreen
from workbench.session.files import COPIED, SessionError, shown

if TYPE_CHECKING:
    from workbench.app.copyable import Copyable
    from workbench.session.session import Session


class Copies(App[int]):
    """The part of the application that copies."""

    session: "Session"
    map_screen: MapScreen

    @dataclass(eq=False, repr=False)
    class Copied(Message):
        """A text is on the disk, at `path`."""

        chosen: "Copyable"
        path: str

    def action_copy(self) -> None:
        """Ask what to copy."""
        from workbench.app.copyable import copyable
        from workbench.app.pages.copy_screen import CopyScreen

        def picked(chosen: "Copyable | None") -> None:
            if chosen is not None:
                self.copy_to_clipboard(chosen.text)
                self._keep_copy(chosen)

        self.push_screen(CopyScreen(list(copyable(self.screen, self.map_screen))), picked)

    @work(thread=True, exclusive=True, group="copy", exit_on_error=False)
    def _keep_copy(self, chosen: "Copyable") -> None:
        path = self.session.folder / COPIED
        try:
            write_atomically(path, f"{chosen.text}\n")
        except OSError as error:
            raise SessionError(f"{shown(path)} cannot be written ({error.strerror}).") from error
        self.post_message(self.Copied(chosen, shown(path)))

    def on_copies_copied(self, message: Copied) -> None:
        """Say what was copied, and where it is if the terminal has not taken it."""
        lines = message.chosen.text.count("\n") + 1
        size = f"{lines} lines" if lines > 1 else f"{len(message.chosen.text)} characters"
        self.notify(f"Copied the {message.chosen.name}, {size}; also in {message.path}", timeout=8, markup=False)
