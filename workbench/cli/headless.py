"""Showing a session: in the app where there is a terminal, else as text or JSON."""

import sys
from typing import TYPE_CHECKING

import click

from workbench.cli.options import print_json

if TYPE_CHECKING:
    from workbench.session import Session


def show(session: "Session", as_json: bool) -> int:
    """Open a session in the app; without a terminal, or for JSON, run it, export it and print what was found."""
    if sys.stdout.isatty() and not as_json:
        from workbench.app import run

        return run(session)
    from workbench.cli.pair import comparison_text, run_session
    from workbench.cli.progress import ProgressLine
    from workbench.report import export

    comparison = run_session(session)
    with ProgressLine() as progress:
        report = export(session, progress=progress)
    if as_json:
        print_json(comparison.to_json() | {"session": str(session.folder), "report": str(report)})
    else:
        click.echo(comparison_text(comparison))
        click.echo(f"\nsession  {session.folder}\nreport   {report}")
    comparison.require_answer()
    return comparison.exit_code()
