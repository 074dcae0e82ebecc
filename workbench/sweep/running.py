"""A sweep from its plan to its last line: what is left to do, who does it, and what is written."""

from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.capture.needs import require_room
from workbench.sweep.parts import Part
from workbench.sweep.planning import Plan, Work
from workbench.sweep.question import Question
from workbench.sweep.results import Line, appending, read_lines
from workbench.sweep.tally import Tally

Finished = Generator[tuple[Work, Part, dict[str, Any]], None, None]


class Engine(Protocol):
    """Who does the work: this process, or a cluster."""

    def results(self, question: Question, works: Iterable[Work]) -> Finished:
        """Do all of it; what comes of each unit, with the name of its worker, in any order."""


class Done(NamedTuple):
    """How far a sweep is. cost : of what is finished, in the units of `Plan.total`. line : the last; None at first."""

    units: int
    cost: float
    line: Line | None


def run(plan: Plan, engine: Engine, path: Path, resume: bool, tally: Tally) -> Generator[Done, None, None]:
    """Do what is left of a sweep; every finished unit is written before it is told.

    resume : the units that the file has are not done again. tally : takes in the lines that are there, and new ones.
    Raises WorkbenchError for a file that holds anything but results of this question, and for a disk without room.
    """
    known = path.stat().st_size if resume and path.exists() else 0
    require_room(path, max(plan.written - known, 0), "make room, or give -o a name on another disk")
    tally.expect(len(plan.parts), len(plan.prompts))
    if resume and path.exists():
        for line in known_lines(plan, path):
            tally.add(line)
    with appending(path, afresh=not resume) as results:
        works = [_left(plan, number, tally) for number in range(len(plan.prompts))]
        units, cost = tally.done, plan.total - sum(plan.cost(w.prompt, part) for w in works for part in w.parts)
        yield Done(units, cost, None)
        with closing(engine.results(plan.question, [work for work in works if work.parts])) as finished:
            for work, part, figures in finished:
                line = plan.line(work, part, figures)
                results.append(line)
                tally.add(line)
                units, cost = units + 1, cost + plan.cost(work.prompt, part)
                yield Done(units, cost, line)


def known_lines(plan: Plan, path: Path) -> Iterable[Line]:
    """The lines of a file, each made sure to be of this plan; WorkbenchError for the first that is not."""
    names = {tuple(part.name.items()) for part in plan.parts}
    identities = [plan.question.identity(prompt.tokens) for prompt in plan.prompts]
    for number, line in enumerate(read_lines(path), 1):
        unit = dict(line["unit"])
        prompt = unit.pop("prompt")
        if not unit and line["by"] != plan.by:
            raise WorkbenchError(
                f"{printable(str(path), 1000)} is of a sweep --by {printable(line['by'], 20)}; go on with that, or "
                "give -o another name"
            )
        if prompt >= len(identities) or line["pair"] != identities[prompt] or tuple(unit.items()) not in names:
            name = printable(str(path), 1000)
            raise WorkbenchError(
                f"{name}, line {number}, is of other models, prompts, paths, parts or kernels than this sweep; "
                "give what it was begun with, or -o another name"
            )
        yield line


def _left(plan: Plan, number: int, tally: Tally) -> Work:
    return Work(number, plan.prompts[number], [part for part in plan.parts if not tally.knows(part.name, number)])


class Here:
    """Does the work in this process, one unit after another."""

    def results(self, question: Question, works: Iterable[Work]) -> Finished:
        """Do all of it."""
        from workbench.sweep.measuring import base, measured, prepare

        prepare(question)
        for work in works:
            known = base(question, work.prompt)
            for part in work.parts:
                yield work, part, measured(question, known, part) | {"worker": "here"}
