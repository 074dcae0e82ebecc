"""`workbench export`: the findings document of a session."""

from pathlib import Path

import click

from workbench.cli.options import PATH, force_option, json_option, print_json
from workbench.cli.tables import echo


@click.command()
@click.argument("folder", metavar="SESSION", type=PATH)
@click.option("-o", "--output", metavar="FILE.md", type=PATH, help="File to write.")
@force_option
@json_option
def command(folder: Path, output: Path | None, force: bool, as_json: bool) -> int:
    """Write what a session has found as Markdown, with a picture of its map beside it.

    The document goes to findings.md in the session folder, which is replaced as a whole if it says anything else,
    unless -o names another place.
    The exit code is that of the session's verdict, or of its comparison if nobody has bisected it.

    \b
    Example:  workbench export sessions/model-vs-model -o findings.md
    """  # noqa: D301
    from store.text import printable
    from workbench.cli.progress import ProgressLine
    from workbench.report import export
    from workbench.session.session import Session

    session = Session.open(folder)
    with ProgressLine() as progress:
        report, found, written = export(session, output, progress, force)
    picture = report.with_suffix(".svg")
    if as_json:
        print_json({"session": str(session.folder), "report": str(report), "picture": str(picture)})
    else:
        names = f"{printable(str(report), 1000)} and {printable(picture.name)}"
        echo(f"wrote {names}" if written else f"{names} say so already")
    found.require_answer()
    return found.exit_code()
