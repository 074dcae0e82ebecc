"""The statistics of one run: of its stages as they are computed, or of a trace."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kernels.moments import moments
from kernels.stages import Site
from kernels.statistics import Statistics, statistics
from store.traces.arrays import as_store_error, widened
from store.traces.statistics_table import Scope, StatisticsTable
from store.traces.trace import StoredStage, Trace


def statistics_of(values: NDArray[np.floating], scope: Scope) -> Statistics:
    """The statistics of a stage, (tokens, channels) with a row for every token, over all rows or over the last one."""
    rows = values if scope == "all" else values[-1:]
    return statistics(moments(rows), rows.shape[1])


def trace_statistics(trace: Trace, scope: Scope) -> Iterator[tuple[Site, Statistics]]:
    """The statistics of every stage that a trace holds, as far as it tells them, in execution order.

    Without the length of a row there is neither shape nor channel; without the token of a row, no last token.
    """
    last = None if trace.tokens is None else len(trace.tokens) - 1
    for site in trace.sites():
        yield site, _of_stage(trace.stages[site], scope, last)


def trace_table(trace: Trace, scope: Scope, cells: dict[Site, Statistics]) -> StatisticsTable:
    """The table of a trace."""
    run, model = trace.record, trace.settings.get("model")
    artifact = run.artifact if run is not None else model if isinstance(model, str) else None
    path = None if run is None else run.numeric_path
    short = [str(site) for site in trace.sites() if trace.stages[site].last_token] if scope == "all" else []
    notes = tuple(f"The trace holds the last token only of {site}." for site in short)
    return StatisticsTable(trace.path, artifact, path, trace.tokens, scope, cells, notes)


def _of_stage(stage: StoredStage, scope: Scope, last: int | None) -> Statistics:
    if stage.channels is None:
        if scope == "last" and not stage.last_token:
            return Statistics()
        with as_store_error():
            flat = widened(stage.load(), stage.dtype).reshape(1, -1)
        return replace(statistics_of(flat, "all"), shape=None, worst_channel=None)
    values = stage.values()
    if scope == "all" or (stage.last_token and len(values) == 1):
        return statistics_of(values, scope)
    if stage.positions is None or last not in stage.positions:
        return Statistics()
    row = stage.positions.index(last)
    return statistics_of(values[row : row + 1], scope)
