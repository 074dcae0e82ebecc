"""The local view: what every stage adds by itself, in multiples of what rounding can cause."""

import math
from collections.abc import Mapping

from kernels.stages import Site
from workbench.cells.cell import Cell
from workbench.cells.comparison import Comparison
from workbench.cells.decomposition import Checked
from workbench.cells.heat import ABSENT, BEYOND, OUTSIDE, UNCOMPARABLE, UNMEASURED, Look, look_of_times
from workbench.cells.limit import LIMIT
from workbench.cells.metrics import format_value

LABEL = "local: times what rounding can cause"
DEFINITION = (
    "the difference that the stage adds itself, both sides on the same input, in multiples of what the rounding of "
    "both paths and the formats of right weights can cause there"
)
LEGEND = (
    f"= adds nothing   · the model has no such stage   ? not run again   0-{LIMIT:g} times what rounding can cause   "
    f"{BEYOND} more   {OUTSIDE} where it can cause nothing"
)
_MANY = 1000  # times, that a reader takes in as 656,000 and not as 6.6e+05


def local_looks(comparison: Comparison, cells: Mapping[Site, Checked]) -> dict[Site, Look]:
    """Return how each cell looks in the local view; `cells` are those that were run again, over all tokens."""
    return {cell.site: _look(cell, cells.get(cell.site)) for cell in comparison.cells}


def _look(cell: Cell, checked: Checked | None) -> Look:
    if checked is None:
        words = {"absent": ABSENT, "uncomparable": UNCOMPARABLE}.get(cell.status, UNMEASURED)
        return Look(*words, None, False)
    return look_of_times(checked.floors, checked.beyond_floor)


def coverage(comparison: Comparison, cells: Mapping[Site, Checked]) -> str:
    """Say in a sentence what the local view covers and how many cells stand out."""
    expected = comparison.counted[1]
    if not cells:
        return "No stage was run again: what each adds by itself is not known."
    beyond = [checked.cell.site for checked in cells.values() if checked.beyond_floor]
    ran = f"{len(cells)} of {expected} cells run again on one input"
    if not beyond:
        return f"{ran}: none adds more than rounding can cause."
    return f"{ran}: {len(beyond)} add{'s' * (len(beyond) == 1)} more than rounding can cause, the first is {beyond[0]}."


def times(checked: Checked) -> str:
    """Say by how much a cell's own difference exceeds what rounding can cause."""
    if checked.floors is None:
        return "more than any multiple of"
    many = checked.floors >= _MANY and math.isfinite(checked.floors)
    return f"{float(f'{checked.floors:.3g}'):,.0f} times" if many else f"{format_value(checked.floors)} times"
