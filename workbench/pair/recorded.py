"""Traces of other engines beside a model or a store: bound to it and to the tokens, each becomes a recorded run."""

from dataclasses import replace
from datetime import UTC, datetime

from kernels.errors import WorkbenchError
from store.artifact import Artifact
from store.text import printable
from store.traces.run import RunRecord
from store.traces.trace import Trace
from workbench.pair.pair import Pair, Source
from workbench.session.plain import plain

_UNSAID = "not_carried"  # setting of every run of another engine: what its format does not say


def recorded(pair: Pair) -> Pair:
    """Return a pair whose traces all have the record of their run.

    One of another engine, which carries none, is bound to the tokens and to the configuration of the other side; where
    its engine is not known, it is taken to compute on the path of the other side. Raises WorkbenchError, in one
    sentence, for a trace that cannot be of that model or of those tokens, and for two traces of which neither tells
    the model.
    """
    a = _recorded(pair.a, pair.b, pair.ids, pair.prompt, pair.asked[1])
    b = _recorded(pair.b, pair.a, pair.ids, pair.prompt, pair.asked[0])
    return replace(pair, a=a, b=b)


def of_other_engine(run: RunRecord) -> bool:
    """Tell whether a run was recorded by another engine."""
    return _UNSAID in run.settings


def same_model(run: RunRecord, other: RunRecord) -> bool:
    """Tell whether a run is of the file that another run is of; a trace that names none is taken to be."""
    model = run.settings.get("model_sha256", other.sha256) if of_other_engine(run) else run.sha256
    return bool(model == other.sha256)


def _recorded(source: Source, other: Source, tokens: tuple[int, ...], prompt: str | None, asked: str | None) -> Source:
    """Return a side with its record. asked : the numeric path of the other side, if one was asked for."""
    if isinstance(source, Artifact) or source.record is not None:
        return source
    if other.config is None:
        names = " and ".join(printable(side.path.name) for side in (source, other))
        raise WorkbenchError(
            f"{names} are both traces of other engines, which carry no configuration of their model; give the model, "
            "or a store that `workbench trace` made of it, on one side (`workbench compare` sets both side by side)"
        )
    path = other.run.numeric_path if isinstance(other, Trace) else asked
    bound = source.bind(tokens, other.config)
    return replace(bound, record=_record(bound, tokens, prompt, path))


def _record(trace: Trace, tokens: tuple[int, ...], prompt: str | None, asked: str | None) -> RunRecord:
    """Return the record of a bound trace. asked : the numeric path to take for an engine that is not known."""
    from workbench.pair.engines import arithmetic_of  # needs the compiler, which a pair of other sides does without

    assert trace.config is not None
    said = {f"observed_{name}": value for name, value in trace.observed.items()}
    said |= {"notes": " ".join(trace.notes), _UNSAID: " ".join(trace.not_carried)}
    version = trace.settings.get("engine_version", trace.settings.get(trace.engine))
    return RunRecord(
        artifact=str(trace.path.absolute()),
        format=trace.engine,
        size=sum(file.size for file in trace.files),
        sha256=trace.sha256,
        numeric_path=arithmetic_of(trace, asked).path.name,
        tokens=tokens,
        prompt=prompt,
        settings=plain(trace.settings | said),
        config=trace.config,
        versions={} if version is None else {trace.engine: printable(str(version))},
        machine={},
        created=datetime.fromtimestamp(_modified(trace), UTC).isoformat(timespec="milliseconds"),
    )


def _modified(trace: Trace) -> float:
    """Return when the youngest file of a trace was written, in seconds."""
    return max(file.path.stat().st_mtime for file in trace.files)
