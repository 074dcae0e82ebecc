"""One model run alone: kept in a store, chosen stages of it saved, or looked at while it runs."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernels.errors import WorkbenchError
from kernels.machine.compiler import compile_all
from kernels.models import Graph, execution_order
from kernels.stages import FIRST_STAGES, Site
from store.artifact import Artifact
from store.open import open_artifact
from store.traces.dump_writer import Dump, dump_writer
from store.traces.hdf5_writer import TraceWriter
from store.traces.run import RunRecord
from workbench.capture.job import Emit, Progress
from workbench.capture.lockstep import Running, run_of
from workbench.capture.needs import require_room, to_write
from workbench.session.session import Side

Look = Callable[[Site, NDArray[np.float32]], object]


@dataclass(frozen=True)
class Selection:
    """Stages to save: their names, or "all" alone; and the layers, None for all.

    The layers choose among the stages of layers, with the embedding as one of layer 0, as `apr trace` has it; what
    comes after the layers is saved whenever it is named.
    """

    stages: Collection[str]
    layers: frozenset[int] | None = None

    def has(self, site: Site) -> bool:
        """Whether a site is selected, of a model that has it."""
        layer = 0 if site.stage in FIRST_STAGES else site.layer
        named = site.stage in self.stages or "all" in self.stages
        return named and (layer is None or self.layers is None or layer in self.layers)


def selected(artifact: Artifact, selection: Selection) -> dict[Site, int]:
    """Return the sites of a model that are selected, with their channels; WorkbenchError for what it has not."""
    there = {stage.site: stage.channels for stage in Graph.of(artifact).stages()}
    names, layers = list(dict.fromkeys(site.stage for site in there)), artifact.config.num_hidden_layers
    lacking = next((name for name in selection.stages if name not in (*names, "all")), None)
    if lacking is not None:
        raise WorkbenchError(f"{artifact.path.name} has no stage {lacking}; its stages are {', '.join(names)}")
    beyond = max(selection.layers or {0})
    if beyond >= layers:
        raise WorkbenchError(f"{artifact.path.name} has no layer {beyond}; its layers are 0 to {layers - 1}")
    found = {site: channels for site, channels in there.items() if selection.has(site)}
    if not found:
        raise WorkbenchError("the dump would hold nothing: none of the stages is in the layers given")
    return found


def trace_side(
    side: Side,
    tokens: tuple[int, ...],
    prompt: str | None,
    output: Path | None,
    emit: Emit,
    replace: bool = True,
    look: Look | None = None,
) -> RunRecord:
    """Run one model into the store `output`, resuming an unfinished one of the same run; returns what was run.

    output : None keeps nothing. replace : whether a store that is there is replaced. look : is shown every stage as a
    store keeps it, those of an unfinished one too.

    Raises WorkbenchError in one sentence.
    """
    artifact = open_artifact(side.path).for_length(len(tokens))
    run = run_of(artifact, side, tokens, prompt, emit)
    if output is not None:
        needed = to_write(output, artifact, len(tokens), run.numeric_path)
        require_room(output.parent, needed, "make room, give another -o, fewer tokens, or --statistics-only")
    with ExitStack() as stack:
        writer = None if output is None else stack.enter_context(TraceWriter(output, run, replace=replace))
        running = Running(run if writer is None else writer.run, artifact, writer)
        _run(running, emit, look)
    return running.run


def save_stages(
    side: Side,
    tokens: tuple[int, ...],
    prompt: str | None,
    selection: Selection,
    format: str,
    output: Path,
    emit: Emit,
    replace: bool = True,
    look: Look | None = None,
) -> tuple[RunRecord, list[Site]]:
    """Run one model, and save chosen stages in a format of `store.traces.dump_writer`; returns the run and the stages.

    look : is shown every stage, saved or not. Without it the run ends with the last stage that is saved.

    Raises WorkbenchError in one sentence, or OSError; nothing is left of the output then.
    """
    artifact = open_artifact(side.path).for_length(len(tokens))
    run = run_of(artifact, side, tokens, prompt, emit)
    stages = {site: (len(tokens), channels) for site, channels in selected(artifact, selection).items()}
    there = {stage.site for stage in Graph.of(artifact).stages()}
    absent = frozenset(execution_order(run.config)) - there
    with dump_writer(format, output, Dump(run, stages, absent, replace)) as save:
        last = next(reversed(stages))

        def take(site: Site, values: NDArray[np.float32]) -> None:
            if site in stages:
                save(site, values)
            if look is not None:
                look(site, values)

        _run(Running(run, artifact, None), emit, take, None if look is not None else last)
        artifact.require_unchanged()
    return run, list(stages)


def _run(running: Running, emit: Emit, look: Look | None, last: Site | None = None) -> None:
    """Draw the stages of a run, up to `last`; None is the end."""
    compile_all(lambda done, total, kernel: emit(Progress("compile", done, total, kernel)))
    sites: Collection[Site] = execution_order(running.run.config)
    for done, tensor in enumerate(running.stages(), 1):
        if look is not None:
            look(tensor.site, tensor.values)
        emit(Progress("run", done, len(sites), str(tensor.site)))
        if tensor.site == last:
            break
