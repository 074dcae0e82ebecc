"""`workbench convert`: write a model as APR v2."""

from pathlib import Path

import click

from workbench.cli.options import PATH, force_option, json_option, print_json
from workbench.cli.tables import echo


@click.command()
@click.argument("source", metavar="A", type=PATH)
@click.option("-o", "--output", metavar="B.apr", type=PATH, required=True, help="File to write.")
@force_option
@json_option
def command(source: Path, output: Path, force: bool, as_json: bool) -> int:
    """Convert a model to APR v2; the stored weights keep every byte.

    \b
    Example:  workbench convert model.gguf -o model.apr
    """  # noqa: D301
    from store.files.apr_writer import convert_to_apr
    from store.open import open_artifact
    from store.outputs import require_writable
    from store.text import printable
    from workbench.cli.progress import ProgressLine
    from workbench.cli.tables import bytes_text

    artifact = open_artifact(source)
    require_writable(output, [source, *artifact.inputs], force)
    with ProgressLine() as progress:
        what = f"bytes of {printable(output.name)}"
        notes = convert_to_apr(artifact, output, lambda done, total: progress(done, total, what), replace=force)
    size = output.stat().st_size
    if as_json:
        tensors = len(artifact.tensors)
        print_json(
            {"source": str(source), "output": str(output), "size": size, "tensors": tensors, "notes": list(notes)}
        )
    else:
        echo(f"wrote {printable(str(output), 1000)}: {len(artifact.tensors)} tensors, {bytes_text(size)}")
        for note in notes:
            echo(f"note: {printable(note, 1000)}")
    return 0
