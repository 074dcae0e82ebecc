"""`workbench convert`: write a model as APR v2."""

from pathlib import Path

import click

from workbench.cli.options import json_option, print_json


@click.command()
@click.argument("source", metavar="A", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="B.apr", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
def command(source: Path, output: Path, force: bool, as_json: bool) -> int:
    """Convert a model to APR v2; the stored weights keep every byte.

    \b
    Example:  workbench convert model.gguf -o model.apr
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from store.apr_writer import convert_to_apr
    from store.artifact import open_artifact
    from workbench.cli.progress import ProgressLine
    from workbench.cli.tables import bytes_text

    artifact = open_artifact(source)
    if output.exists() and any(output.samefile(file) for file in artifact.files):
        raise WorkbenchError(f"{output} is the model itself; give -o another name")
    if output.exists() and not force:
        raise WorkbenchError(f"{output} exists; give -o another name, or --force to replace it")
    with ProgressLine() as progress:
        notes = convert_to_apr(artifact, output, lambda done, total: progress(done, total, f"bytes of {output.name}"))
    size = output.stat().st_size
    if as_json:
        tensors = len(artifact.tensors)
        print_json(
            {"source": str(source), "output": str(output), "size": size, "tensors": tensors, "notes": list(notes)}
        )
    else:
        click.echo(f"wrote {output}: {len(artifact.tensors)} tensors, {bytes_text(size)}")
        for note in notes:
            click.echo(f"note: {note}")
    return 0
