"""Traces of other engines as sides: bound to model and tokens of the other side, each becomes a recorded run."""

from collections.abc import Sequence
from datetime import UTC, datetime

from kernels.config import ModelConfig
from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from store.traces import ForeignTrace, store_of_trace
from store.traces.hdf5 import Trace
from store.traces.run import RunRecord
from workbench.session.plain import plain

_UNSAID = "not_carried"  # setting of every run of another engine: what its format does not say

Source = Artifact | Trace | ForeignTrace


def recorded_sides(
    sources: Sequence[Source], asked: Sequence[str | None], tokens: tuple[int, ...], prompt: str | None
) -> list[Artifact | Trace]:
    """Return both sources, traces of other engines bound to the configuration of the other side and to the tokens.

    asked : numeric path of each side, if one was asked for; that of the model is taken for an engine that is not known.
    Raises WorkbenchError, in one sentence, for a trace that cannot be of that model or of those tokens, and for two
    traces of which neither tells the model.
    """
    found: list[Artifact | Trace] = []
    for source, other, path in zip(sources, reversed(sources), reversed(asked), strict=True):
        if not isinstance(source, ForeignTrace):
            found.append(source)
        elif isinstance(other, ForeignTrace):
            names = " and ".join(printable(trace.path.name) for trace in sources)
            raise WorkbenchError(
                f"{names} are both traces of other engines, which carry no configuration of their model; compare each "
                "with the model, or with a store that `workbench trace` made of it"
            )
        else:
            own = other.run if isinstance(other, Trace) else None
            config = other.config if isinstance(other, Artifact) else other.run.config
            found.append(_recorded(source, config, tokens, prompt, path if own is None else own.numeric_path))
    return found


def of_other_engine(run: RunRecord) -> bool:
    """Tell whether a run was recorded by another engine."""
    return _UNSAID in run.settings


def same_model(run: RunRecord, other: RunRecord) -> bool:
    """Tell whether a run is of the file that another run is of; a trace that names none is taken to be."""
    model = run.settings.get("model_sha256", other.sha256) if of_other_engine(run) else run.sha256
    return bool(model == other.sha256)


def _recorded(
    trace: ForeignTrace, config: ModelConfig, tokens: tuple[int, ...], prompt: str | None, asked: str | None
) -> Trace:
    from workbench.pair.engines import arithmetic_of  # needs the compiler, which a pair of other sides does without

    bound = trace.bind(tokens, config)
    assert bound.config is not None
    said = {f"observed_{name}": value for name, value in trace.observed.items()}
    said |= {"notes": " ".join(bound.notes), _UNSAID: " ".join(trace.not_carried)}
    version = trace.settings.get("engine_version", trace.settings.get(trace.engine))
    run = RunRecord(
        artifact=str(trace.path.absolute()),
        format=trace.engine,
        size=sum(file.size for file in trace.files),
        sha256=trace.sha256,
        numeric_path=arithmetic_of(trace, asked).path.name,
        tokens=tokens,
        prompt=prompt,
        settings=plain(trace.settings | said),
        config=bound.config,
        versions={} if version is None else {trace.engine: printable(str(version))},
        machine={},
        created=datetime.fromtimestamp(_modified(trace), UTC).isoformat(timespec="milliseconds"),
    )
    return store_of_trace(bound, run)


def _modified(trace: ForeignTrace) -> float:
    """Return when the youngest file of a trace was written, in seconds."""
    return max(file.path.stat().st_mtime for file in trace.files)
