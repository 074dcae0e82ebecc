"""Showing a session: in the app where there is a terminal, as a conversation, or as text or JSON."""

from typing import TYPE_CHECKING

import click

from workbench.cli.options import print_json
from workbench.cli.tables import echo
from workbench.machine import terminal

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.session.session import Session

_NOT_ASKED = "Nothing more was bisected, exchanged or run again: --no-bisect was given"


def require_one_way(plain: bool, as_json: bool) -> None:
    """Raise UsageError where both --plain and --json were given."""
    if plain and as_json:
        raise click.UsageError("--plain is a conversation, and --json prints one object; give one of them")


def show(
    session: "Session", as_json: bool, plain: bool, bisects: bool, *, mouse: bool = True, tour: bool = False
) -> int:
    """Open a session in the app; without a terminal, or for JSON, run, bisect and export it, and print what was found.

    plain : talk in lines of text instead. bisects : whether the pair is bisected where the session has no verdict; one
    that has a verdict on the same files keeps it. mouse, tour : of the app, see workbench.app.run. Returns the exit
    code of the verdict.
    """
    if plain:
        from workbench.cli.plain import talk

        status = talk(session, bisects)
        _say_where(session, _sentence(session))
        return status
    if terminal.is_there() and not as_json:
        from workbench.app import run

        status = run(session, bisects, mouse, tour)
        _say_where(session, _sentence(session))
        return status
    return _run(session, as_json, bisects)


def _run(session: "Session", as_json: bool, bisects: bool) -> int:
    from kernels.errors import WorkbenchError
    from workbench.cli.pair import comparison_text, run_session
    from workbench.cli.progress import ProgressLine
    from workbench.jobs.examining import examine
    from workbench.report import export

    comparison = run_session(session)
    with ProgressLine() as progress:
        lacking = examine(session, progress) if bisects else [_NOT_ASKED]
        exported = export(session, progress=progress, lacking=lacking)
    report, found = exported.path, exported.conclusion
    if as_json:
        places = {"session": str(session.folder), "report": str(report)}
        print_json({"headline": found.headline()} | comparison.to_json() | {"bisection": found.to_json()} | places)
    else:
        verdict = [*found.lines(), ""] if found.bisection is not None else []
        echo("\n".join([*verdict, comparison_text(comparison), ""]))
        _say_where(session, found.headline(), report)
    if bisects and found.bisection is None and lacking:
        raise WorkbenchError(lacking[0])
    found.require_answer()
    return found.exit_code()


def _sentence(session: "Session") -> str:
    """What a session says of its pair now."""
    from kernels.errors import WorkbenchError
    from store.text import printable
    from workbench.jobs.saved import standing

    try:
        return standing(session).sentence
    except WorkbenchError as error:  # somebody has moved it meanwhile, or another process writes to it
        return f"none: {printable(str(error), 1000)}"


def _say_where(session: "Session", sentence: str, report: "Path | None" = None) -> None:
    """Print what a session says of its pair, and where it is."""
    from store.text import printable

    echo(f"verdict  {sentence}")
    echo(f"session  {printable(str(session.folder), 1000)}")
    if report is not None:
        echo(f"report   {printable(str(report), 1000)}")
