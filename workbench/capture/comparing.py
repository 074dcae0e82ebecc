"""A capture whose cells are collected into a comparison, for whoever needs all of them and no screen."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from store.scratch import scratch_folder
from store.traces.hdf5 import open_store
from store.traces.run import RunRecord
from workbench.capture.job import CaptureJob, CellReady, Event, Progress, SideReady
from workbench.cells.cell import Cell
from workbench.cells.comparison import Comparison
from workbench.cells.metrics import Metric
from workbench.cells.view import TokenScope
from workbench.pair.pair import Pair
from workbench.pair.recorded import recorded
from workbench.pair.sources import Tensors

Show = Callable[[int, int, str], object]  # done, total, what


class _Collector:
    """Keeps what a capture reports, and shows how far it is."""

    def __init__(self, show: Show) -> None:
        self.show = show
        self.runs: dict[str, RunRecord] = {}
        self.cells: list[Cell] = []

    def __call__(self, event: Event) -> None:
        """Take one event."""
        if isinstance(event, Progress):
            self.show(event.done, event.total, f"{event.phase} {event.text}")
        elif isinstance(event, SideReady):
            self.runs[event.side] = event.run
        elif isinstance(event, CellReady):
            self.cells.append(event.cell)


def compare_pair(
    pair: Pair, metric: Metric, scope: TokenScope, show: Show, statistics_only: bool = False
) -> Comparison:
    """Run or read two sides and compare them; WorkbenchError says what is missing or does not fit.

    statistics_only : nothing is written meanwhile, and cells have the elements that differ most.
    """
    pair = recorded(pair)
    job = CaptureJob(*pair.sides, pair.ids, pair.prompt, statistics_only=statistics_only)
    comparison = compare_job(job, metric, scope, show)
    return replace(comparison, notes=(*pair.notes, *comparison.notes))


def compare_job(job: CaptureJob, metric: Metric, scope: TokenScope, show: Show) -> Comparison:
    """Capture; in the scope of the last token, cells of unlike populations are compared at the last token."""
    traced = not (job.a.numeric_path and job.b.numeric_path)
    aligning = job.folder is None and traced and scope.kind == "last" and not job.statistics_only
    with scratch_folder() if aligning else nullcontext() as scratch:
        if scratch is not None:
            # Aligning needs the tensors of both sides once more. A capture locks its folder, as this one is already.
            job = replace(job, folder=scratch / "traces")
        collected = _Collector(show)
        from workbench.capture.lockstep import capture  # loads the kernels

        capture(job, collected)
        cells: list[Cell] = collected.cells
        notes: tuple[str, ...] = ()
        if scope.kind == "last" and job.statistics_only:
            notes = _not_aligned(cells)
        elif scope.kind == "last" and job.folder is not None:
            cells = _aligned(cells, job.folder)
    a, b = collected.runs["a"], collected.runs["b"]
    comparison = Comparison(a, b, cells=cells, metric=metric, scope=scope, notes=notes)
    comparison.require_scope()
    return comparison


def _not_aligned(cells: list[Cell]) -> tuple[str, ...]:
    unlike = sum(cell.status == "uncomparable" for cell in cells)
    why = "cells of unlike populations were not aligned to the last token, for tensors are not kept"
    return (f"{unlike} {why} (--statistics-only); leave that option out.",) if unlike else ()


def _aligned(cells: list[Cell], folder: Path) -> list[Cell]:
    """Return the cells, those of unlike populations replaced by their last-token cells."""
    tensors = Tensors(open_store(folder / "a.h5"), open_store(folder / "b.h5"))
    aligned = {cell.site: cell for cell in tensors.align([c.site for c in cells if c.status == "uncomparable"])}
    return [aligned.get(cell.site, cell) for cell in cells]
