"""How a cell looks, in words, as one character and as a heat level: one rule for app, command line and report."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from kernels.measures import OTHER_SIGN
from workbench.cells.cell import Cell
from workbench.cells.limit import LIMIT
from workbench.cells.metrics import Metric, format_value, in_band

LEVELS = 8
# cividis: readable without colour vision, and its lightness rises with the level, so it survives greyscale.
PALETTE = ("#00224e", "#213b6e", "#4c546c", "#6c6e72", "#8b8779", "#aea371", "#d3c164", "#fee838")
# The same hues on paper: the least is nearly white, and it darkens with the level.
LIGHT_PALETTE = ("#f4f1e4", "#e3dab5", "#cbbf8d", "#aea371", "#8b8779", "#6c6e72", "#3a4a6d", "#00224e")
# The greys of terminals with 16 colours, two levels each; none of them becomes another one there.
GREYS = ("#000000", "#000000", "#555555", "#555555", "#aaaaaa", "#aaaaaa", "#ffffff", "#ffffff")

# What stands in a cell without a number: one character for the map, a word for tables.
IDENTICAL = ("=", "=")
ABSENT = ("·", "absent")
UNMEASURED = ("?", "unmeasured")
UNCOMPARABLE = ("≠", "unlike")
OUTSIDE = "!"
BEYOND = f"{LIMIT + 1:.0f}"  # digit of a cell that is wrong, where digits count what rounding can cause

LEGEND = (
    "= identical   · the model has no such stage   ? unmeasured   ≠ not comparable   ! outside the band   "
    "0-7 difference, a factor of 10 per step"
)


class Look(NamedTuple):
    """The appearance of a cell.

    glyph : one character: a level 0-7, "!" where a cell outside the band has no level, or a status character.
    text : the number, or the words that stand for it, without the mark of the band.
    level : 0 (nothing) to 7 (at or beyond the band's edge, or the largest on the map), or None without a number.
    outside : whether the cell lies outside the metric's band.
    """

    glyph: str
    text: str
    level: int | None
    outside: bool

    @property
    def marked(self) -> str:
        """The text with "!" behind it when the cell is outside the band."""
        return self.text + OUTSIDE if self.outside else self.text


def look(cell: Cell, metric: Metric, edge: float, position: int | None = None) -> Look:
    """How a cell looks in a metric; `edge` from `level_edge`, `position` as in Cell.measures."""
    if cell.status in ("absent", "unmeasured", "uncomparable"):
        return Look(*{"absent": ABSENT, "unmeasured": UNMEASURED}.get(cell.status, UNCOMPARABLE), None, False)
    measures = cell.measures(position)
    if measures is None:
        return Look(*UNMEASURED, None, False)
    if measures.identical:
        return Look(*IDENTICAL, 0, False)
    outside = in_band(metric, measures) is False
    value = metric.value(measures)
    if value is None and metric.word(measures) != OTHER_SIGN:
        return Look(OUTSIDE if outside else IDENTICAL[0], metric.word(measures), None, outside)
    level = LEVELS - 1 if outside or value is None else _level(metric.distance(value), edge)
    return Look(str(level), metric.text(measures), level, outside)


def look_of(value: float | None, edge: float, outside: bool, step: float = 10.0) -> Look:
    """How a figure of a cell looks that is no metric: 0 is identical; one level per factor of `step` below `edge`."""
    if value is None:
        return Look(*UNMEASURED, None, outside)
    if value == 0:
        return Look(*IDENTICAL, 0, outside)
    level = LEVELS - 1 if outside or not math.isfinite(value) else _level(value, edge, step)
    return Look(str(level), format_value(value), level, outside)


def look_of_times(times: float | None, beyond: bool) -> Look:
    """How a figure looks that counts what rounding can cause: its digit is how often, and the colour grows with it.

    times : None where rounding can cause nothing, or where it is not known. beyond : whether it is more than right
    stages have, LIMIT; the digit is then one more, and only then the colour is of the upper half of the levels.
    """
    if beyond:
        words = "where rounding can cause nothing" if times is None else format_value(times)
        return Look(OUTSIDE if times is None else BEYOND, words, LEVELS - 1, True)
    if times is None or math.isnan(times):
        return Look(*UNMEASURED, None, False)
    if times == 0:
        return Look(*IDENTICAL, 0, False)
    return Look(str(int(times)), format_value(times), min(int(times / LIMIT * LEVELS / 2), LEVELS // 2 - 1), False)


def level_edge(cells: Iterable[Cell], metric: Metric, position: int | None = None) -> float:
    """Distance from identical that gets the highest level: the band's edge, else the largest on the map that is one."""
    if metric.band is not None:
        return max(metric.distance(limit) for limit in metric.band)
    distances = [0.0]
    for cell in cells:
        measures = cell.measures(position)
        value = None if measures is None else metric.value(measures)
        distances.append(0.0 if value is None else metric.distance(value))
    return max(distances)


def _level(distance: float, edge: float, step: float = 10.0) -> int:
    """Level of a distance inside the band: one step per factor of `step` below the edge."""
    if distance <= 0 or edge <= 0:
        return 0
    return min(max(LEVELS - 1 + math.floor(_log(distance / edge, step)), 0), LEVELS - 1)


def _log(ratio: float, step: float) -> float:
    return math.log10(ratio) if step == 10.0 else math.log2(ratio) / math.log2(step)


def first_outside(cells: Iterable[Cell], metric: Metric, position: int | None = None) -> Cell | None:
    """Find the first cell, in the order given, that lies outside the metric's band."""
    for cell in cells:
        measures = cell.measures(position)
        if measures is not None and in_band(metric, measures) is False:
            return cell
    return None


def counts(cells: Iterable[Cell]) -> tuple[int, int]:
    """Count (compared, expected) cells: those with numbers, and those that should have them (all but absent ones)."""
    states = [cell.status for cell in cells]
    return sum(s in ("ok", "identical") for s in states), sum(s != "absent" for s in states)
