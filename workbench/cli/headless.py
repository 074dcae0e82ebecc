"""Showing a session: in the app where there is a terminal, else as text or JSON."""

from typing import TYPE_CHECKING

from workbench.cli.options import print_json
from workbench.cli.tables import echo
from workbench.machine import terminal

if TYPE_CHECKING:
    from workbench.session.session import Session


def show(session: "Session", as_json: bool) -> int:
    """Open a session in the app; without a terminal, or for JSON, run, bisect and export it, and print what was found.

    A session that has a verdict on the same files keeps it. Returns the exit code of the verdict.
    """
    if terminal.is_there() and not as_json:
        from workbench.app import run

        return run(session)
    from kernels.errors import WorkbenchError
    from store.text import printable
    from workbench.cli.pair import comparison_text, run_session
    from workbench.cli.progress import ProgressLine
    from workbench.jobs.examining import examine
    from workbench.report import export

    comparison = run_session(session)
    with ProgressLine() as progress:
        lacking = examine(session, progress)
        exported = export(session, progress=progress, lacking=lacking)
    report, found = exported.path, exported.conclusion
    if as_json:
        places = {"session": str(session.folder), "report": str(report)}
        print_json({"headline": found.headline()} | comparison.to_json() | {"bisection": found.to_json()} | places)
    else:
        verdict = [*found.lines(), ""] if found.bisection is not None else []
        echo("\n".join([*verdict, comparison_text(comparison)]))
        folder, document = (printable(str(path), 1000) for path in (session.folder, report))
        echo(f"\nsession  {folder}\nreport   {document}")
    if found.bisection is None and lacking:
        raise WorkbenchError(lacking[0])
    found.require_answer()
    return found.exit_code()
