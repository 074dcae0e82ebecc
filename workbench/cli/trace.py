"""`workbench trace`: one forward of a model, kept in a store."""

from pathlib import Path

import click

from workbench.cli.options import PATH_NAMES, json_option, print_json, token_options


@click.command()
@click.argument("source", metavar="X", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="OUT.h5", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option(
    "--path", type=click.Choice(PATH_NAMES), help="Numeric path; by default as the engine of its format computes."
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
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
    from kernels.errors import WorkbenchError
    from store.artifact import open_artifact
    from workbench.capture import Event, Progress, trace_side
    from workbench.cli.progress import ProgressLine
    from workbench.cli.tables import bytes_text
    from workbench.sides import shared_tokens, side_of

    if output.exists() and not force:
        raise WorkbenchError(f"{output} exists; give -o another name, or --force to replace it")
    artifact = open_artifact(source)
    shared = shared_tokens([artifact], tokens, prompt)
    with ProgressLine() as line:

        def show(event: Event) -> None:
            if isinstance(event, Progress):
                line(event.done, event.total, f"{event.phase} {event.text}")

        run = trace_side(side_of(artifact, path), shared.ids, shared.prompt, output, show)
    size = output.stat().st_size
    if as_json:
        print_json({"output": str(output), "size": size, "run": run.to_json()})
    else:
        click.echo(f"wrote {output}: {len(run.tokens)} tokens on path {run.numeric_path}, {bytes_text(size)}")
    return 0
