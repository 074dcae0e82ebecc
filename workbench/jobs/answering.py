"""Answering an inquiry about a session's pair: the work behind the keys of the screen."""

from collections.abc import Callable
from typing import Any

from kernels.machine.compiler import compile_all
from kernels.stages import Site
from workbench.bisect.answer import detail_lines
from workbench.bisect.models.detail import cell_detail
from workbench.bisect.models.element_text import element_text
from workbench.bisect.models.patch import Logits
from workbench.bisect.models.views import views
from workbench.bisect.traces.announced import Progress
from workbench.jobs.bisected import last_bisection
from workbench.jobs.examining import bisect_session, examine, pair_of
from workbench.jobs.exchanging import exchange, exchange_lines, parts_of
from workbench.jobs.inquiry import Answered, Doing, Found, Inquiry, InquiryEvent, Logged
from workbench.jobs.kept_experiments import keep_experiment
from workbench.jobs.local_view import keep_local_view
from workbench.jobs.logged_side import sides_of
from workbench.jobs.patched import Part, accused_part
from workbench.lab.experiment import perform
from workbench.lab.experiments import experiment, experiments
from workbench.lab.subject import subject_of
from workbench.pair.pair import Pair
from workbench.session.session import Session

Emit = Callable[[InquiryEvent], None]


def answer(inquiry: Inquiry, emit: Emit) -> None:
    """Work on a question and emit how far it is, and the answer; WorkbenchError says why there is none."""
    session = Session.open(inquiry.folder)

    def progress(done: int, total: int, text: str) -> None:
        emit(Doing(done, total, text))

    if inquiry.kind == "test":
        from workbench.jobs.testing import tested_text, try_session

        emit(Answered(tested_text(try_session(session, inquiry.number, progress))))
        return
    if inquiry.kind == "lab" and inquiry.site is None:
        emit(Found(_without_models(inquiry)))
        return
    if inquiry.kind == "examine":
        emit(Answered("\n".join(examine(session, progress, lambda: emit(Logged())))))
        return
    compile_all(lambda done, total, name: progress(done, total, f"compile {name}"))
    if inquiry.kind == "bytes":
        emit(Answered("\n".join(element_text(session, _site(inquiry), inquiry.token, inquiry.channel))))
        return
    pair = pair_of(session)
    if inquiry.kind == "bisect":
        emit(_bisect(session, pair, emit, progress))
    elif inquiry.kind == "views":
        _views(session, pair, emit, progress)
    elif inquiry.kind == "parts":
        emit(Answered("\n".join(detail_lines(cell_detail(pair, _site(inquiry), progress)))))
    elif inquiry.kind == "lab":
        progress(0, 0, "running")
        emit(Found(_experiment(session, pair, inquiry)))
    else:
        emit(_patch(session, pair, _site(inquiry), progress))


def _without_models(inquiry: Inquiry) -> dict[str, Any]:
    """An experiment on its published input, or all that there are."""
    if not inquiry.experiment:
        return {"experiments": [known.to_json() for known in experiments()]}
    return perform(experiment(inquiry.experiment), inquiry.settings).to_json()


def _experiment(session: Session, pair: Pair, inquiry: Inquiry) -> dict[str, Any]:
    """An experiment at a cell of the session's pair, kept in its log."""
    asked, site = experiment(inquiry.experiment), _site(inquiry)
    asked.settings(inquiry.settings, "model")  # what is wrong is said before anything is run
    subject = subject_of(pair, alone=False, layer=site.layer, stage=site.stage, near=True)
    result = perform(asked, inquiry.settings, subject)
    pair.require_unchanged()
    keep_experiment(session, subject, result)
    return result.to_json()


def _site(inquiry: Inquiry) -> Site:
    assert inquiry.site is not None
    return inquiry.site


def _bisect(session: Session, pair: Pair, emit: Emit, progress: Progress) -> Answered:
    found, text = bisect_session(session, pair, progress)
    for cell in found.bisection.judged(of_models=pair.models is not None):
        emit(cell)
    culprit = found.bisection.culprit
    return Answered(text, None if culprit is None else culprit.site)


def _views(session: Session, pair: Pair, emit: Emit, progress: Progress) -> None:
    """Run every cell again, say each as soon as it is known, and keep them all."""
    cells = []
    for cell in views(pair, progress):
        emit(cell)
        cells.append(cell)
    keep_local_view(session, sides_of(session, pair), cells)
    emit(Answered(""))


def _patch(session: Session, pair: Pair, site: Site, progress: Progress) -> Answered:
    lines: list[str] = []
    known = Logits()
    accused = _accused(session, pair, site)
    for part in (*accused, *(part for part in parts_of(pair, site) if part not in accused)):
        lines += exchange_lines(part, exchange(session, pair, part, progress, known))
    return Answered("\n".join(lines))


def _accused(session: Session, pair: Pair, site: Site) -> list[Part]:
    """The part that the verdict accuses, where its site is asked about: exchanging it is the proof."""
    known = last_bisection(session)
    part = None if known is None else accused_part(known.found)
    if part is None or part.site != site or pair.models is None:
        return []
    there = all(any(name in model for model in pair.models) for name in part.tensors)
    return [part] if there else []
