"""Our own stores, seen as every other trace, and every other trace, seen as one of our own."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial

import numpy as np

from kernels.stages import Site
from store.files.model_file import ModelFile
from store.traces.hdf5 import StoredStage, Trace
from store.traces.hdf5_writer import as_stored
from store.traces.run import RunRecord
from store.traces.trace import ForeignStage, ForeignTrace


def trace_of_store(trace: Trace) -> ForeignTrace:
    """Return a store's stages as those of any engine are returned; they stay mapped."""
    return ForeignTrace(
        path=trace.path,
        engine="workbench",
        tokens=trace.run.tokens,
        settings=_settings(trace.run),
        parts={site: _stage(trace, site) for site in trace.stages},
        files=(ModelFile.at(trace.path),),
        absent=trace.absent,
        config=trace.run.config,
        run=trace.run,
    )


def store_of_trace(trace: ForeignTrace, run: RunRecord) -> Trace:
    """Return a bound trace as a store would hold it, `run` its record: float32, each stage read when it is asked for.

    Only what the trace itself tells to be absent is absent; every other stage that it does not hold is unmeasured.
    """
    return Trace(trace.path, run, run.config.num_hidden_layers, _StoredStages(trace), {}, trace.absent)


class _StoredStages(Mapping[Site, StoredStage]):
    """The stages of a trace in float32, each read when it is looked up."""

    def __init__(self, trace: ForeignTrace) -> None:
        self._trace = trace

    def __getitem__(self, site: Site) -> StoredStage:
        if site not in self._trace.parts:
            raise KeyError(site)
        # Writable, because kernels are compiled for writable arrays.
        values = np.require(as_stored(self._trace.read(site)), requirements=("C", "W"))
        return StoredStage(values, self._trace.positions(site), None)

    def __contains__(self, site: object) -> bool:
        return site in self._trace.parts

    def __iter__(self) -> Iterator[Site]:
        return iter(self._trace.sites())

    def __len__(self) -> int:
        return len(self._trace.parts)


def _settings(run: RunRecord) -> dict[str, object]:
    record = asdict(run)
    return {name: value for name, value in record.items() if name not in ("tokens", "config")}


def _stage(trace: Trace, site: Site) -> ForeignStage:
    stage = trace.stages[site]
    return ForeignStage(stage.values.size, "float32", partial(trace.read, site), stage.values.shape[1], stage.positions)
