"""Answering an inquiry about a session's pair: the work behind the keys of the screen."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kernels.machine.compiler import compile_all
from kernels.stages import Site
from store.text import printable
from store.traces import Trace
from workbench.bisect.answer import answer_json, answer_text, detail_lines
from workbench.bisect.models.detail import cell_detail
from workbench.bisect.models.element_text import element_text
from workbench.bisect.models.patch import (
    Agreement,
    Experiment,
    Logits,
    conclusion,
    patch_path,
    patch_stage,
    patch_tensors,
)
from workbench.bisect.models.views import once_run, views
from workbench.bisect.pair import Answer, bisect_pair, model_sides
from workbench.bisect.traces.announced import Progress
from workbench.cells.metrics import format_value
from workbench.cells.stage_tensors import stage_tensors
from workbench.jobs.bisected import keep
from workbench.jobs.inquiry import EXPERIMENT, PATCHED, Answered, Doing, Found, Inquiry, InquiryEvent
from workbench.lab.experiment import perform
from workbench.lab.experiments import experiment, experiments
from workbench.lab.subject import subject_of
from workbench.pair.pair import Pair, open_pair
from workbench.session.session import Session, relative_to

Emit = Callable[[InquiryEvent], None]


def answer(inquiry: Inquiry, emit: Emit) -> None:
    """Work on a question and emit how far it is, and the answer; WorkbenchError says why there is none."""
    session = Session.open(inquiry.folder)

    def progress(done: int, total: int, text: str) -> None:
        emit(Doing(done, total, text))

    if inquiry.kind == "lab" and inquiry.site is None:
        emit(Found(_without_models(inquiry.experiment)))
        return
    compile_all(lambda done, total, name: progress(done, total, f"compile {name}"))
    if inquiry.kind == "bytes":
        emit(Answered("\n".join(element_text(session, _site(inquiry), inquiry.token, inquiry.channel))))
        return
    pair = pair_of(session)
    if inquiry.kind == "bisect":
        emit(_bisect(session, pair, emit, progress))
    elif inquiry.kind == "views":
        for cell in views(pair, progress):
            emit(cell)
        emit(Answered(""))
    elif inquiry.kind == "parts":
        emit(Answered("\n".join(detail_lines(cell_detail(pair, _site(inquiry), progress)))))
    elif inquiry.kind == "lab":
        progress(0, 0, "running")
        emit(Found(_experiment(session, pair, inquiry.experiment, _site(inquiry))))
    else:
        emit(_patch(session, pair, _site(inquiry), progress))


def _without_models(name: str) -> dict[str, Any]:
    """An experiment on its published input, or all that there are."""
    if not name:
        return {"experiments": [known.to_json() for known in experiments()]}
    return perform(experiment(name), {}).to_json()


def _experiment(session: Session, pair: Pair, name: str, site: Site) -> dict[str, Any]:
    """An experiment at a cell of the session's pair, kept in its log."""
    subject = subject_of(pair, alone=False, layer=site.layer, stage=site.stage, near=True)
    record = perform(experiment(name), {}, subject).to_json()
    pair.require_unchanged()
    session.log(EXPERIMENT, **{key: record[key] for key in ("experiment", "inputs", "value", "verdict", "against")})
    return record


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
    for side, source in (("a", pair.a), ("b", pair.b)):
        record[side]["path"] = name_of(source.path)
        if isinstance(source, Trace) and source.record is not None:
            record[side]["created"] = source.record.created
    keep(session, record, text)
    return found, text


def _site(inquiry: Inquiry) -> Site:
    assert inquiry.site is not None
    return inquiry.site


def _bisect(session: Session, pair: Pair, emit: Emit, progress: Progress) -> Answered:
    found, text = bisect_session(session, pair, progress)
    for cell in once_run(pair, found.bisection):
        emit(cell)
    culprit = found.bisection.culprit
    return Answered(text, None if culprit is None else culprit.site)


def _patch(session: Session, pair: Pair, site: Site, progress: Callable[[int, int, str], None]) -> Answered:
    lines: list[str] = []
    for title, found in _exchanges(pair, site, progress):
        lines += [f"{title} exchanged: {printable(found.part)}", conclusion(found), *_table(found), ""]
        session.log(
            PATCHED,
            site=site,
            part=found.part,
            conclusion=conclusion(found),
            left=found.left,
            brought=found.brought,
        )
    pair.require_unchanged()
    return Answered("\n".join(lines))


def _exchanges(pair: Pair, site: Site, progress: Callable[[int, int, str], None]) -> Iterator[tuple[str, Experiment]]:
    """What a stage gives on, the tensors that it uses, and the arithmetic of the whole run."""
    a, b = model_sides(pair)
    ids, known = pair.ids, Logits()
    yield "Output", patch_stage(a, b, site, ids, progress, known)
    names = frozenset(name for name in stage_tensors(site, a.model.config) if name in a.model or name in b.model)
    if names:
        what = next(iter(names)) if len(names) == 1 else f"{len(names)} tensors of {site}"
        yield "Tensors", patch_tensors(a, b, names, what, ids, progress, known)
    if a.path is not b.path:
        yield f"Weights x paths, {a.path.name} and {b.path.name}", patch_path(a, b, ids, progress, known)


def _table(experiment: Experiment) -> Iterator[str]:
    """The four runs against A and against B, and the double swap, within 76 columns."""
    yield f"{'':<18}{'KL to A':>9} {'max':>9} {'top-1≠':>7}  {'KL to B':>9} {'max':>9} {'top-1≠':>7}"
    names = ("A", "B", "A with B's part", "B with A's part")
    for name, run in zip(names, experiment.runs, strict=True):
        yield f"{name:<18}{_figures(run.to_a, experiment.tokens)}  {_figures(run.to_b, experiment.tokens)}"
    yield f"{'double swap':<18}{_figures(experiment.both, experiment.tokens)}  B with A's against A with B's"
    exact = [run.to_exact for run in experiment.runs]
    if None not in exact:
        yield ""
        yield f"{'':<18}{'KL':>9} {'max':>9} {'top-1≠':>7}  to A's weights in float64"
        for name, found in zip(names, exact, strict=True):
            assert found is not None
            yield f"{name:<18}{_figures(found, experiment.tokens)}"


def _figures(found: Agreement, tokens: int) -> str:
    mean, largest = (
        "?" if value is None else "same" if found.identical else format_value(value)
        for value in (found.kl_mean, found.kl_max)
    )
    return f"{mean:>9} {largest:>9} {f'{found.top1_changed}/{tokens}':>7}"
