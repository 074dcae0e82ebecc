"""A capture that keeps cells and no tensors: what a session has of it is shown, and what is run is written."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from store.traces.run import RunRecord
from workbench.capture.job import CaptureJob, CellReady, Emit, Event, Progress, SideReady
from workbench.cells.kept_cells import KeptCells, keeping, read_kept
from workbench.session.files import KEPT_CELLS


def kept(job: CaptureJob) -> KeptCells | None:
    """The cells that the folder of a job has, whatever they are of; StoreError if they are damaged."""
    if job.folder is None or not job.statistics_only or not os.path.lexists(job.folder / KEPT_CELLS):
        return None
    return read_kept(job.folder / KEPT_CELLS)


def of_gone_files(job: CaptureJob) -> KeptCells | None:
    """The cells to show where a side is there no more."""
    there = all(os.path.exists(side.path) for side in (job.a, job.b))
    return None if there else kept(job)


def of_runs(job: CaptureJob, runs: list[RunRecord]) -> KeptCells | None:
    """The cells that answer the very question of these two runs."""
    known = kept(job)
    asked = [run.question for run in runs]
    return known if known is not None and [known.a.question, known.b.question] == asked else None


@contextmanager
def keeps(job: CaptureJob, runs: list[RunRecord], emit: Emit) -> Iterator[Emit]:
    """Emit what is emitted in the block, and keep the cells of it once it has ended, if the job keeps them."""
    if job.folder is None or not job.statistics_only:
        yield emit
        return
    a, b = runs
    with keeping(job.folder / KEPT_CELLS, a, b) as keep:

        def both(event: Event) -> None:
            if isinstance(event, CellReady):
                keep(event.cell)
            emit(event)

        yield both


def show(known: KeptCells, emit: Emit) -> dict[str, int]:
    """Emit what was kept as if it were captured now; returns how many cells there are of each status."""
    emit(SideReady("a", known.a))
    emit(SideReady("b", known.b))
    for done, cell in enumerate(known.cells, 1):
        emit(CellReady(cell))
        emit(Progress("run", done, len(known.cells), str(cell.site)))
    return dict(Counter(cell.status for cell in known.cells))
