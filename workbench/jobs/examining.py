"""Finding what a session's findings rest on, as far as its log does not have it for the files that were captured."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kernels.errors import WorkbenchError
from kernels.machine.compiler import compile_all
from store.text import printable
from workbench.bisect.answer import answer_json, answer_text
from workbench.bisect.models.views import LARGE, views
from workbench.bisect.pair import Answer, bisect_pair, model_sides
from workbench.bisect.traces.announced import Progress
from workbench.jobs.bisected import Bisected, keep, standing_bisection
from workbench.jobs.exchanging import exchange
from workbench.jobs.local_view import has_local_view, keep_local_view
from workbench.jobs.logged_side import Runs, are_of, sides_of
from workbench.jobs.patched import accused_part, standing_patch
from workbench.pair.pair import Pair, open_pair
from workbench.pair.sources import open_captured
from workbench.session.session import Session, relative_to


def examine(session: Session, progress: Progress, logged: Callable[[], object] = lambda: None) -> list[str]:
    """Bisect a session's pair, exchange the culprit, and run every cell again, unless the log has it already.

    logged : called when the log holds more. Returns a sentence for everything that cannot be had;
    WorkbenchError only where a side was not captured at all.
    """
    runs = open_captured(session).runs
    bisected = standing_bisection(session, runs)
    if bisected is not None and not _lacks(session, bisected, runs):
        return []
    try:
        pair = _captured_pair(session, runs)
        if bisected is None:
            _compile(progress)
            bisect_session(session, pair, _named("bisect", progress))
            bisected = standing_bisection(session, runs)
            logged()
    except WorkbenchError as error:
        what = "The pair was not bisected" if bisected is None else "No more was measured"
        return [f"{what}: {error}"]
    return [] if bisected is None else _convict(session, pair, bisected, runs, progress, logged)


def _convict(
    session: Session, pair: Pair, bisected: Bisected, runs: Runs, progress: Progress, logged: Callable[[], object]
) -> list[str]:
    """Exchange the culprit and run the other cells again; returns what cannot be done."""
    part, lacking = accused_part(bisected.found), []

    def attempt(what: str, work: Callable[[], object]) -> None:
        try:
            model_sides(pair)
            _compile(progress)
            work()
            logged()
        except WorkbenchError as error:
            lacking.append(f"{what}: {error}")

    if part is not None and standing_patch(session, part, runs) is None:
        exchanging = partial(exchange, session, pair, part, _named("swap", progress))
        attempt("The culprit was not exchanged between A and B", exchanging)
    if pair.models is not None and _partly(session, bisected, runs):
        if max(model.size for model in pair.models) > LARGE:
            return lacking  # the picture says how many cells were run again
        attempt("Not every cell was run again", lambda: _run_again(session, pair, progress))
    return lacking


def _lacks(session: Session, bisected: Bisected, runs: Runs) -> bool:
    part = accused_part(bisected.found)
    return (part is not None and standing_patch(session, part, runs) is None) or _partly(session, bisected, runs)


def _partly(session: Session, bisected: Bisected, runs: Runs) -> bool:
    """Whether a fault is known, but not what the cells behind it add."""
    found = bisected.found
    of_models = "trace" not in (bisected.a.format, bisected.b.format)
    partly = found.differs and found.cells is not None and len(found.checked) < found.cells
    return partly and of_models and not has_local_view(session, runs)


def _run_again(session: Session, pair: Pair, progress: Progress) -> None:
    cells = list(views(pair, _named("run again", progress)))
    keep_local_view(session, sides_of(session, pair), cells)


def _captured_pair(session: Session, runs: Runs) -> Pair:
    """Open a session's pair; WorkbenchError unless it is the one that was captured."""
    pair = pair_of(session)
    if not are_of(sides_of(session, pair), runs):
        raise WorkbenchError(
            f"a file of {printable(session.spec.name)} is no longer the one that was captured; open the session again"
        )
    return pair


def _named(what: str, progress: Progress) -> Progress:
    return lambda done, total, text: progress(done, total, f"{what} {text}")


def _compile(progress: Progress) -> None:
    compile_all(lambda done, total, name: progress(done, total, f"compile {name}"))


def pair_of(session: Session) -> Pair:
    """Open the two sides of a session; see `open_pair` for the errors."""
    spec = session.spec
    asked = spec.a.numeric_path or None, spec.b.numeric_path or None
    return open_pair((Path(spec.a.path), Path(spec.b.path)), asked, spec.tokens or None, None)


def bisect_session(session: Session, pair: Pair, progress: Progress) -> tuple[Answer, str]:
    """Find the first wrong cell of a session's pair and keep the verdict in its log; returns it, and it in words."""
    found = bisect_pair(pair, progress)
    name_of = partial(relative_to, session.folder)
    text = answer_text(found, None, name_of)
    record = answer_json(found, None, progress)
    for side, logged in sides_of(session, pair).items():
        record[side] |= {"path": logged.path} | ({} if logged.created is None else {"created": logged.created})
    keep(session, record, text)
    return found, text
