"""Showing a session: in the app where there is a terminal, else as text or JSON."""

from typing import TYPE_CHECKING

from workbench.cli.options import print_json
from workbench.cli.tables import echo
from workbench.machine import terminal

if TYPE_CHECKING:
    from workbench.cli.progress import ProgressLine
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
    from workbench.jobs.conclusion import Conclusion
    from workbench.report import export

    comparison, refusal = run_session(session), None
    with ProgressLine() as progress:
        found = Conclusion.of(session, comparison)
        if found.bisection is None:
            try:
                _bisect(session, progress)
            except WorkbenchError as error:  # what the comparison shows is shown all the same
                refusal = error
            found = Conclusion.of(session, comparison)
        report = export(session, progress=progress).path
    if as_json:
        places = {"session": str(session.folder), "report": str(report)}
        print_json(comparison.to_json() | {"bisection": found.to_json()} | places)
    else:
        verdict = [*found.lines(), ""] if found.bisection is not None else []
        echo("\n".join([*verdict, comparison_text(comparison)]))
        folder, document = (printable(str(path), 1000) for path in (session.folder, report))
        echo(f"\nsession  {folder}\nreport   {document}")
    if refusal is not None:
        raise refusal
    found.require_answer()
    return found.exit_code()


def _bisect(session: "Session", progress: "ProgressLine") -> None:
    from kernels.machine.compiler import compile_all
    from workbench.jobs.answering import bisect_session, pair_of

    compile_all(lambda done, total, name: progress(done, total, f"compile {name}"))
    bisect_session(session, pair_of(session), lambda done, total, text: progress(done, total, f"bisect {text}"))
