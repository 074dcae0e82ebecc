"""Telling how far a long bisection is: cells run again, or stages read from a trace."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from kernels.stages import Site
from store.traces.trace import Trace

# Called with cells (of a trace: stages; of an exchange: layers) done and in all, and what is looked at.
Progress = Callable[[int, int, str], object]


def announced_trace(trace: Trace, progress: Progress) -> Trace:
    """The same trace, which tells every stage that is read."""
    order = trace.sites()
    stages = {
        site: replace(trace.stages[site], load=partial(_load, trace.stages[site].load, progress, n, len(order), site))
        for n, site in enumerate(order)
    }
    return replace(trace, stages=stages)


def _load(load: Callable[[], NDArray[Any]], progress: Progress, done: int, total: int, site: Site) -> NDArray[Any]:
    progress(done, total, str(site))
    return load()
