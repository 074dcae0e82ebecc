"""The colours of the heat levels: which of them stand out depends on the theme, how many there are on the terminal."""

from typing import Any

from rich.style import Style
from textual.app import App
from textual.color import Color

from workbench.cells.heat import GREYS, LIGHT_PALETTE, PALETTE

_FEW = ("standard", "windows")  # what rich calls a terminal of 16 colours


def heat_of(app: App[Any]) -> tuple[Style, ...]:
    """Return the styles of the levels in an application's theme, on its terminal."""
    return heat_styles(app.current_theme.dark, app.console.color_system in _FEW)


def heat_styles(dark: bool, few: bool = False) -> tuple[Style, ...]:
    """Return the style of every level; the highest differs most from the background, and the order shows in greyscale.

    dark : whether the theme is. few : whether the terminal has no more than 16 colours.
    """
    palette = PALETTE if dark else LIGHT_PALETTE
    if few:
        palette = GREYS if dark else GREYS[::-1]
    return tuple(Style(color=_ink(colour), bgcolor=colour) for colour in palette)


def _ink(paper: str) -> str:
    """Black or white, whichever can be read on a colour."""
    return "#000000" if Color.parse(paper).brightness > 0.5 else "#ffffff"
