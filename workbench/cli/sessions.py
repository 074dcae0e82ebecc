"""`workbench sessions`: the saved investigations of a folder."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from workbench.cli.options import PATH, json_option, print_json
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from workbench.jobs.saved import Saved


@click.command()
@click.argument("folder", metavar="[FOLDER]", type=PATH, required=False)
@json_option
def command(folder: Path | None, as_json: bool) -> int:
    """List saved sessions, newest first: where each is, what it is about, and its verdict.

    FOLDER holds sessions, or is one; without it those are listed that `workbench open` has put where it puts them. A
    session that nobody has bisected says what its captures show. Nothing is run, and no session is changed.

    Exit code 0: all sessions could be read, 2: some could not, or FOLDER is none.

    \b
    Example:  workbench sessions
    Example:  workbench sessions /mnt/shared/sessions --json
    """  # noqa: D301
    from store.text import printable
    from workbench.cli.progress import ProgressLine
    from workbench.jobs.saved import Saved, saved_sessions
    from workbench.session.session import Session

    usual = Session.default_folder("session").parent
    where = folder or usual
    with ProgressLine() as line:
        found = list(saved_sessions(where, line)) if folder is not None or where.is_dir() else []
    sessions = [each for each in found if isinstance(each, Saved)]
    problems = [each for each in found if not isinstance(each, Saved)]
    if as_json:
        listed = [session.to_json() for session in sessions]
        print_json({"folder": str(where), "sessions": listed, "problems": [str(problem) for problem in problems]})
    else:
        for session in sessions:
            echo("\n".join(_lines(session)))
        for problem in problems[1:]:
            echo(f"left out: {printable(str(problem), 1000)}")
        if not found:
            echo(f"No session is in {printable(str(where), 1000)} yet; `workbench open A B` makes one.")
    if problems:
        raise problems[0]
    return 0


def _lines(saved: "Saved") -> Iterator[str]:
    from store.text import printable

    a, b = (printable(Path(side.path).name, 100) for side in saved.sides)
    spec = saved.session.spec
    what = f"{len(spec.tokens)} tokens" if spec.tokens else "the tokens of its traces"
    prompt = "" if spec.prompt is None else f", {printable(repr(spec.prompt), 60)}"
    yield printable(str(saved.session.folder), 1000)
    yield f"  {printable(spec.created[:16].replace('T', ' '), 20)}  {a} against {b}, {what}{prompt}"
    yield f"  {saved.standing.sentence}"
    yield ""
