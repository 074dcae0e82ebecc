"""`workbench compare`: all cells of a pair and what they say."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from workbench.cli.options import PATH, json_option, map_options, pair_options, print_json, statistics_option
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from store.traces.statistics_table import StatisticsTable
    from workbench.cells.view import TokenScope
    from workbench.jobs.conclusion import Conclusion
    from workbench.pair.pair import Pair
    from workbench.pair.prompt import Prompt
    from workbench.session.session import Session


@click.command()
@click.argument("sources", metavar="A B | SESSION", nargs=-1, required=True, type=PATH)
@pair_options
@map_options
@click.option(
    "--local/--no-local",
    default=None,
    help="Run every stage again for what it inherits and what it adds. With --json models of up to half a GiB are "
    "unless --no-local is given.",
)
@statistics_option
@json_option
def command(
    sources: tuple[Path, ...],
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    path_a: str | None,
    path_b: str | None,
    metric: str,
    scope: "TokenScope",
    local: bool | None,
    statistics_only: bool,
    as_json: bool,
) -> int:
    """Run two models on the same tokens, or read their traces, and compare every stage of every layer.

    The two sides of a session are compared as it has captured them, after what is missing was captured; if it has a
    verdict, that comes first and decides the exit code.

    Tensors are kept for the time of the command at most, where traces are aligned to the last token. With
    --statistics-only nothing is written at all, and with --json every cell has the elements that differ most.

    A cell outside the band of the metric or of relative RMS makes the exit code 1; 2 means that the two cannot be
    compared, or that nothing was. Two traces of other engines are set side by side by the names and shapes of their
    stages. Two saved tables of statistics are compared as such: 1 where the figures prove a difference beyond the
    bands, 0 where all of them are the same, else 2, as statistics cannot tell.

    \b
    Example:  workbench compare model.gguf model.apr --prompt "def add(a, b):" --metric rel_rms
    Example:  workbench compare sessions/model-vs-model --scope last
    """  # noqa: D301
    if len(sources) == 2 and (tables := _tables(*sources)) is not None:
        return _compare_statistics(*tables, as_json)
    from workbench.cells.metrics import METRICS
    from workbench.cli.pair import again_text, compare_pair, comparison_text, run_again
    from workbench.cli.sources import open_sources, require_none_given, session_alone
    from workbench.jobs.conclusion import Conclusion

    pair: Pair | str
    if len(sources) == 1:
        require_none_given({"--statistics-only": statistics_only or None}, sources[0])
        concluded, pair = _of_session(session_alone(sources[0], (path_a, path_b), tokens, prompt), metric, scope)
    else:
        pair = open_sources(sources, (path_a, path_b), tokens, prompt)
        concluded = Conclusion(compare_pair(pair, METRICS[metric], scope, statistics_only), None)
    comparison = concluded.comparison
    again = run_again(comparison, pair, local) if as_json or local else None
    if as_json:
        print_json({"headline": concluded.headline()} | comparison.to_json(again))
    else:
        echo("\n".join([*([f"{concluded.headline()}\n"] if concluded.bisection else []), comparison_text(comparison)]))
        if again is not None:
            echo(again_text(comparison, again))
    concluded.require_answer()
    return concluded.exit_code()


def _of_session(session: "Session", metric: str, scope: "TokenScope") -> "tuple[Conclusion, Pair | str]":
    """Compare what a session has captured; also its pair, or why that cannot be opened any more."""
    from kernels.errors import WorkbenchError
    from workbench.cells.metrics import METRICS
    from workbench.cli.pair import run_session
    from workbench.jobs.conclusion import Conclusion
    from workbench.jobs.examining import pair_of

    comparison = run_session(session, METRICS[metric], scope)
    try:
        pair = pair_of(session)
    except WorkbenchError as error:
        return Conclusion.of(session, comparison), str(error)
    return Conclusion.of(session, replace(comparison, notes=(*pair.notes, *comparison.notes))), pair


def _tables(a: Path, b: Path) -> "tuple[StatisticsTable, StatisticsTable] | None":
    """Open two tables of statistics; None if neither is one, WorkbenchError if one is and the other is not."""
    from kernels.errors import WorkbenchError
    from store.text import printable
    from store.traces.statistics import open_statistics

    first, second = open_statistics(a), open_statistics(b)
    if first is None and second is None:
        return None
    if first is None or second is None:
        table, other = (b, a) if first is None else (a, b)
        names = [printable(str(path)) for path in (table, other)]
        if not other.exists():
            raise WorkbenchError(f"{names[1]} does not exist; check the path.")
        raise WorkbenchError(
            f"{names[0]} holds statistics only, which are compared with statistics; make those of {names[1]} with "
            "workbench trace --stats --json (inspect --stats --json for a trace), over the same tokens and --scope"
        )
    ctx = click.get_current_context()
    options = {parameter.name: parameter.opts[-1] for parameter in ctx.command.params}
    given = (name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE)
    if (needless := next((name for name in given if name not in ("sources", "as_json")), None)) is not None:
        raise click.UsageError(
            f"statistics are of the tokens and of the path they were made with; leave out {options[needless]}"
        )
    return first, second


def _compare_statistics(a: "StatisticsTable", b: "StatisticsTable", as_json: bool) -> int:
    from workbench.cells.statistics_comparison import compare_statistics
    from workbench.cli.statistics import comparison_lines

    comparison = compare_statistics(a, b)
    if as_json:
        print_json(comparison.to_json())
    else:
        echo("\n".join(comparison_lines(comparison)))
    comparison.require_answer()
    return comparison.exit_code()
