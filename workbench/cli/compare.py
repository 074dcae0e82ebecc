"""`workbench compare`: all cells of a pair and what they say."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from workbench.cli.options import PATH, json_option, map_options, pair_options, print_json
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from store.traces.statistics_table import StatisticsTable
    from workbench.cells.view import TokenScope


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@pair_options
@map_options
@click.option(
    "--local/--no-local",
    default=None,
    help="Run every stage again for what it inherits and what it adds. With --json models of up to half a GiB are "
    "unless --no-local is given.",
)
@json_option
def command(
    a: Path,
    b: Path,
    tokens: tuple[int, ...] | None,
    prompt: str | None,
    path_a: str | None,
    path_b: str | None,
    metric: str,
    scope: "TokenScope",
    local: bool | None,
    as_json: bool,
) -> int:
    """Run two models on the same tokens, or read their traces, and compare every stage of every layer.

    A cell outside the band of the metric or of relative RMS makes the exit code 1; 2 means that the two cannot be
    compared, or that nothing was. Two traces of other engines are set side by side by the names and shapes of their
    stages. Two saved tables of statistics are compared as such: 1 where the figures prove a
    difference beyond the bands, 0 where all of them are the same, else 2, as statistics cannot tell.

    \b
    Example:  workbench compare model.gguf model.apr --prompt "def add(a, b):" --metric rel_rms
    """  # noqa: D301
    if (tables := _tables(a, b)) is not None:
        return _compare_statistics(*tables, as_json)
    from workbench.cells.metrics import METRICS
    from workbench.cli.pair import again_text, compare_pair, comparison_text, run_again
    from workbench.pair.pair import open_pair

    pair = open_pair((a, b), (path_a, path_b), tokens, prompt)
    comparison = compare_pair(pair, METRICS[metric], scope)
    again = run_again(comparison, pair, local) if as_json or local else None
    if as_json:
        print_json(comparison.to_json(again))
    else:
        echo(comparison_text(comparison))
        if again is not None:
            echo(again_text(comparison, again))
    comparison.require_answer()
    return comparison.exit_code()


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
    if (needless := next((name for name in given if name not in ("a", "b", "as_json")), None)) is not None:
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
