"""`workbench retract`: take something back on which verdicts may rest."""

from pathlib import Path

import click

from workbench.cli.options import PATH, json_option, print_json
from workbench.cli.sources import open_session
from workbench.cli.tables import echo


@click.command()
@click.argument("folder", metavar="SESSION", type=PATH)
@click.argument("what", metavar="WHAT")
@click.option("--why", metavar="TEXT", required=True, help="Why it does not hold; kept in the log.")
@json_option
def command(folder: Path, what: str, why: str, as_json: bool) -> int:
    """Take back the capture, a line of the log, or the verdict on a hypothesis; what rests on it is STALE from then on.

    WHAT is `capture`, the number of a line of log.jsonl, or "hypothesis N". Nothing is deleted: the log gets one more
    line, whose number takes the retraction back.

    \b
    Example:  workbench retract sessions/model-vs-model capture --why "B ran with the wrong tokens"
              workbench retract sessions/model-vs-model "hypothesis 2" --why "the prediction was too weak"
    """  # noqa: D301
    from workbench.cli.progress import ProgressLine
    from workbench.lab.retractions import retract
    from workbench.lab.standing import board_of

    session = open_session(folder)
    done = retract(session, what, why)
    with ProgressLine() as line:
        stale = [each.number for each in board_of(session, line).standings if each.status == "STALE"]
    if as_json:
        print_json({"retracted": done.what, "why": done.why, "line": done.line, "stale": stale})
    else:
        echo(f"{done.words} (line {done.line} of the log)")
        echo(f"stale: {', '.join(map(str, stale))}" if stale else "no verdict rests on it")
    return 0
