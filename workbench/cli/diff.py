"""`workbench diff`: what changed from one session to another."""

from pathlib import Path

import click

from workbench.cli.options import PATH, json_option, print_json
from workbench.cli.tables import echo


@click.command()
@click.argument("then", metavar="SESSION1", type=PATH)
@click.argument("now", metavar="SESSION2", type=PATH)
@json_option
def command(then: Path, now: Path, as_json: bool) -> int:
    """Say what changed from one session to another, for example after a fix.

    Verdict and culprit, cells that no longer add more than rounding can cause, KL and top-1 at the logits, hypotheses
    whose status changed, and files. Both sessions must have a verdict (`workbench export` finds it), the same tokens,
    models of the same sizes, and one file in common on side A or on side B.

    Exit code: 0 if nothing is broken in SESSION2, 1 if it is divergent, 2 if it has no answer or the two cannot be
    compared.

    \b
    Example:  workbench diff sessions/model-vs-broken sessions/model-vs-fixed
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from workbench.cli.progress import ProgressLine
    from workbench.report.diff import Diff
    from workbench.session.session import Session

    with ProgressLine() as progress:
        found = Diff.of(Session.open(then), Session.open(now), progress)
    if as_json:
        print_json(found.to_json())
    else:
        echo("\n".join(found.lines()))
    if (why := found.reason()) is not None:
        raise WorkbenchError(why)
    return found.exit_code()
