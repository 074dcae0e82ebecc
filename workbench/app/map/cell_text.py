"""What stands in a cell of the map: a digit, or its figure in as many columns as there are, and a sign behind it."""

import math

from workbench.cells.heat import OUTSIDE, Look

# Columns of a cell from which its figure is shown, from which one near 1 is, and with which all of it is.
FIGURES, RATIOS, WIDEST = 5, 7, 10
_NEARLY_NOTHING = 0.05


def cell_text(look: Look, sign: str, width: int) -> str:
    """Return a cell of `width` columns: from FIGURES on its figure, else its glyph; the first column is free from 3 on.

    sign : one character.
    """
    if width < FIGURES:
        return f"{'' if width == 2 else ' '}{look.glyph}{sign}{' ' if width == 4 else ''}"
    shown = look.glyph if look.level is None else short(look.text, width - 2) or look.glyph
    return f" {shown:>{width - 2}}{sign}"


def with_cursor(text: str) -> str:
    """Put the cursor around a cell; where it has no column for the closing bracket, that goes to the next cell.

    Of three columns "!" is worth more than the bracket.
    """
    if len(text) >= FIGURES:
        return f"[{text[1:]}"
    if len(text) == 4:
        return f"[{text[1:3]}]"
    glyph, sign = text[-2], text[-1]
    return f"[{glyph}{sign if sign == OUTSIDE else ']'}"


def short(text: str, columns: int) -> str:
    """Return a figure with as many digits as fit: 0.0312 as .031, 3.1e-07 as 3e-7 or e-7; empty if it is none.

    What is nearly nothing and has no room for its power of ten is ~0.
    """
    if len(text) <= columns:
        return text
    try:
        value = float(text)
    except ValueError:
        return ""
    for digits in range(columns, 0, -1):
        figure = _plain(f"{value:#.{digits}g}")
        if len(figure) <= columns:
            return figure
    power = f"{'-' if value < 0 else ''}e{math.floor(math.log10(abs(value)))}"
    if len(power) <= columns:
        return power
    return "~0" if abs(value) < _NEARLY_NOTHING else ""


def _plain(figure: str) -> str:
    """Drop what a number can do without: the 0 before its point, a point at its end, the zeros of its exponent."""
    number, power, exponent = figure.partition("e")
    number = number.removesuffix(".")
    if number.lstrip("-").startswith("0."):
        number = number.replace("0.", ".", 1)
    return f"{number}e{int(exponent)}" if power else number
