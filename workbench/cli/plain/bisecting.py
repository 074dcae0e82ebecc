"""The questions that run stages again: bisect, patch, parts, bytes, local, experiments, tests of hypotheses."""

import re
from collections.abc import Generator, Iterator

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.cli.plain.investigation import Investigation
from workbench.cli.plain.sentences import headline, why_lines
from workbench.jobs.inquiry import Answered, Found

_ELEMENT = re.compile(r"([0-9]{1,9})[\s,]+([0-9]{1,9})")
_WIDTH = 10_000  # characters: a screen reader wraps by itself


def bisected(about: Investigation) -> Iterator[str]:
    """Find the first wrong place and go there."""
    yield from about.ask("bisect")
    known = about.known.bisected
    culprit = None if known is None else known.found.culprit
    if culprit is not None and culprit.measured_at in about.cells:
        about.go(culprit.measured_at)


def bisect(about: Investigation, _argument: str) -> Iterator[str]:
    """Bisect once more."""
    yield from bisected(about)
    yield headline(about)
    yield f"You are at {about.view.cursor}."


def why(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell the verdict, what it rests on, and how to mend it."""
    yield from why_lines(about)


def details(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell all that the bisection said."""
    if about.known.bisected is None:
        yield headline(about)
    else:
        yield from _told(Answered(about.known.bisected.text))


def patch(about: Investigation, _argument: str) -> Iterator[str]:
    """Exchange the stage under the cursor between A and B; at the culprit what is accused first."""
    yield f"Exchanging {about.view.cursor} between A and B."
    yield from _told((yield from about.ask("patch", site=about.view.cursor)))


def parts(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell where in the cell its local error sits."""
    yield from _told((yield from about.ask("parts", site=about.view.cursor)))


def bytes_of(about: Investigation, argument: str) -> Iterator[str]:
    """Tell what one element was computed from."""
    found = _ELEMENT.fullmatch(argument)
    if found is None:
        raise WorkbenchError("say which element: bytes TOKEN CHANNEL, such as bytes 0 17; elements lists the worst")
    place = {"token": int(found[1]), "channel": int(found[2])}
    yield from _told((yield from about.ask("bytes", site=about.view.cursor, **place)))


def local(about: Investigation, _argument: str) -> Iterator[str]:
    """Run every cell again, and tell which add more than rounding can cause."""
    yield from about.ask("views")
    checked = about.known.checked
    beyond = [site for site, each in checked.items() if each.beyond_floor]
    adding = f"{len(beyond)} add{'s' * (len(beyond) == 1)} more than rounding can cause"
    yield f"{len(checked)} cells run again, {adding}{':' if beyond else '.'}"
    yield from (f"{site}." for site in beyond)


def lab(about: Investigation, argument: str) -> Iterator[str]:
    """List the experiments, or run one on its published input or at the cell."""
    from workbench.report.experiment_text import found_lines, hidden_lines

    name, _, where = argument.partition(" ")
    if where.strip() not in ("", "published"):
        raise WorkbenchError("say lab NAME for this cell, or lab NAME published for the published input")
    site = about.view.cursor if name and not where else None
    answer = yield from about.ask("lab", experiment=name, site=site)
    if not isinstance(answer, Found):
        return
    if not name:
        for known in answer.record["experiments"]:
            names = " ".join(dict.fromkeys((str(known["experiment"]), str(known["name"]))))
            yield f"{printable(names, 60)}: {printable(str(known['question']), 400)}"
        return
    for line in (*found_lines(answer.record, _WIDTH), *hidden_lines(answer.record, _WIDTH)):
        yield " ".join(line.split())


def test(about: Investigation, argument: str) -> Iterator[str]:
    """Measure what a hypothesis predicts, or what all do."""
    if argument != "all" and not re.fullmatch("[0-9]{1,6}", argument):
        raise WorkbenchError("say test N for one hypothesis, or test all")
    yield from _told((yield from about.ask("test", number=None if argument == "all" else int(argument))))


def _told(answer: object) -> Generator[str, None, None]:
    """Say an answer line by line, each without the spaces that set it in columns."""
    if isinstance(answer, Answered):
        yield from (" ".join(printable(line, 2000).split()) for line in answer.text.splitlines() if line.strip())
