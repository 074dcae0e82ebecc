"""`workbench hypotheses`: the hypotheses of a session, how they stand, and their tests."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from workbench.cli.options import PATH, json_option, print_json
from workbench.cli.sources import open_session
from workbench.cli.tables import echo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.jobs.testing import Tested
    from workbench.lab.standing import Board, Standing


def _number(_ctx: click.Context, _option: click.Parameter, value: str | None) -> int | str | None:
    from store.text import printable

    if value is None or value == "all":
        return value
    if not value.isascii() or not value.isdigit() or len(value) > 6:
        raise click.BadParameter(f"{printable(value, 40)!r} is neither all nor the number of a hypothesis")
    return int(value)


@click.command()
@click.argument("folder", metavar="SESSION", type=PATH)
@click.option("--test", metavar="N|all", callback=_number, help="Measure what hypothesis N predicts, or what all do.")
@json_option
def command(folder: Path, test: int | str | None, as_json: bool) -> int:
    """List the hypotheses of a session as the chain that they form, or test them.

    A prediction is one expression over measurements, such as
    `cell(3, "ffn_gate").rel_rms > 20 * cell(2, "ffn_gate").rel_rms`; docs/hypotheses.md has all names. A verdict is
    bound to the files, settings and capture that it used: when one of them changes or is retracted, it is STALE.

    Exit code of a test 0: all confirmed, 1: one is falsified, or confirmed in part only, 2: not answerable.

    \b
    Example:  workbench hypotheses sessions/model-vs-model --test all
    """  # noqa: D301
    from kernels.errors import WorkbenchError
    from workbench.cli.progress import ProgressLine
    from workbench.lab.standing import board_of
    from workbench.session.session import Session

    session = open_session(folder) if test is not None else Session.open(folder)
    tested: list[Tested] = []
    with ProgressLine() as line:
        if test is not None:
            from workbench.jobs.testing import try_session

            tested = try_session(session, None if test == "all" else int(test), line)
        board = board_of(session, line)
    if as_json:
        print_json(_json(board, tested, test is not None))
    else:
        echo("\n".join(_text(board, tested, one=isinstance(test, int))))
    open_tests = [each for each in tested if each.verdict is None and not each.skipped]
    failed = any(each.verdict in ("PARTIAL", "FALSIFIED") for each in tested)
    if board.problems and not failed:
        raise WorkbenchError(board.problems[0])
    if open_tests and not failed:
        first = open_tests[0]
        raise WorkbenchError(f"hypothesis {first.number} could not be answered: {first.why}")
    return int(failed)


def _json(board: "Board", tested: "list[Tested]", testing: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "hypotheses": [standing.to_json() for standing in board.standings],
        "problems": list(board.problems),
    }
    if testing:
        record["tested"] = [
            {"number": each.number, "verdict": each.verdict, "why": each.why or None, "skipped": each.skipped}
            for each in tested
        ]
    return record


def _text(board: "Board", tested: "list[Tested]", one: bool) -> "Iterator[str]":
    from store.text import printable
    from workbench.lab import chains

    if not board.standings:
        yield "no hypothesis yet: `a` on a cell of the map writes one"
    numbers = {each.number for each in tested}
    yield from chains.lines([each for each in board.standings if not one or each.number in numbers])
    for standing in board.standings:
        if not one or standing.number in numbers:
            yield from _details(standing, next((each for each in tested if each.number == standing.number), None))
    for problem in board.problems:
        yield f"left out: {printable(problem, 1000)}"


def _details(standing: "Standing", tested: "Tested | None") -> "Iterator[str]":
    from store.text import printable
    from workbench.lab.wording import evidence_lines

    hypothesis = standing.hypothesis
    yield ""
    yield f"{standing.number}  {standing.words}  {printable(hypothesis.title)}"
    for name, words in (("claim", hypothesis.claim), ("predicts", hypothesis.prediction)):
        if words.strip():
            yield f"   {name:<9} {printable(' '.join(words.split()), 1000)}"
    if hypothesis.ladder is not None:
        steps = "; ".join(f"{name} {text}" for name, text in (hypothesis.ladder_json() or {}).items())
        yield f"   {'ladder':<9} {printable(steps, 1000)}"
    if standing.stale_because is not None:
        yield f"   {'stale':<9} {printable(standing.stale_because, 1000)}"
    if standing.not_due and standing.stale_because is None:
        yield f"   {'not due':<9} {printable(standing.not_due, 400)}"
    if tested is not None and tested.verdict is None and not tested.skipped:
        yield f"   {'no answer':<9} {printable(tested.why, 1000)}"
        yield from (f"             {line}" for line in tested.pointed)
    for name, line in evidence_lines(standing):
        yield f"   {name:<9} {line}"
