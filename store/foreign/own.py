"""Our own stores, seen as every other trace."""

from dataclasses import asdict
from functools import partial
from typing import Any

from numpy.typing import NDArray

from store.foreign.trace import ForeignStage, ForeignTrace
from store.model_file import ModelFile
from store.run import RunRecord
from store.trace import StoredStage, Trace


def trace_of_store(trace: Trace) -> ForeignTrace:
    """Return a store's stages as those of any engine are returned; they stay mapped."""
    return ForeignTrace(
        path=trace.path,
        engine="workbench",
        tokens=trace.run.tokens,
        settings=_settings(trace.run),
        parts={site: _stage(stage) for site, stage in trace.stages.items()},
        files=(ModelFile.at(trace.path),),
        absent=trace.absent,
        config=trace.run.config,
        run=trace.run,
    )


def _settings(run: RunRecord) -> dict[str, object]:
    record = asdict(run)
    return {name: value for name, value in record.items() if name not in ("tokens", "config")}


def _stage(stage: StoredStage) -> ForeignStage:
    values = stage.values
    return ForeignStage(values.size, "float32", partial(_same, values), values.shape[1], stage.positions)


def _same(values: NDArray[Any]) -> NDArray[Any]:
    return values
