"""`workbench export`: the findings document of a session."""

from pathlib import Path

import click

from workbench.cli.options import json_option, print_json


@click.command()
@click.argument("folder", metavar="SESSION", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="FILE.md", type=click.Path(path_type=Path), help="File to write.")
@json_option
def command(folder: Path, output: Path | None, as_json: bool) -> int:
    """Write what a session has found as Markdown, with a picture of its map beside it.

    The document goes to findings.md in the session folder unless -o names another place; it is replaced as a whole.
    The exit code is that of the session's verdict, or of its comparison if nobody has bisected it.

    \b
    Example:  workbench export sessions/model-vs-model -o findings.md
    """  # noqa: D301
    from workbench.cli.progress import ProgressLine
    from workbench.report import export
    from workbench.session import Session

    session = Session.open(folder)
    with ProgressLine() as progress:
        report, found = export(session, output, progress)
    picture = report.with_suffix(".svg")
    if as_json:
        print_json({"session": str(session.folder), "report": str(report), "picture": str(picture)})
    else:
        click.echo(f"wrote {report} and {picture.name}")
    found.require_answer()
    return found.exit_code()
