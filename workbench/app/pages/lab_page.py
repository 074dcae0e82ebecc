"""What the pages of the lab have in common: the lab answers with records."""

from abc import abstractmethod
from typing import Any

from workbench.app.pages.list_screen import ListScreen


class LabPage(ListScreen):
    """Waits for a record."""

    TITLE_WORDS = "lab"

    def doing(self, text: str) -> None:
        """Say how far the answer is."""
        self.say(f"{self.TITLE_WORDS} │ {text}" if text else self.TITLE_WORDS)

    @abstractmethod
    def take(self, record: dict[str, Any]) -> None:
        """Show what was found."""

    def fill(self, text: str) -> None:
        """Show why there is nothing to show."""
        self.doing("")
        self.list.show(1, lambda _: (text, True))
