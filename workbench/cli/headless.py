"""Showing a session: in the app where there is a terminal, else as text or JSON."""

import sys
from typing import TYPE_CHECKING

from workbench.cli.options import print_json
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from workbench.session import Session


def show(session: "Session", as_json: bool) -> int:
    """Open a session in the app; without a terminal, or for JSON, run it, export it and print what was found."""
    if sys.stdout.isatty() and not as_json:
        from workbench.app import run

        return run(session)
    from store.text import printable
    from workbench.cli.pair import comparison_text, run_session
    from workbench.cli.progress import ProgressLine
    from workbench.report import export

    comparison = run_session(session)
    with ProgressLine() as progress:
        report = export(session, progress=progress)
    if as_json:
        print_json(comparison.to_json() | {"session": str(session.folder), "report": str(report)})
    else:
        echo(comparison_text(comparison))
        folder, document = (printable(str(path), 1000) for path in (session.folder, report))
        echo(f"\nsession  {folder}\nreport   {document}")
    comparison.require_answer()
    return comparison.exit_code()
