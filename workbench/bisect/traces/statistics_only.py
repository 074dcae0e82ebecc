"""Two recorded traces carry no weights: what differs can be measured, but no cause can be proved."""

from dataclasses import replace

from kernels.stages import LAST_STAGES, Site, execution_order
from store.errors import StoreError
from store.traces import ForeignStage, ForeignTrace
from workbench.bisect.verdict import Bisection, Verdict
from workbench.cells.cell import Cell
from workbench.cells.compare import PopulationError, StageTensor, compare_stage, require_same_tokens
from workbench.cells.metrics import METRICS, format_value

CANNOT_KNOW = (
    "Two traces carry no weights, so no stage could be run again: whether that cell is wrong, or only carries on what "
    "came in or what the engines round, cannot be known; bisect a model against each of the traces."
)


def compare_traces(a: ForeignTrace, b: ForeignTrace, tokens: tuple[int, ...] | None) -> tuple[Bisection, int]:
    """The verdict on two traces, and how many cells it rests on.

    tokens : those that went in, for traces that do not say. "alike" only if every stage that both hold has the same
    bits, the logits among them; else "undecided", or "uncomparable" where nothing can be set side by side.
    """
    try:
        a, b = _bound(a, b, tokens)
    except (PopulationError, StoreError) as error:
        return Bisection("uncomparable", None, None, (), None, (), (str(error),)), 0
    cells = [_cell(site, a, b, tokens) for site in execution_order(max(a.layers, b.layers))]
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


def _bound(a: ForeignTrace, b: ForeignTrace, tokens: tuple[int, ...] | None) -> tuple[ForeignTrace, ForeignTrace]:
    """Both traces with the tokens and, where either knows it, the configuration of the model."""
    known = [ids for ids in (a.tokens, b.tokens, tokens) if ids is not None]
    if a.tokens is not None and b.tokens is not None:
        require_same_tokens(a.tokens, b.tokens)
    config = a.config or b.config
    if config is None or not known:
        return a, b
    first, second = (trace if trace.run is not None else trace.bind(known[0], config) for trace in (a, b))
    return first, second


def _cell(site: Site, a: ForeignTrace, b: ForeignTrace, tokens: tuple[int, ...] | None) -> Cell:
    sides = {
        name: _tensor(site, trace, tokens) if trace.status(site) == "ok" else None
        for name, trace in (("a", a), ("b", b))
    }
    traces = {"a": a, "b": b}
    return compare_stage(site, sides["a"], sides["b"], lambda side: traces[side].status(site) == "absent")


def _tensor(site: Site, trace: ForeignTrace, tokens: tuple[int, ...] | None) -> StageTensor | None:
    stage = _measured(trace.parts[site], tokens)
    if stage is None:
        return None
    return StageTensor(site, replace(trace, parts={site: stage}).read(site), stage.positions)


def _measured(stage: ForeignStage, tokens: tuple[int, ...] | None) -> ForeignStage | None:
    """The stage with rows and their positions where the number of tokens tells them; None where nothing does."""
    if stage.channels is not None and (stage.positions is not None or tokens is None):
        return stage
    if tokens is None:
        return None
    rows = 1 if stage.last_token else len(tokens)
    try:
        return stage.bound(len(tokens), stage.channels or max(1, stage.count // rows))
    except StoreError:
        return None
