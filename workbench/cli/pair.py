"""Running a pair of sides without a screen: what compare, open and demo have in common."""

from contextlib import suppress

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from workbench.capture import comparing
from workbench.capture.job import CaptureJob
from workbench.capture.needs import cells_to_write, needs, together
from workbench.cells.compared_cells import Again, ComparedCells
from workbench.cells.comparison import Comparison
from workbench.cells.metrics import METRICS, Metric, format_value
from workbench.cells.trace_comparison import compare_unbound
from workbench.cells.view import TokenScope, View
from workbench.cli import tables
from workbench.cli.progress import ProgressLine
from workbench.cli.sources import say_needs
from workbench.jobs.examining import pair_of
from workbench.pair.pair import Pair
from workbench.session.session import Session


def compare_pair(pair: Pair, metric: Metric, scope: TokenScope, statistics_only: bool = False) -> ComparedCells:
    """Run or read two sides and compare them; WorkbenchError says what is missing or does not fit.

    Two traces of which neither tells its model are compared by the names and shapes of their stages.
    statistics_only : see `workbench.capture.comparing.compare_pair`.
    """
    if pair.traces is not None and all(trace.config is None for trace in pair.traces):
        return compare_unbound(*pair.traces, pair.ids, pair.prompt, metric, scope, statistics_only)
    with ProgressLine() as line:
        return comparing.compare_pair(pair, metric, scope, line, statistics_only)


def run_again(comparison: ComparedCells, pair: Pair | str, asked: bool | None) -> Again:
    """Run every stage of a pair of models again on both inputs; the reason if it cannot be, or is not asked for.

    pair : or why there is none. asked : None leaves it to the size of the models.
    """
    from workbench.bisect.models.views import LARGE, views
    from workbench.cells.compare import PopulationError

    if asked is False:
        return "--no-local was given"
    if comparison.scope.kind != "all":
        return "they cover all tokens together, not a --scope of one"
    if isinstance(pair, str):
        return pair
    for name, side in (("A", pair.a), ("B", pair.b)):
        if not isinstance(side, Artifact):
            return f"{name} is a recorded trace, which cannot be run again"
        if asked is None and side.size > LARGE:
            return f"{name} is large; ask for them with --local"
    try:
        with ProgressLine() as line:
            return {checked.cell.site: checked for checked in views(pair, line)}
    except PopulationError as error:
        return str(error)


def again_text(comparison: ComparedCells, again: Again) -> str:
    """Return what running the cells again has shown in a sentence, or why it was not done."""
    if isinstance(again, str):
        return f"No stage was run again: {again}."
    beyond = [checked for checked in again.values() if checked.beyond_floor]
    compared = comparison.counted[0]
    ran, rest = f"{len(again)} cells run again", ""
    if len(again) < compared:
        ran, rest = f"{len(again)} of {compared} cells run again", " The others read no number on both sides."
    if not beyond:
        return f"{ran}: none adds more than rounding can cause.{rest}"
    first = beyond[0]
    floors = "" if first.floors is None else f", {format_value(first.floors)} times what rounding can cause"
    many = f"{len(beyond)} add{'s' * (len(beyond) == 1)}"
    return (
        f"{ran}: {many} more than rounding can cause, the first is "
        f"{first.cell.site}, local {format_value(first.cell.local)} of B's norm{floors}.{rest}"
    )


def run_session(session: Session, metric: Metric | None = None, scope: TokenScope | None = None) -> Comparison:
    """Complete the capture of a session in its folder; the comparison as asked for, else as its view shows it."""
    view = View.from_json(session.spec.view)
    _say_needs(session)
    with ProgressLine() as line:
        return comparing.compare_job(CaptureJob.of(session), metric or METRICS[view.metric], scope or view.tokens, line)


def _say_needs(session: Session) -> None:
    """Say what running the models of a session needs, unless it was done; what cannot be opened is told by the run."""
    statistics_only = session.spec.statistics_only
    there = [session.cells_path] if statistics_only else [session.trace_path(side) for side in "ab"]
    if all(path.exists() for path in there):
        return
    with suppress(WorkbenchError):
        pair = pair_of(session)
        sides = zip((pair.a, pair.b), pair.sides, strict=True)
        models = [(source, side.numeric_path) for source, side in sides if isinstance(source, Artifact)]
        if models:
            needed = together(needs(model, len(pair.ids), path) for model, path in models)
            if statistics_only:
                written = cells_to_write((model for model, _ in models), len(pair.ids))
                needed = needed._replace(written=written)
            say_needs(needed, session.folder)


def comparison_text(comparison: ComparedCells) -> str:
    """Return the comparison as text: both sides, the map as tables as wide as the terminal, and the summary."""
    lines = []
    sides = comparison.sides_json()
    for name in ("a", "b"):
        side = sides[name]
        path = "" if side["numeric_path"] is None else f", path {side['numeric_path']}"
        facts = f"{side['format']}{path}, sha256 {side['sha256'][:16]}…"
        lines.append(f"{name.upper()}  {printable(side['path'], 1000)}  ({printable(facts)})")
    prompt = "" if sides["prompt"] is None else f'  ("{printable(sides["prompt"], 1000)}")'
    lines.append(f"tokens  {printable(','.join(map(str, sides['tokens'])), 4000)}{prompt}")
    scope = comparison.scope.label(comparison.token_count)
    lines += ["", f"{comparison.metric.label} over {scope}: {comparison.metric.definition}"]
    lines += tables.in_blocks(comparison.layers, lambda layers: comparison.grid(comparison.metric, layers))
    lines += ["", "= identical   ! outside the band", "", *comparison.summary()]
    return "\n".join(lines)
