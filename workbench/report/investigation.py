"""What a session holds, opened for a report: both runs, their cells, their tensors, and the models where they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kernels.errors import WorkbenchError
from kernels.models import execution_order
from kernels.stages import Site
from store.artifact import Artifact
from store.open import open_artifact
from store.text import printable
from store.traces.run import RunRecord
from store.traces.trace import Trace
from workbench.capture.lockstep import Recorded, models_of
from workbench.cells.cell import Cell
from workbench.cells.compare import compare_streams, require_same_tokens
from workbench.cells.comparison import Comparison
from workbench.cells.decomposition import Checked
from workbench.cells.kept_cells import KeptCells
from workbench.cells.metrics import METRICS
from workbench.cells.view import View
from workbench.jobs.local_view import local_view
from workbench.pair.contexts import in_context
from workbench.pair.fingerprints import sha256_of
from workbench.pair.pair import Pair
from workbench.pair.recorded import of_other_engine
from workbench.pair.sources import Tensors, open_captured
from workbench.pair.tokenizer import decode_tokens
from workbench.session.session import Session, Side

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Investigation:
    """A session, read.

    models : of A and B; an error, which says why, where a model is gone or is no longer the one that was traced.
    texts : what each token stands for. local : the cells that were run again, as the log has them.
    """

    session: Session
    comparison: Comparison
    captured: Tensors | KeptCells
    models: tuple[Artifact | WorkbenchError, Artifact | WorkbenchError]
    texts: list[str]
    local: dict[Site, Checked]

    @property
    def runs(self) -> dict[str, RunRecord]:
        """Both runs by side."""
        return {"a": self.comparison.a, "b": self.comparison.b}

    @property
    def inputs(self) -> list[Path]:
        """All files that were read."""
        models = (model for model in self.models if isinstance(model, Artifact))
        captured = self.captured
        read = [captured.path] if isinstance(captured, KeptCells) else [captured.a.path, captured.b.path]
        return [*read, *(path for model in models for path in model.inputs)]

    @property
    def files(self) -> tuple[str, str]:
        """Paths of both models as the session knows them."""
        spec, runs = self.session.spec, self.comparison
        return _model_file(spec.a, runs.a), _model_file(spec.b, runs.b)

    def unfinished(self) -> list[str]:
        """Return a sentence for every side that was not captured to the end."""
        if isinstance(self.captured, KeptCells):
            return []
        sides = (("A", self.captured.a), ("B", self.captured.b))
        return [
            f"{name} is unfinished: {trace.completed_layers} of {trace.layers} layers captured."
            for name, trace in sides
            if trace.completed_layers is not None and trace.completed_layers < trace.layers
        ]


def investigate(session: Session, progress: Progress) -> Investigation:
    """Open what a session holds and compare its traces; WorkbenchError where a side has nothing yet."""
    captured, spec = open_captured(session), session.spec
    a, b = captured.runs["a"], captured.runs["b"]
    traces = () if isinstance(captured, KeptCells) else (captured.a, captured.b)
    models = (_model(spec.a, a, traces, progress), _model(spec.b, b, traces, progress))
    view = View.from_json(spec.view)
    if isinstance(captured, KeptCells):
        cells = list(captured.cells)
    else:
        cells = list(_cells(captured, models, progress))
        if view.tokens.kind == "last":
            unlike = [cell.site for cell in cells if cell.status == "uncomparable"]
            aligned = {cell.site: cell for cell in captured.align(unlike)}
            cells = [aligned.get(cell.site, cell) for cell in cells]
    one, other = models
    notes = Pair(one, other, None).notes if isinstance(one, Artifact) and isinstance(other, Artifact) else ()
    comparison = Comparison(a, b, cells=cells, metric=METRICS[view.metric], scope=view.tokens, notes=notes)
    able = next((model for model in models if isinstance(model, Artifact) and model.vocabulary is not None), None)
    texts = [f"token {token}" for token in a.tokens] if able is None else decode_tokens(able, a.tokens)
    return Investigation(session, comparison, captured, models, texts, local_view(session, captured.runs))


def _model(side: Side, run: RunRecord, traces: tuple[Trace, ...], progress: Progress) -> Artifact | WorkbenchError:
    if of_other_engine(run):
        what = f"{printable(run.artifact)} is a trace of {printable(run.format)}"
        return WorkbenchError(f"{what}, which holds no weights.")
    try:
        artifact = in_context(open_artifact(_model_file(side, run)), traces, len(run.tokens))
        digest = sha256_of(artifact, lambda done, total: progress(done, total, f"hash {artifact.path.name}"))
    except WorkbenchError as error:
        return error
    if digest != run.sha256:
        return WorkbenchError(f"{artifact.path} is no longer the file that was traced; trace it again.")
    return artifact


def _model_file(side: Side, run: RunRecord) -> str:
    """Return the path of the model of a side; that of a recorded one was there when it was recorded."""
    return side.path if side.numeric_path else run.artifact


def _cells(
    traces: Tensors, models: tuple[Artifact | WorkbenchError, Artifact | WorkbenchError], progress: Progress
) -> Iterator[Cell]:
    """Compare two traces stage by stage in execution order; PopulationError if they saw different tokens."""
    require_same_tokens(traces[0].run.tokens, traces[1].run.tokens)
    at_hand = [model if isinstance(model, Artifact) else None for model in models]
    of = models_of(at_hand, [trace.run for trace in traces])
    a, b = (Recorded(trace, model) for trace, model in zip(traces, of, strict=True))
    sides = {"a": a, "b": b}

    def absent(side: str, site: Site) -> bool:
        return sides[side].absent(site)

    sites = execution_order(*(trace.run.config for trace in traces))
    for done, cell in enumerate(compare_streams(a.stages(), b.stages(), sites, absent), 1):
        progress(done, len(sites), f"compare {cell.site}")
        yield cell
