"""Moving over the cells, and what is told of them."""

import re
from collections.abc import Iterator

from kernels.errors import WorkbenchError
from kernels.stages import Site
from store.nearest import did_you_mean
from store.text import printable
from workbench.cells.cell import Cell
from workbench.cells.metrics import METRICS
from workbench.cells.view import TokenScope
from workbench.cli.plain.investigation import Investigation
from workbench.cli.plain.sentences import cell_lines, figure, judged

_SITE = re.compile(r"(?:(?:layer\s*|l)?([0-9]{1,9})[\s:]+)?([a-z0-9_]+)", re.IGNORECASE)


def where(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell of the cell."""
    yield from cell_lines(about, about.view.cursor)


def cell(about: Investigation, argument: str) -> Iterator[str]:
    """Go to a cell, and tell of it."""
    about.go(_site(about, argument))
    yield from where(about, "")


def following(about: Investigation, _argument: str) -> Iterator[str]:
    """Go to the next cell that is wrong."""
    yield from _to_marked(about, 1)


def previous(about: Investigation, _argument: str) -> Iterator[str]:
    """Go to the cell that is wrong before this one."""
    yield from _to_marked(about, -1)


def after(about: Investigation, _argument: str) -> Iterator[str]:
    """Go to the cell that is computed after this one."""
    yield from _by(about, 1)


def before(about: Investigation, _argument: str) -> Iterator[str]:
    """Go to the cell that is computed before this one."""
    yield from _by(about, -1)


def layer(about: Investigation, argument: str) -> Iterator[str]:
    """Tell of all cells of a layer, one a line, in the metric that was chosen."""
    number = argument or ("" if about.view.cursor.layer is None else str(about.view.cursor.layer))
    chosen = [each for site, each in about.cells.items() if str(site.layer) == number]
    if not chosen:
        layers = about.comparison.layers
        raise WorkbenchError(f"say which layer, {layers[0]} to {layers[-1]}" if layers else "no layer was captured")
    yield from (_line(about, each) for each in chosen)


def stage(about: Investigation, argument: str) -> Iterator[str]:
    """Tell of one stage in every layer, one a line, in the metric that was chosen."""
    wanted = argument.lower() or about.view.cursor.stage
    chosen = [each for site, each in about.cells.items() if site.stage == wanted]
    if not chosen:
        raise _no_stage(about, wanted)
    yield from (_line(about, each) for each in chosen)


def metric(about: Investigation, argument: str) -> Iterator[str]:
    """Choose the metric that is told first, or list them."""
    if not argument:
        yield f"The metric is {about.metric.key}. There are:"
        yield from (f"{known.key}: {known.label}, {known.definition}" for known in METRICS.values())
        return
    if argument not in METRICS:
        meant = did_you_mean(argument, METRICS, "metric alone lists them")
        raise WorkbenchError(f"there is no metric {printable(argument, 40)}; {meant}")
    about.look_at(about.view._replace(metric=argument))
    yield f"{about.metric.label}: {about.metric.definition}."
    yield from where(about, "")


def tokens(about: Investigation, argument: str) -> Iterator[str]:
    """Choose the tokens that all figures are of, on both sides alike."""
    if argument in ("all", "last"):
        scope = TokenScope("all" if argument == "all" else "last")
    elif re.fullmatch("[0-9]{1,9}", argument) and int(argument) < about.tokens:
        scope = TokenScope("one", int(argument))
    else:
        raise WorkbenchError(f"say tokens all, tokens last, or a position from 0 to {about.tokens - 1}")
    about.look_at(about.view._replace(tokens=scope))
    yield f"Figures are of {scope.label(about.tokens)}."
    yield from where(about, "")


def summary(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell what all cells together show."""
    yield from (printable(line, 1000) for line in about.comparison.summary())


def _site(about: Investigation, argument: str) -> Site:
    found = _SITE.fullmatch(argument.strip())
    if found is None:
        raise WorkbenchError("say which cell: cell L3 STAGE, or the stage alone where it belongs to no layer")
    number, name = found[1], found[2].lower()
    if name not in {site.stage for site in about.cells}:
        raise _no_stage(about, name)
    there = [site for site in about.cells if site.stage == name]
    own = str(about.view.cursor.layer) if number is None else str(int(number))
    chosen = there[0] if there[0].layer is None else next((site for site in there if str(site.layer) == own), None)
    if chosen is None:
        raise WorkbenchError(f"{name} is a stage of layers {there[0].layer} to {there[-1].layer}; say cell L0 {name}")
    return chosen


def _no_stage(about: Investigation, name: str) -> WorkbenchError:
    known = dict.fromkeys(site.stage for site in about.cells)
    meant = did_you_mean(name, known, f"the stages are {', '.join(known)}")
    return WorkbenchError(f"there is no stage {printable(name, 40)}; {meant}")


def _to_marked(about: Investigation, step: int) -> Iterator[str]:
    sites, marked = list(about.cells), set(_marked(about))
    if not marked:
        what = "none is out of its band" if about.known.bisected is None else "none is known to be wrong"
        raise WorkbenchError(f"no cell is marked: {what}")
    at = sites.index(about.view.cursor) if about.view.cursor in sites else 0
    turn = [sites[(at + step * by) % len(sites)] for by in range(1, len(sites) + 1)]
    about.go(next(site for site in turn if site in marked))
    yield from where(about, "")


def _marked(about: Investigation) -> Iterator[Site]:
    """Cells that are wrong by the verdict, and only where there is none those out of band."""
    if about.known.bisected is None:
        yield from (each.site for each in about.comparison.outside)
        return
    yield from (site for site, mark in about.known.marks(about.cells).items() if mark in ("culprit", "wrong"))


def _by(about: Investigation, step: int) -> Iterator[str]:
    sites = list(about.cells)
    at = sites.index(about.view.cursor) + step if about.view.cursor in sites else 0
    if not 0 <= at < len(sites):
        raise WorkbenchError(f"this is the {'last' if step > 0 else 'first'} cell")
    about.go(sites[at])
    yield from where(about, "")


def _line(about: Investigation, each: Cell) -> str:
    measures = each.measures(about.view.tokens.row(each, about.tokens))
    if measures is None:
        return f"{each.site}: {each.status}."
    told = "identical" if measures.identical else figure(about.metric, measures)
    mark = about.known.marks(about.cells).get(each.site, "fine")
    return f"{each.site}: {told}." + (f" {judged(about, each.site)}" if mark in ("culprit", "wrong") else "")
