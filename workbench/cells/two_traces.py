"""Two recorded traces stage by stage with no model between them: names and shapes say what is set side by side."""

from collections.abc import Callable
from functools import partial

from kernels.models import ordered, sites
from kernels.stages import SPINE, Site
from store.errors import StoreError
from store.traces.channels import ROTATED
from store.traces.trace import GGML_ORDER, UNKNOWN_ORDER, StoredStage, Trace
from workbench.cells.cell import Cell
from workbench.cells.compare import StageTensor, align_last, compare_stage, require_same_tokens
from workbench.cells.routing import Routes

Tokens = tuple[int, ...] | None


def bind_both(a: Trace, b: Trace, tokens: Tokens) -> tuple[Trace, Trace]:
    """Return both traces with the tokens and, where either knows it, the configuration of the model.

    tokens : those that went in, for traces that do not say. PopulationError where the two saw different ones,
    StoreError for a trace that cannot be of that model.
    """
    known = [ids for ids in (a.tokens, b.tokens, tokens) if ids is not None]
    if a.tokens is not None and b.tokens is not None:
        require_same_tokens(a.tokens, b.tokens)
    config = a.config or b.config
    if config is None or not known:
        return a, b
    first, second = (trace if trace.record is not None else trace.bind(known[0], config) for trace in (a, b))
    return first, second


def cells_of(a: Trace, b: Trace, tokens: Tokens, last: bool = False, worst: bool = False) -> list[Cell]:
    """Compare every stage that either trace can have, in execution order.

    tokens : those that went in; None where nobody knows. last : where the rows are of unlike tokens, compare the last.
    worst : whether cells have the elements that differ most.
    """
    names = {*SPINE, *(site.stage for trace in (a, b) for site in trace.sites())}
    unlike = _unlike_order(a, b)
    cells, one_model, routes = list[Cell](), True, (Routes(), Routes())
    for site in sites(max(a.layers, b.layers), ordered(names)):
        if unlike and site.stage in ROTATED and site in a.stages and site in b.stages:
            cells.append(Cell(site, "uncomparable", unlike))
            continue
        compare = partial(compare_stage, site, absent=partial(_absent, {"a": a, "b": b}, site), worst=worst)
        cell, same_width = _cell(site, (a, b), routes, tokens, last, partial(compare, one_model=one_model))
        one_model &= same_width
        cells.append(cell)
    return cells


def _unlike_order(a: Trace, b: Trace) -> str:
    """Why q and k cannot be compared channel by channel; "" if they can, or a model's configuration has settled it."""
    if a.config is not None or b.config is not None:
        return ""
    said = [next((note for note in trace.notes if note in (GGML_ORDER, UNKNOWN_ORDER)), "") for trace in (a, b)]
    if said[0] == said[1]:
        return ""
    side, note = ("A", said[0]) if said[0] else ("B", said[1])
    return f"q and k of the two may stand in unlike orders ({side}: {note.rstrip('.')})"


def _cell(
    site: Site,
    traces: tuple[Trace, Trace],
    routes: tuple[Routes, Routes],
    tokens: Tokens,
    last: bool,
    compare: Callable[..., Cell],
) -> tuple[Cell, bool]:
    """The cell of a stage, and whether both sides have as many channels, as far as they are there."""
    sides: dict[str, StageTensor | None] = {}
    for name, trace, own in zip("ab", traces, routes, strict=True):
        try:
            sides[name] = _tensor(site, trace, tokens, own)
        except StoreError as error:
            return Cell(site, "uncomparable", f"{name.upper()} {error}"), True
    first, second = sides["a"], sides["b"]
    found = compare(first, second)
    if first is None or second is None:
        return found, True
    if found.status == "uncomparable" and last and tokens is not None:
        first, second = (align_last(side, len(tokens)) for side in (first, second))
        found = compare(first, second)
    return found, first.values.shape[1] == second.values.shape[1]


def _absent(traces: dict[str, Trace], site: Site, side: str) -> bool:
    return traces[side].status(site) == "absent"


def _tensor(site: Site, trace: Trace, tokens: Tokens, routes: Routes) -> StageTensor | None:
    """The values of a stage, None if the trace does not hold it; StoreError where its shape does not fit the tokens."""
    if trace.status(site) != "ok":
        return None
    stage = _measured(trace.stages[site], tokens)
    values = stage.values()
    return StageTensor(site, values, stage.positions, experts=routes.see(site, values))


def _measured(stage: StoredStage, tokens: Tokens) -> StoredStage:
    """The stage with rows and their positions, which the number of tokens may tell."""
    if stage.channels is not None and (stage.positions is not None or tokens is None):
        return stage
    if tokens is None:
        raise StoreError("does not say how long its rows are; give the --tokens that went in")
    rows = 1 if stage.last_token else len(tokens)
    return stage.bound(len(tokens), stage.channels or max(1, stage.count // rows))
