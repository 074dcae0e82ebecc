"""Two sides side by side: each is run, or read where it has been recorded, and every pair of stages is compared."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.forward import activation_codes, check_tokens, forward
from kernels.machine.compiler import compile_all
from kernels.matmul.activations import Codes
from kernels.models import Graph, execution_order
from kernels.paths import F32Path, numeric_path
from kernels.stages import Site
from store.artifact import Artifact
from store.errors import StoreError
from store.open import open_artifact
from store.scratch import remove_left_behind
from store.text import printable
from store.traces.hdf5 import LAYER_OUTPUT, open_store
from store.traces.hdf5_writer import TraceWriter, as_stored, write_trace
from store.traces.open import open_trace
from store.traces.run import RunRecord, describe_machine, now, versions
from store.traces.trace import Trace
from store.whole_files import alone_in, give_name, temporary_beside
from workbench.capture import kept
from workbench.capture.job import CaptureJob, CellReady, Emit, Finished, Progress, SideName, SideReady
from workbench.capture.needs import cells_to_write, require_room, to_write
from workbench.cells.compare import PopulationError, StageTensor, compare_streams, require_same_tokens
from workbench.cells.kept_cells import require_readable
from workbench.cells.routing import Routes
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Pair, Source
from workbench.pair.recorded import of_other_engine, recorded, same_model
from workbench.pair.tokens import Tokens, recorded_tokens
from workbench.session.files import KEPT_CELLS, append_log, read_log
from workbench.session.session import Side, relative_to

SIDES: tuple[SideName, SideName] = ("a", "b")
COMPARED = "compared"  # kind of log entries
_MORE_ROOM = "make room, choose another --session, give fewer tokens"
_COPY_CHUNK = 1 << 22  # bytes


@dataclass(frozen=True, eq=False)
class Recorded:
    """A side that is read; `model` is what it was recorded from, where that is at hand."""

    trace: Trace
    model: Artifact | None

    @property
    def run(self) -> RunRecord:
        """What was run."""
        return self.trace.run

    def absent(self, site: Site) -> bool:
        """Tell whether a stage that is not in the stream is not in the model either."""
        return self.trace.status(site) == "absent"

    def stages(self) -> Iterator[StageTensor]:
        """Yield the recorded stages in execution order."""
        codes_of, routes = None if self.model is None else _codes_of(self.model, self.run), Routes()
        for site in self.trace.sites():
            values = as_stored(self.trace.read(site))
            codes = None if codes_of is None else codes_of(site, values)
            yield StageTensor(site, values, self.trace.positions(site), codes, routes.see(site, values))


@dataclass(frozen=True, eq=False)
class Running:
    """A side that is computed, and written where there is a writer."""

    run: RunRecord
    model: Artifact
    writer: TraceWriter | None

    def absent(self, site: Site) -> bool:  # noqa: ARG002
        """Tell that the model has no such stage: a forward yields every stage that the model has."""
        return True

    def stages(self) -> Iterator[StageTensor]:
        """Yield the stages in execution order as they are stored, those of an interrupted run first."""
        path, tokens, writer = numeric_path(self.run.numeric_path), self.run.tokens, self.writer
        codes_of, routes = _codes_of(self.model, self.run), Routes()

        def tensor(site: Site, stored: NDArray[np.float32]) -> StageTensor:
            codes, experts = codes_of(site, stored), routes.see(site, stored)
            return StageTensor(site, stored, tuple(range(len(stored))), codes, experts)

        if writer is None:
            for site, values in forward(self.model, tokens, path):
                yield tensor(site, as_stored(values))
            self.model.require_unchanged()
            return
        for site, stored in writer.completed():
            yield tensor(site, stored)
        for site, values in self._rest(path, writer):
            stored = writer.write(site, values)
            if site.stage == LAYER_OUTPUT and site.layer is not None:
                self.model.require_unchanged()  # a layer of other weights must not be resumed
                writer.finish_layer(site.layer)
            yield tensor(site, stored)
        self.model.require_unchanged()
        writer.finish()

    def _rest(self, path: F32Path, writer: TraceWriter) -> Iterator[tuple[Site, NDArray[np.floating[Any]]]]:
        """What an earlier run has not completed, computed anew from the first layer where later ones read more of it.

        A store keeps the precision of the run only of what one layer hands on to the next.
        """
        graph, start, state = Graph.of(self.model), writer.completed_layers, writer.resume_state()
        needed = graph.needed(start)
        if state is not None and len(needed) == 1:
            return forward(self.model, self.run.tokens, path, start, {needed.pop(): state})
        done = {stage.site for layer in range(start) for stage in (*graph.first, *graph.layer(layer))}
        whole = forward(self.model, self.run.tokens, path)
        return ((site, values) for site, values in whole if site not in done)


@dataclass(frozen=True, eq=False)
class _Opened:
    """A side whose file is open: a model, or a trace whose numbers are the side's."""

    side: Side
    source: Artifact | Trace
    stored: Path | None  # where its trace belongs


def capture(job: CaptureJob, emit: Emit) -> None:
    """Run or read both sides in lockstep in this process, reporting every cell as soon as both sides have it.

    With a folder the traces are kept there as a.h5 and b.h5; what an earlier capture has completed is used, and one
    that another process is at is waited for. Raises WorkbenchError in one sentence; what was captured by then stays in
    the folder and is resumed.
    """
    remove_left_behind()
    if job.folder is None:
        _capture(job, emit)
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    with alone_in(job.folder, lambda: emit(Progress("wait", 0, 0, "for another process at work on it"))):
        _capture(job, emit)


def _capture(job: CaptureJob, emit: Emit) -> None:
    started = time.monotonic()
    if (known := kept.of_gone_files(job, emit)) is None:
        opened = _open_both(job, emit)
        runs = _runs(opened, job, emit)
        known = kept.of_runs(job, runs)
    if known is None:
        runs, states = _run_both(job, opened, runs, emit)
    else:
        runs, states = [known.a, known.b], kept.show(known, emit)
    seconds = time.monotonic() - started
    if job.folder is not None:
        _log(job, job.folder, runs, states, seconds)
    emit(Finished(seconds))


def _run_both(
    job: CaptureJob, opened: "list[_Opened]", runs: list[RunRecord], emit: Emit
) -> tuple[list[RunRecord], dict[str, int]]:
    """Run or read both sides; returns their runs, and how many cells there are of each status."""
    with ExitStack() as stack:
        sides = _sides(opened, runs, job, stack)
        runs = [side.run for side in sides]
        for name, run in zip(SIDES, runs, strict=True):
            emit(SideReady(name, run))
        if any(isinstance(side, Running) for side in sides):
            compile_all(lambda done, total, kernel: emit(Progress("compile", done, total, kernel)))
        with kept.keeps(job, runs, emit) as emit_and_keep:
            return runs, _compare(sides, emit_and_keep, job.statistics_only)


def _open_both(job: CaptureJob, emit: Emit) -> list[_Opened]:
    """Open both sides; recorded ones are those that the session keeps."""
    given = (job.a, job.b)
    keeps_tensors = job.folder is not None and not job.statistics_only
    stored = [job.folder / f"{name}.h5" if job.folder is not None and keeps_tensors else None for name in SIDES]
    found: list[Source] = []
    for done, (side, place) in enumerate(zip(given, stored, strict=True)):
        emit(Progress("open", done, len(SIDES), printable(side.path)))
        found.append(_open(side, place, emit))
    tokens = job.tokens or next((known.ids for known in recorded_tokens(found)), ())
    asked = job.a.numeric_path or None, job.b.numeric_path or None
    pair = recorded(Pair(found[0], found[1], Tokens(tokens, job.prompt), asked))
    return [
        _Opened(side, source if place is None or isinstance(source, Artifact) else _adopted(source, place), place)
        for side, source, place in zip(given, (pair.a, pair.b), stored, strict=True)
    ]


def _open(side: Side, stored: Path | None, emit: Emit) -> Source:
    path = Path(side.path)
    if not path.exists() and stored is not None and stored.is_file():
        emit(Progress("open", 0, 0, f"{printable(side.path)} is gone; its recorded run is shown"))
        return open_store(stored)
    if side.numeric_path:
        numeric_path(side.numeric_path)  # an unknown name is told before anything is read
        return open_artifact(path)
    return open_trace(path)


def _adopted(trace: Trace, stored: Path) -> Trace:
    """Return the session's own copy of a recorded trace, so that the session stays whole without the original."""
    if trace.path == stored:
        return trace
    copy = _stored(stored)
    other_engine = of_other_engine(trace.run)
    same = copy is not None and copy.run == trace.run
    alike = same and (other_engine or stored.stat().st_size == trace.path.stat().st_size)
    if copy is not None and alike and copy.intact():
        return copy
    if other_engine:
        write_trace(trace, stored)
        return open_store(stored)
    try:
        with trace.path.open("rb") as original, temporary_beside(stored) as (temporary, file):
            shutil.copyfileobj(original, file, _COPY_CHUNK)
            give_name(file, temporary, stored)
    except OSError as error:
        raise StoreError(f"{printable(str(stored))} cannot be written ({error.strerror}); make room.") from error
    return open_store(stored)


def _runs(opened: list[_Opened], job: CaptureJob, emit: Emit) -> list[RunRecord]:
    """Describe both runs; PopulationError unless both see the same tokens."""
    recorded = [side.source.run.tokens for side in opened if isinstance(side.source, Trace)]
    asked = job.tokens or (recorded[0] if recorded else ())
    tokens = [side.source.run.tokens if isinstance(side.source, Trace) else asked for side in opened]
    require_same_tokens(*tokens)
    if tokens[0] != asked:
        raise PopulationError("both recorded traces saw other tokens than the ones asked for; leave out --tokens")
    return [
        side.source.run if isinstance(side.source, Trace) else run_of(side.source, side.side, asked, job.prompt, emit)
        for side in opened
    ]


def run_of(artifact: Artifact, side: Side, tokens: tuple[int, ...], prompt: str | None, emit: Emit) -> RunRecord:
    """Describe the run of a model on these tokens; WorkbenchError if it cannot run them."""
    check_tokens(tokens, artifact.config)
    text = printable(artifact.path.name)
    return RunRecord(
        artifact=str(artifact.path),
        format=artifact.format,
        size=artifact.size,
        sha256=sha256_of(artifact, lambda done, total: emit(Progress("hash", done, total, text))),
        numeric_path=side.numeric_path,
        tokens=tokens,
        prompt=prompt,
        settings=dict(numeric_path(side.numeric_path).settings()),
        config=artifact.config,
        versions=versions(),
        machine=describe_machine(),
        created=now(),
    )


def _sides(opened: list[_Opened], runs: list[RunRecord], job: CaptureJob, stack: ExitStack) -> list[Recorded | Running]:
    """Decide which sides are read and which are run.

    Complete traces in the folder are shown as they were recorded, even by another version of this program, but only
    together: beside a side that is run now, a side is read only if running it would give the same bits.
    """
    found = [_kept(side, run) for side, run in zip(opened, runs, strict=True)]
    if None in found:
        found = [
            trace if trace is side.source or (trace is not None and trace.run.identity == run.identity) else None
            for side, run, trace in zip(opened, runs, found, strict=True)
        ]
    sides: list[Recorded | Running] = []
    models = models_of([side.source if isinstance(side.source, Artifact) else None for side in opened], runs)
    _require_room(opened, runs, found, models)
    if job.statistics_only and job.folder is not None and (at_hand := [model for model in models if model is not None]):
        written = cells_to_write(at_hand, len(runs[0].tokens))
        require_readable(job.folder / KEPT_CELLS, written)
        require_room(job.folder, written, _MORE_ROOM)
    for side, run, trace, model in zip(opened, runs, found, models, strict=True):
        if trace is not None:
            sides.append(Recorded(trace, model))
            continue
        assert model is not None
        writing: AbstractContextManager[TraceWriter | None]
        writing = nullcontext() if side.stored is None else TraceWriter(side.stored, run)
        writer = stack.enter_context(writing)
        sides.append(Running(run if writer is None else writer.run, model, writer))
    return sides


def _require_room(
    opened: list[_Opened], runs: list[RunRecord], found: list[Trace | None], models: Sequence[Artifact | None]
) -> None:
    """Raise WorkbenchError if the disk has no room for what the sides that are run will write."""
    written = 0
    for side, run, trace, model in zip(opened, runs, found, models, strict=True):
        if trace is None and model is not None and side.stored is not None:
            written += to_write(side.stored, model, len(run.tokens), run.numeric_path)
            require_room(side.stored.parent, written, f"{_MORE_ROOM}, or --statistics-only")


def models_of(models: Sequence[Artifact | None], runs: Sequence[RunRecord]) -> list[Artifact | None]:
    """Return what each run is of: its own model where it is at hand, else that of the other side if it is the same."""
    return [
        other if model is None and same_model(run, other_run) else model
        for model, other, run, other_run in zip(models, reversed(models), runs, reversed(runs), strict=True)
    ]


def _kept(side: _Opened, run: RunRecord) -> Trace | None:
    """Return the complete trace of this very question, if there is one."""
    if isinstance(side.source, Trace):
        return side.source
    trace = None if side.stored is None else _stored(side.stored)
    return trace if trace is not None and trace.run.question == run.question else None


def _stored(path: Path) -> Trace | None:
    """Return the trace in a session folder, None if there is none.

    StoreError if it cannot be read: whatever it is then, it is not for us to replace.
    """
    return open_store(path) if os.path.lexists(path) else None


def _compare(sides: list[Recorded | Running], emit: Emit, worst: bool) -> dict[str, int]:
    """Emit all cells and return how many there are of each status."""
    a, b = sides
    sites = execution_order(a.run.config, b.run.config)
    states: Counter[str] = Counter()
    streams = a.stages(), b.stages()
    absent: dict[str, Callable[[Site], bool]] = {"a": a.absent, "b": b.absent}
    for done, cell in enumerate(compare_streams(*streams, sites, lambda name, site: absent[name](site), worst), 1):
        states[cell.status] += 1
        emit(CellReady(cell))
        emit(Progress("run", done, len(sites), str(cell.site)))
    for stream in streams:
        for _ in stream:  # to its end, where the store gets its final name
            pass
    return dict(states)


def _codes_of(model: Artifact, run: RunRecord) -> Callable[[Site, NDArray[np.float32]], Codes | None]:
    """What makes 8-bit codes of the values of a stage, as a run of the model does."""
    return partial(activation_codes, model, Graph.of(model), numeric_path(run.numeric_path))


def _log(job: CaptureJob, folder: Path, runs: list[RunRecord], states: dict[str, int], seconds: float) -> None:
    """Log what was compared and found, unless the last such entry says so."""
    facts: dict[str, object] = {}
    for name, given, run in zip(SIDES, (job.a, job.b), runs, strict=True):
        file = given.path if given.numeric_path else run.artifact
        known = {fact: value for fact, value in run.to_json().items() if fact in ("size", "sha256", "numeric_path")}
        facts[name] = {"artifact": relative_to(folder, file), **known}
    facts |= {"tokens": list(runs[0].tokens), "cells": states}
    entries = (entry for entry in reversed(read_log(folder)) if entry.get("kind") == COMPARED)
    last: dict[str, object] = next(entries, {})
    if any(last.get(name) != fact for name, fact in facts.items()):
        append_log(folder, COMPARED, **facts, seconds=seconds)
