"""The views that were left, so that one can go back to them: kept while the app runs."""

from collections import deque

from workbench.cells.view import View

_MOST = 100  # views that are kept


class Undo:
    """Views in the order in which they were left."""

    def __init__(self) -> None:
        self._left: deque[View] = deque(maxlen=_MOST)

    def leaving(self, view: View) -> None:
        """Keep a view that is about to be left."""
        if not self._left or self._left[-1] != view:
            self._left.append(view)

    def back(self, now: View) -> View | None:
        """Return the last view that is not the one shown now, and forget it; None where there is none."""
        while self._left:
            view = self._left.pop()
            if view != now:
                return view
        return None
