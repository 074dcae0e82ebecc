"""A capture that keeps cells and no tensors: what a session has of it is shown, and what is run is written."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.open import open_artifact
from store.text import printable
from store.traces.open import open_trace
from store.traces.run import RunRecord
from workbench.capture.job import CaptureJob, CellReady, Emit, Event, Progress, SideReady
from workbench.cells.kept_cells import KeptCells, keeping, read_kept
from workbench.pair.fingerprints import sha256_of
from workbench.session.files import KEPT_CELLS
from workbench.session.session import Side


def kept(job: CaptureJob) -> KeptCells | None:
    """The cells that the folder of a job has, whatever they are of; StoreError if they are damaged."""
    if job.folder is None or not job.statistics_only or not os.path.lexists(job.folder / KEPT_CELLS):
        return None
    return read_kept(job.folder / KEPT_CELLS)


def of_gone_files(job: CaptureJob, emit: Emit) -> KeptCells | None:
    """The cells to show where a side is there no more: of the tokens and paths asked for, and what is still there."""
    sides = job.a, job.b
    gone = [side for side in sides if not os.path.exists(side.path)]
    known = kept(job) if gone else None
    if known is None:
        return None
    for side, run in zip(sides, (known.a, known.b), strict=True):
        asked = job.tokens or run.tokens, side.numeric_path or run.numeric_path
        if asked != (run.tokens, run.numeric_path) or (side not in gone and _hash_of(side, emit) != run.sha256):
            return None
    for side in gone:
        emit(Progress("open", 0, 0, f"{printable(side.path)} is gone; its recorded run is shown"))
    return known


def _hash_of(side: Side, emit: Emit) -> str:
    """Hash of the content of a model, or of the one that a recorded trace is of."""
    path = Path(side.path)
    if not side.numeric_path:
        return open_trace(path).run.sha256
    text = printable(path.name)
    return sha256_of(open_artifact(path), lambda done, total: emit(Progress("hash", done, total, text)))


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
