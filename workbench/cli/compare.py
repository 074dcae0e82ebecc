"""`workbench compare`: all cells of a pair and what they say."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import PATH, json_option, map_options, pair_options, print_json
from workbench.cli.tables import echo

if TYPE_CHECKING:
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
    compared, or that nothing was.

    \b
    Example:  workbench compare model.gguf model.apr --prompt "def add(a, b):" --metric rel_rms
    """  # noqa: D301
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
