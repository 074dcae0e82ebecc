"""What the map and the lists share: they paint their own lines, and scroll only to follow their cursor."""

from rich.style import Style
from textual.scroll_view import ScrollView


class LineView(ScrollView, can_focus=True, inherit_bindings=False):
    """Lines painted by `render_line` with styles that are looked up once, not for every line of every painting."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._known_styles: dict[str, Style] = {}

    def notify_style_update(self) -> None:
        """Look the styles up again."""
        super().notify_style_update()
        self._known_styles.clear()

    def style(self, name: str = "") -> Style:
        """Return the style of a component class, or of the view itself."""
        known = self._known_styles.get(name)
        if known is None:
            known = self._known_styles[name] = self.get_component_rich_style(name) if name else self.rich_style
        return known
