"""`workbench export`: the findings document of a session."""

from pathlib import Path

import click

from workbench.cli.options import PATH, force_option, json_option, print_json
from workbench.cli.sources import open_session
from workbench.cli.tables import echo


@click.command()
@click.argument("folder", metavar="SESSION", type=PATH)
@click.option("-o", "--output", metavar="FILE.md", type=PATH, help="File to write.")
@click.option("--html", "page", metavar="FILE", type=PATH, help="Also write one self-contained page with the map.")
@force_option
@json_option
def command(folder: Path, output: Path | None, page: Path | None, force: bool, as_json: bool) -> int:
    """Write what a session has found as Markdown, with a picture of the local view and one of the maps beside it.

    What the findings rest on is measured first, unless the session has it for the same files: the pair is bisected,
    the culprit exchanged between A and B, and every cell run again. What cannot be measured is said in the document.

    The document goes to findings.md in the session folder, which is replaced as a whole if it says anything else,
    unless -o names another place. The exit code is that of the session's verdict, or of its comparison if the pair
    cannot be bisected.

    \b
    Example:  workbench export sessions/model-vs-model -o findings.md --html findings.html
    """  # noqa: D301
    from store.text import printable
    from workbench.cli.progress import ProgressLine
    from workbench.jobs.examining import examine
    from workbench.report import export

    session = open_session(folder)
    with ProgressLine() as progress:
        lacking = examine(session, progress)
        report, found, written = export(session, output, progress, force, lacking, page)
    files = [report, report.with_suffix(".svg"), *([] if page is None else [page])]
    if as_json:
        places = dict(zip(("report", "picture", "page"), map(str, files), strict=False))
        print_json({"session": str(session.folder), **places, "lacking": lacking})
    else:
        names = f"{printable(str(report), 1000)} and {printable(files[1].name)}"
        names += "" if page is None else f", {printable(str(page), 1000)}"
        echo(f"wrote {names}" if written else f"{names} say so already")
        for sentence in lacking:
            echo(f"not measured  {printable(sentence, 1000)}")
    found.require_answer()
    return found.exit_code()
