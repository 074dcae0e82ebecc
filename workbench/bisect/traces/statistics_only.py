"""Two recorded traces carry no weights: what differs can be measured, but no cause can be proved."""

from kernels.stages import LAST_STAGES
from store.errors import StoreError
from store.traces.trace import Trace
from workbench.bisect.verdict import Bisection, Verdict
from workbench.cells.cell import Cell
from workbench.cells.compare import PopulationError
from workbench.cells.metrics import METRICS, format_value
from workbench.cells.two_traces import bind_both, cells_of

CANNOT_KNOW = (
    "Two traces carry no weights, so no stage could be run again: whether that cell is wrong, or only carries on what "
    "came in or what the engines round, cannot be known; bisect a model against each of the traces."
)


def compare_traces(a: Trace, b: Trace, tokens: tuple[int, ...] | None) -> tuple[Bisection, int]:
    """The verdict on two traces, and how many cells it rests on.

    tokens : those that went in, for traces that do not say. "alike" only if every stage that both hold has the same
    bits, the logits among them; else "undecided", or "uncomparable" where nothing can be set side by side.
    """
    try:
        a, b = bind_both(a, b, tokens)
    except (PopulationError, StoreError) as error:
        return Bisection("uncomparable", None, None, (), None, (), (str(error),)), 0
    cells = cells_of(a, b, tokens)
    compared = [cell for cell in cells if cell.status in ("ok", "identical")]
    unlike = [cell for cell in cells if cell.status == "uncomparable"]
    differing = next((cell for cell in compared if cell.status == "ok"), None)
    notes = [f"{len(compared)} of {len(cells)} cells could be compared."]
    notes += [f"{cell.site}: {cell.note}." for cell in compared if cell.note]
    if unlike:
        notes.append(f"{len(unlike)} cells hold unlike populations, the first is {unlike[0].site}: {unlike[0].note}.")
    if differing is None:
        verdict: Verdict = "alike" if compared and not unlike else "uncomparable"
        if verdict == "alike" and compared[-1].site.stage != LAST_STAGES[-1]:
            verdict = "undecided"
            notes.insert(0, f"Both traces have the same bits up to {compared[-1].site}; beyond, nothing is known.")
        return Bisection(verdict, None, None, (), None, (), tuple(notes)), len(compared)
    return (
        Bisection("undecided", differing.site, None, (), None, (), (_first(differing), CANNOT_KNOW, *notes)),
        len(compared),
    )


def _first(cell: Cell) -> str:
    measures = cell.measures()
    value = None if measures is None else METRICS["rel_rms"].value(measures)
    return f"{cell.site} is the first cell that differs, by {format_value(value)} of B's norm."
