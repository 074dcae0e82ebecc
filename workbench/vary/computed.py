"""Two runs of this program's own paths: every stage of the one on the inputs of the other, judged as in a bisection."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from kernels.forward import forward
from kernels.graph import Array
from kernels.stages import Site
from store.artifact import Artifact
from workbench.bisect.headline import headline
from workbench.bisect.models.bisection import bisect_artifacts
from workbench.bisect.models.cell import Side
from workbench.bisect.traces.announced import Progress
from workbench.bisect.verdict import Bisection
from workbench.vary.beside import Beside
from workbench.vary.change import Change
from workbench.vary.finding import Finding
from workbench.vary.own import OwnChange, OwnRun

_THREADS = "WORKBENCH_THREADS"


def judged(
    change: Change,
    prompt: int,
    model: Artifact,
    tokens: tuple[int, ...],
    base: OwnRun,
    changed: OwnChange,
    progress: Progress,
) -> Finding:
    """Run a model with and without a change, and say whether the difference may be."""
    words = changed.before, changed.after
    beside = Beside.of(_both(model, tokens, base, changed.run))
    if beside.same:
        return Finding(change, prompt, "alike", *words, beside=beside)
    if changed.run.path is base.path:
        why = "a run of this program has the same bits on any number of threads, and these have not"
        return Finding(change, prompt, "divergent", *words, why, beside)
    with np.errstate(all="ignore"):  # damaged weights hold values of any size; what is not finite is told as such
        found = bisect_artifacts(Side(model, base.path), Side(model, changed.run.path), tokens, progress)
    return _told(found, change, prompt, words, beside)


def _told(found: Bisection, change: Change, prompt: int, words: tuple[str, str], beside: Beside) -> Finding:
    times = {cell.site: cell.local / cell.floor for cell in found.checked if cell.floor and cell.local is not None}
    floors = None if beside.first is None else times.get(beside.first.site)
    most = max(times.values(), default=None)
    if found.differs:
        return Finding(change, prompt, "divergent", *words, headline(found), beside, floors, most)
    if found.verdict in ("alike", "numerics_only"):
        return Finding(change, prompt, "numerics_only", *words, None, beside, floors, most)
    return Finding(change, prompt, "undecided", *words, headline(found), beside, floors, most)


def _both(
    model: Artifact, tokens: tuple[int, ...], base: OwnRun, changed: OwnRun
) -> Iterator[tuple[Site, Array | None, Array | None]]:
    for (site, before), (_, after) in zip(_stages(model, tokens, base), _stages(model, tokens, changed), strict=True):
        yield site, before, after


def _stages(model: Artifact, tokens: tuple[int, ...], run: OwnRun) -> Iterator[tuple[Site, Array]]:
    """The stages of a run, each computed on its threads."""
    stages = forward(model, tokens, run.path)
    while True:
        with _threads(run.threads):
            stage = next(stages, None)
        if stage is None:
            return
        yield stage


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute on so many threads for a while; None for as many as there are."""
    before = os.environ.get(_THREADS)
    if count is not None:
        os.environ[_THREADS] = str(count)
    try:
        yield
    finally:
        if count is not None:
            os.environ.pop(_THREADS)
            if before is not None:
                os.environ[_THREADS] = before
