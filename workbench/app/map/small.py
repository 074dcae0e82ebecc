"""Cells of one column, with which the map of many layers is whole on the screen: of a layer, or the worst of some."""

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style

from workbench.cells.heat import OUTSIDE, Look
from workbench.cells.marks import SIGNS

_BEST_FIRST = f" ·=0123456789≠{SIGNS['fine']}{SIGNS['inherited']}{SIGNS['unchecked']}{OUTSIDE}{SIGNS['culprit']}"
STAND_OUT = (OUTSIDE, SIGNS["culprit"])
_NUMBERS = (5, 10, 20, 50, 100)  # of layers from one number in the head to the next, at least 5 columns apart
_FEWEST = 5


def glyph_of(look: Look | None, sign: str) -> str:
    """What stands in one column: the sign that a verdict or a band gives a cell, but of one that is fine its digit."""
    if look is None:
        return " "
    return look.glyph if sign in (" ", SIGNS["fine"]) else sign


def worst(glyphs: Sequence[str]) -> int:
    """Return which of some glyphs says the worst of its cell, the first where several do."""
    return max(range(len(glyphs)), key=lambda place: _BEST_FIRST.find(glyphs[place]))


def with_brackets(columns: Sequence[Segment], place: int, plain: Style) -> list[Segment]:
    """Put brackets beside a column; they cover what is there, but nothing that stands out."""
    shown = list(columns)
    for beside, bracket in ((place - 1, "["), (place + 1, "]")):
        if shown[beside].text not in STAND_OUT:
            shown[beside] = Segment(bracket, plain)
    return shown


def head(layers: Sequence[int], each: int, current: int, width: int) -> tuple[str, str, str]:
    """Return the numbers of layers above their columns: those before the current one, it, and those behind.

    each : layers to a column. current : a place in `layers`.
    """
    step = next((step for step in _NUMBERS if step >= _FEWEST * each), _NUMBERS[-1])
    number = str(layers[current])
    at = max(min(current // each, width - len(number)), 0)
    before, behind = "", ""
    for place, layer in enumerate(layers):
        column, text = place // each, str(layer)
        if layer % step:
            continue
        if len(before) <= column and column + len(text) < at:
            before = f"{before:<{column}}{text} "
        column -= at + len(number)
        if column > 0 and len(behind) <= column and column + at + len(number) + len(text) <= width:
            behind = f"{behind:<{column}}{text} "
    return f"{before:<{at}}"[:at], number, behind
