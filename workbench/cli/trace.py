"""`workbench trace`: one forward of a model, kept in a store, saved in part, or told in figures."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.options import (
    PATH,
    NumericPath,
    OneOf,
    force_option,
    json_option,
    print_json,
    statistics_options,
    token_options,
)
from workbench.cli.sites import Stages, layers_option, stages_option
from workbench.cli.sources import say_needs, say_notes
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from kernels.stages import Site
    from store.traces.run import RunRecord
    from store.traces.statistics_table import Scope
    from workbench.capture.alone import Look
    from workbench.capture.job import Emit
    from workbench.pair.prompt import Prompt

    Work = Callable[[Emit, Look | None], tuple[RunRecord, list[Site]]]

FORMAT_NAMES = ("h5", "aprt", "npz", "safetensors")  # of store.traces.dump_writer; a test keeps them alike


@click.command()
@click.argument("source", metavar="X", type=PATH)
@click.option("-o", "--output", metavar="OUT", type=PATH, help="File to write, or for aprt the folder.")
@click.option("--path", type=NumericPath(), help="Numeric path; by default as the engine of its format computes.")
@statistics_options
@click.option(
    "--save-tensor",
    "stages",
    metavar="STAGE,…|all",
    callback=stages_option,
    help="Save these stages only, the same bytes on every run.",
)
@click.option(
    "--layers",
    metavar="0,3-5",
    callback=layers_option,
    help="Layers to save stages of; the embedding belongs to layer 0, what comes after the layers to all.",
)
@click.option("--format", type=OneOf(FORMAT_NAMES), help="Format of what --save-tensor writes; h5 unless it is given.")
@click.option(
    "--statistics-only",
    "only",
    is_flag=True,
    help="Write the table of --stats in place of tensors, for any model size.",
)
@force_option
@token_options
@json_option
def command(
    source: Path,
    output: Path | None,
    path: str | None,
    statistics: bool,
    scope: "Scope | None",
    stages: Stages | None,
    layers: frozenset[int] | None,
    format: str | None,
    only: bool,
    force: bool,
    tokens: tuple[int, ...] | None,
    prompt: "Prompt | None",
    as_json: bool,
) -> int:
    """Run a model once: keep every stage of every layer in a store, save some of them, or show their statistics.

    A run into a store that was interrupted is continued after its last complete layer. With --stats nothing need be
    written, and with --statistics-only nothing but them is.

    \b
    Example:  workbench trace model.gguf -o model.h5 --prompt "def add(a, b):"
              workbench trace model.gguf --stats --scope last --prompt "def add(a, b):"
              workbench trace model.gguf --save-tensor ffn_gate,ffn_up --layers 0,3-5 --format aprt -o DIR --tokens 1,2
    """  # noqa: D301
    from store.open import open_artifact
    from workbench.capture.alone import Selection, save_stages, selected, trace_side
    from workbench.capture.needs import needs, together
    from workbench.pair.pair import side_of
    from workbench.pair.tokens import shared_tokens

    statistics |= only
    _require_options(output, statistics, scope, stages, layers, format, only)
    artifact = open_artifact(source)
    format, selection = format or "h5", None if stages is None else Selection(stages, layers)
    if selection is not None:
        selected(artifact, selection)  # what the model has not is told before anything is run
    if output is not None:
        _require_writable(output, [source, *artifact.inputs], force, None if selection is None else format)
    shared = shared_tokens([artifact], tokens, prompt)
    say_notes(shared)
    side = side_of(artifact, path)
    store = output if selection is None and not only else None
    model = artifact.for_length(len(shared.ids))
    say_needs(together([needs(model, len(shared.ids), side.numeric_path)]), store)

    def work(emit: "Emit", look: "Look | None") -> "tuple[RunRecord, list[Site]]":
        if selection is None or output is None:
            return trace_side(side, shared.ids, shared.prompt, store, emit, force, look), []
        return save_stages(side, shared.ids, shared.prompt, selection, format, output, emit, force, look)

    if statistics:
        run, saved = _with_statistics(work, scope or "all", shared.ids, as_json, output if only else None, force)
    else:
        run, saved = _silently(work)
    if output is not None:
        _tell(output, run, saved, format, as_json, statistics)
    return 0


def _require_options(
    output: Path | None,
    statistics: bool,
    scope: "Scope | None",
    stages: Stages | None,
    layers: frozenset[int] | None,
    format: str | None,
    only: bool,
) -> None:
    """Raise UsageError for options that say nothing together."""
    if only and (stages is not None or output is None):
        raise click.UsageError("--statistics-only writes no tensors; give -o OUT.json, and leave out --save-tensor")
    if stages is None and (layers is not None or format is not None):
        option = "--format" if layers is None else "--layers"
        raise click.UsageError(f"{option} belongs to --save-tensor; say which stages, or all")
    if scope is not None and not statistics:
        raise click.UsageError("--scope belongs to --stats; everything that is kept is of all tokens")
    if stages is not None and output is None:
        raise click.UsageError("--save-tensor needs a place for what it saves; give -o OUT")
    if output is None and not statistics:
        raise click.UsageError("there is nothing to do; give -o OUT for what is kept, or --stats")


def _require_writable(output: Path, inputs: list[Path], force: bool, format: str | None) -> None:
    """Raise OutputError unless the output may be written. format : of chosen stages; None is a store of all."""
    from store.outputs import require_writable
    from store.traces.dump_writer import require_writable_dump
    from store.traces.hdf5 import partial_path

    if format is not None:
        require_writable_dump(format, output, inputs, force)
        return
    require_writable(output, inputs, force)
    require_writable(partial_path(output), inputs, force=True)  # an unfinished store is continued


def _shown(show: Callable[[int, int, str], None]) -> "Emit":
    from workbench.capture.job import Event, Progress

    def emit(event: Event) -> None:
        if isinstance(event, Progress):
            show(event.done, event.total, f"{event.phase} {event.text}")

    return emit


def _silently(work: "Work") -> "tuple[RunRecord, list[Site]]":
    from workbench.cli.progress import ProgressLine

    with ProgressLine() as line:
        return work(_shown(line), None)


def _with_statistics(
    work: "Work", scope: "Scope", tokens: tuple[int, ...], as_json: bool, file: Path | None, force: bool
) -> "tuple[RunRecord, list[Site]]":
    """Do the work, and show the statistics of every stage. file : where they are kept too."""
    from numpy.typing import NDArray

    from kernels.stages import Site
    from kernels.statistics import Statistics
    from store.traces.statistics_table import StatisticsTable
    from store.whole_files import write_atomically
    from workbench.cells.run_statistics import statistics_of
    from workbench.cli.statistics import LiveTable, scope_text, table_lines

    cells: dict[Site, Statistics] = {}
    with LiveTable(scope_text(scope, tokens)) as live:

        def look(site: Site, values: NDArray[Any]) -> None:
            cells[site] = statistics_of(values, scope)
            live.add(site, cells[site])

        run, saved = work(_shown(live), look)
    table = StatisticsTable(None, run.artifact, run.numeric_path, run.tokens, scope, cells)
    if file is not None:
        write_atomically(file, json.dumps(table.to_json()), replace=force)
    if as_json:
        print_json(table.to_json())
    else:
        echo("\n".join(table_lines(table)))
    return run, saved


def _tell(output: Path, run: "RunRecord", saved: "list[Site]", format: str, as_json: bool, statistics: bool) -> None:
    """Say what was written; the JSON of statistics has no place for it."""
    from store.text import printable
    from workbench.cli.tables import bytes_text

    files = [path for path in output.rglob("*") if path.is_file()] if output.is_dir() else [output]
    size = sum(path.stat().st_size for path in files)
    if as_json and not statistics:
        stages = [{"layer": site.layer, "stage": site.stage} for site in saved]
        facts = {"format": format, "stages": stages} if saved else {}
        print_json({"output": str(output), "size": size, "run": run.to_json()} | facts)
    elif not as_json:
        name, path = printable(str(output), 1000), run.numeric_path
        what = f"{len(saved)} stage{'s' * (len(saved) > 1)}, " if saved else ""
        lines = [""] * statistics
        what += f"{len(run.tokens)} token{'s' * (len(run.tokens) > 1)}"
        lines.append(f"wrote {name}: {what} on path {path}, {bytes_text(size)}")
        if output.is_dir() and path != "apr":
            lines.append(f"note: the folder cannot say that it is of path {path}; whoever reads it takes it for apr's")
        echo("\n".join(lines))
