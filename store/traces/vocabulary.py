"""Logits of a vocabulary that is longer or shorter than the model's: a copy was padded, or tokens were added."""

import dataclasses
from functools import partial
from typing import Any

from numpy.typing import NDArray

from store.traces.trace import LOGITS, StoredStage, Trace


def with_vocabulary(trace: Trace, rows: int) -> Trace:
    """Return a bound trace with the logits of the first `rows` tokens only."""
    assert trace.config is not None
    had = trace.config.vocab_size
    config = dataclasses.replace(trace.config, vocab_size=rows)
    stages = dict(trace.stages)
    if had > rows and (stage := stages.get(LOGITS)) is not None:
        count = stage.count // had * rows
        load = partial(_first_columns, stage, had, rows)
        stages[LOGITS] = dataclasses.replace(stage, count=count, channels=rows, load=load)
    return dataclasses.replace(trace, config=config, stages=stages)


def _first_columns(stage: StoredStage, had: int, rows: int) -> NDArray[Any]:
    return stage.load().reshape(-1, had)[:, :rows]
