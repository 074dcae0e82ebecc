"""What there is to copy on a screen, as text."""

from collections.abc import Iterator
from dataclasses import dataclass

from textual.screen import Screen

from kernels.stages import Site
from workbench.app.cell.inspector import CellReport, figure
from workbench.app.map.screen import MapScreen
from workbench.app.pages.line_list import LineList
from workbench.cells.comparison import Comparison
from workbench.cells.metrics import METRICS
from workbench.jobs.bisected import standing_bisection
from workbench.report.commands import again, proof
from workbench.report.markdown import command


@dataclass(frozen=True, slots=True)
class Copyable:
    """A text that can be copied, chosen by the letter `key`. text : empty where there is none, and `lacking` why."""

    key: str
    name: str
    text: str
    lacking: str = ""


def copyable(shown: Screen[object], screen: MapScreen) -> Iterator[Copyable]:
    """Return what there is to copy on a screen over the map, or on the map itself."""
    yield Copyable("c", "cell", cell_text(screen.report()), "it has not been computed yet")
    lists = shown.query(LineList)
    if shown is screen:
        yield Copyable("r", "row", _row_of_map(screen), "none of it has been computed yet")
    elif lists:
        yield Copyable("r", "row", lists.first().current().strip(), "the list is empty")
    known = standing_bisection(screen.session, screen.runs) if len(screen.runs) == 2 else None
    yield Copyable("v", "verdict", "" if known is None else known.text.strip(), "nobody has bisected the pair yet")
    yield Copyable("s", "shell command", _command(screen, known is not None), "the models have not been opened yet")


def _row_of_map(screen: MapScreen) -> str:
    """Every layer of the stage under the cursor, in the metric and over the tokens shown."""
    model, stage = screen.model, screen.model.cursor.stage
    known = {site: model.measures(site) for site in model.sites() if site.stage == stage}
    figures = [f"{_layer(site)}\t{figure(model.metric, m)}" for site, m in known.items() if m is not None]
    return "\n".join([f"{stage}\t{model.metric.label}, {screen.report().scope}", *figures]) if figures else ""


def _command(screen: MapScreen, bisected: bool) -> str:
    """Return the command line behind the verdict, or else behind the figures of the map; empty before there are any."""
    if len(screen.runs) < 2:
        return ""
    session, model = screen.session, screen.model
    cells = list(model.cells.values())
    comparison = Comparison(
        screen.runs["a"], screen.runs["b"], cells=cells, metric=model.metric, scope=model.view.tokens
    )
    line = proof(session, comparison, None)[0] if bisected else again(session, comparison, False)[-1]
    return f"{command('cd', str(session.folder))} && {line}"


def cell_text(report: CellReport) -> str:
    """Return a cell in figures, one a line; empty where there is none."""
    if report.cell is None:
        return ""
    head = [
        str(report.site),
        report.verdict(),
        *(f"{side}\t{name}" for side, name in zip("AB", report.sides, strict=True)),
    ]
    measures = report.measures
    if measures is None:
        return "\n".join([*head, report.why_no_number()]).strip()
    compared = f"tokens\t{report.scope}; {measures.finite} of {measures.count} elements compared"
    return "\n".join([*head, compared, *(f"{each.label}\t{figure(each, measures)}" for each in METRICS.values())])


def _layer(site: Site) -> str:
    return site.stage if site.layer is None else f"layer {site.layer}"
