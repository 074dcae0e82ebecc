"""What looks into the files and what is written: elements, tensors, settings, notes, the findings."""

import re
from collections.abc import Generator, Iterator
from dataclasses import asdict

from kernels.errors import WorkbenchError
from store.text import printable
from workbench.cells.metrics import METRICS
from workbench.cli.plain.investigation import Investigation, Pace
from workbench.cli.plain.sentences import figure
from workbench.jobs.inquiry import Answered

_FEW, _MANY = 5, 200  # elements and tensors that are told of


def elements(about: Investigation, argument: str) -> Iterator[str]:
    """Tell the elements of the cell that differ most."""
    from workbench.cells.elements import WorstElements
    from workbench.pair.sources import open_captured

    cell = about.cells.get(about.view.cursor)
    if cell is None or cell.profile is None:
        raise WorkbenchError(f"{about.view.cursor} has no elements on both sides")
    if argument and not re.fullmatch("[0-9]{1,3}", argument):
        raise WorkbenchError(f"say how many: elements 10, at most {_MANY}")
    found = open_captured(about.session).elements(cell, about.view.tokens)
    order = found.ordered("abs")
    assert order is not None
    if isinstance(found, WorstElements) and int(argument or _FEW) > found.count:
        yield f"No tensors were kept: these are the {found.count} of {found.of} elements that differ most."
    for index in order[: min(int(argument or _FEW), _MANY)].tolist():
        element = found.element(int(index))
        yield (
            f"token {element.token} channel {element.channel}: A {element.a:.9g}, B {element.b:.9g}, "
            f"difference {element.d:.9g}."
        )


def weights(about: Investigation, _argument: str) -> Iterator[str]:
    """Compare every tensor, and tell those that differ most."""
    from workbench.pair.sources import open_artifacts
    from workbench.tensors.sweep import sweep

    a, b = open_artifacts(about.session)
    pace, found = Pace(), []
    for each in sweep(a, b, lambda *_: None):
        found.append(each)
        if (said := pace.sentence(len(found), 0, f"compare {each.name}")) is not None:
            yield said
    outside = [each for each in found if each.in_band is False]
    same = sum(each.status == "identical" for each in found)
    yield f"{len(found)} tensors: {same} identical, {len(outside)} outside the band."
    for each in outside[:_MANY]:
        error = "" if each.measures is None else f", {figure(METRICS['rel_rms'], each.measures)}"
        findings = "; ".join(printable(text, 400) for text in (*each.findings, *([each.note] if each.note else [])))
        yield f"{printable(each.name)}: A {each.type_a or 'has none'}, B {each.type_b or 'has none'}{error}. {findings}"


def ledger(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell what was done to the tensors of either side, as the weights show it."""
    from workbench.conventions.ledger import ledgers
    from workbench.conventions.words import lines, summary
    from workbench.pair.sources import open_artifacts

    for side, found in zip("AB", ledgers(*open_artifacts(about.session)), strict=True):
        yield from (f"{side}: {sentence}" for sentence in summary(found))
        for line in lines(found):
            if line.shown:
                yield f"{printable(line.name)}, {line.number}: {line.done}: {line.shown}; should be: {line.said}."


def config(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell what is configured differently."""
    unlike = about.comparison.config_differences
    if not unlike:
        yield "Both models have the same settings."
    for name, values in unlike.items():
        a, b = (printable(str(value), 200) for value in values)
        yield f"{name} is {a} in A and {b} in B."
    paths = about.runs["a"].numeric_path, about.runs["b"].numeric_path
    yield f"A is computed on path {paths[0]}, B on {paths[1]}."


def note(about: Investigation, argument: str) -> Iterator[str]:
    """Write a hypothesis about the cell, or take one of those that are proposed."""
    from workbench.app.drafts import Draft, Drafts
    from workbench.lab.evidence import cell_evidence
    from workbench.lab.hypothesis import Hypothesis
    from workbench.lab.proposals import Proposal, proposals
    from workbench.lab.shelf import keep

    site = about.view.cursor
    proposed = [] if about.known.bisected is None else proposals(site, about.known.bisected.found)
    if argument:
        if not re.fullmatch("[0-9]{1,3}", argument) or not 1 <= int(argument) <= len(proposed):
            raise WorkbenchError("say note to write one, or note N for one of those that it proposes")
        taken = proposed[int(argument) - 1]
    else:
        for number, each in enumerate(proposed, 1):
            yield f"note {number} would be: {printable(each.title)}. It predicts: {printable(each.prediction, 400)}"
        yield f"A hypothesis about {site}: three lines, title, claim, and what must be measured if it is true."
        taken = Proposal(*(yield from _written(about)))
    cell = about.cells.get(site)
    evidence = {} if cell is None else cell_evidence(cell, about.view.tokens, about.runs)
    title, claim, prediction = taken
    written = keep(
        about.session, Hypothesis(title, site, claim, prediction, evidence=evidence, metric=about.view.metric)
    )
    Drafts(about.session.folder).put(site, Draft())
    path = about.session.hypotheses_folder / written.filename
    yield f"Saved as hypothesis {written.number}: {printable(str(path), 1000)}"


def _written(about: Investigation) -> Generator[str, None, tuple[str, str, str]]:
    """Ask for title, claim and prediction; what is written is kept as a draft until all three are there."""
    from workbench.app.drafts import Draft, Drafts

    drafts, site = Drafts(about.session.folder), about.view.cursor
    written = asdict(drafts.get(site))
    if any(written.values()):
        kept = ", ".join(f"{name} {printable(text)!r}" for name, text in written.items() if text)
        yield f"There is a draft: {kept}. An empty line keeps what it has."
    for name in written:
        said = (about.read(f"{name}: ") or "").strip() or written[name]
        if not said:
            raise WorkbenchError(f"the {name} is empty, so it is no hypothesis yet; note goes on with what was written")
        written[name] = said
        drafts.put(site, Draft(**written))
    return written["title"], written["claim"], written["prediction"]


def hypotheses(about: Investigation, _argument: str) -> Iterator[str]:
    """List the hypotheses, and how they stand."""
    from workbench.lab.standing import board_of

    board = board_of(about.session)
    if not board.standings:
        yield "There is no hypothesis yet; note writes one."
    for each in board.standings:
        site = "" if each.hypothesis.site is None else f" about {each.hypothesis.site}"
        yield f"{each.number}, {each.words}{site}: {printable(each.hypothesis.title)}"
    yield from (f"Left out: {printable(problem, 1000)}" for problem in board.problems)


def export(about: Investigation, argument: str) -> Iterator[str]:
    """Measure what the findings lack, and write them."""
    from pathlib import Path

    from workbench.report import export as export_findings

    target = Path(argument).expanduser() if argument else None
    yield "Measuring what the findings lack."
    answer = yield from about.ask("examine")
    lacking = answer.text.splitlines() if isinstance(answer, Answered) else []
    found = export_findings(about.session, target, lacking=lacking)
    yield f"{'Wrote' if found.written else 'It says so already:'} {printable(str(found.path), 1000)}"
    yield from (f"Not measured: {printable(sentence, 1000)}" for sentence in lacking)


def session(about: Investigation, _argument: str) -> Iterator[str]:
    """Tell where the session is, and what it is of."""
    spec = about.session.spec
    yield f"The session is {printable(str(about.session.folder), 1000)}."
    for name, side in (("A", spec.a), ("B", spec.b)):
        yield f"{name} is {printable(side.path, 1000)}."
    yield f"Tokens: {printable(','.join(map(str, about.runs['a'].tokens)), 4000)}."
