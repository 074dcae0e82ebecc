"""What the map shows is saved a moment after it has changed, without a key having to wait for the disk."""

from threading import Lock
from typing import TYPE_CHECKING

from textual.screen import Screen
from textual.timer import Timer

from kernels.errors import WorkbenchError
from workbench.app.map.model import MapModel
from workbench.app.workers import complain
from workbench.cells.view import View

if TYPE_CHECKING:
    from workbench.session.session import Session

SAVE_AFTER = 0.3  # seconds from a change of the view until it is saved, with all changes meanwhile


class ViewSaver:
    """Writes the view of a model to a session's folder; `screen` owns the timer and the thread."""

    def __init__(self, screen: Screen[None], model: MapModel, session: "Session") -> None:
        self._screen, self._model, self._session = screen, model, session
        self._timer: Timer | None = None
        self._saving = Lock()

    def soon(self) -> None:
        """Save in a moment."""
        if self._timer is None:
            self._timer = self._screen.set_timer(SAVE_AFTER, self._meanwhile)

    def now(self) -> None:
        """Save before going on, and say in a sentence if that cannot be."""
        try:
            self._save()
        except WorkbenchError as error:
            complain(self._screen.app, error)

    def _meanwhile(self) -> None:
        self._timer = None
        self._screen.run_worker(self._save, thread=True, group="save", exit_on_error=False)

    def _save(self) -> None:
        with self._saving:  # who comes last writes the newest view
            view = self._model.view
            if view != View.from_json(self._session.spec.view):
                self._session.save_view(view.to_json())
