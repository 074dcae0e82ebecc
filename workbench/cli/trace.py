"""`workbench trace`: one forward of a model, kept in a store."""

from pathlib import Path

import click

from workbench.cli.options import PATH, PATH_NAMES, force_option, json_option, print_json, token_options
from workbench.cli.tables import echo


@click.command()
@click.argument("source", metavar="X", type=PATH)
@click.option("-o", "--output", metavar="OUT.h5", type=PATH, required=True, help="File to write.")
@click.option(
    "--path", type=click.Choice(PATH_NAMES), help="Numeric path; by default as the engine of its format computes."
)
@force_option
@token_options
@json_option
def command(
    source: Path,
    output: Path,
    path: str | None,
    force: bool,
    tokens: tuple[int, ...] | None,
    prompt: str | None,
    as_json: bool,
) -> int:
    """Run a model once and keep every stage of every layer in a store.

    A run that was interrupted is continued after its last complete layer.

    \b
    Example:  workbench trace model.gguf -o model.h5 --prompt "def add(a, b):"
    """  # noqa: D301
    from store.open import open_artifact
    from store.outputs import require_writable
    from store.text import printable
    from store.traces.hdf5 import partial_path
    from workbench.capture.job import Event, Progress
    from workbench.capture.lockstep import trace_side
    from workbench.cli.progress import ProgressLine
    from workbench.cli.tables import bytes_text
    from workbench.pair.sides import shared_tokens, side_of

    artifact = open_artifact(source)
    inputs = [source, *artifact.inputs]
    require_writable(output, inputs, force)
    require_writable(partial_path(output), inputs, force=True)  # an unfinished store is continued
    shared = shared_tokens([artifact], tokens, prompt)
    with ProgressLine() as line:

        def show(event: Event) -> None:
            if isinstance(event, Progress):
                line(event.done, event.total, f"{event.phase} {event.text}")

        run = trace_side(side_of(artifact, path), shared.ids, shared.prompt, output, show, force)
    size = output.stat().st_size
    if as_json:
        print_json({"output": str(output), "size": size, "run": run.to_json()})
    else:
        name = printable(str(output), 1000)
        echo(f"wrote {name}: {len(run.tokens)} tokens on path {run.numeric_path}, {bytes_text(size)}")
    return 0
