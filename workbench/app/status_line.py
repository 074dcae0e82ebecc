"""One line of text that is painted again without a new layout."""

from rich.text import Text
from textual.widget import Widget


class StatusLine(Widget):
    """Shows a line of text; cheap enough to change ten times a second."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = Text()

    def say(self, text: Text) -> None:
        """Show other text."""
        text.no_wrap, text.overflow = True, "ellipsis"
        self._text = text
        self.refresh()

    def render(self) -> Text:
        """Paint the line."""
        text = self._text.copy()
        text.truncate(self.size.width, overflow="ellipsis")
        return text
