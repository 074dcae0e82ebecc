"""Logits of a vocabulary that is longer or shorter than the model's: a copy was padded, or tokens were added."""

import dataclasses
from functools import partial
from typing import Any

from numpy.typing import NDArray

from store.traces.trace import LOGITS, ForeignStage, ForeignTrace


def with_vocabulary(trace: ForeignTrace, rows: int) -> ForeignTrace:
    """Return a bound trace with the logits of the first `rows` tokens only."""
    assert trace.config is not None
    had = trace.config.vocab_size
    config = dataclasses.replace(trace.config, vocab_size=rows)
    parts = dict(trace.parts)
    if had > rows and (stage := parts.get(LOGITS)) is not None:
        count = stage.count // had * rows
        load = partial(_first_columns, stage, had, rows)
        parts[LOGITS] = dataclasses.replace(stage, count=count, channels=rows, load=load)
    return dataclasses.replace(trace, config=config, parts=parts)


def _first_columns(stage: ForeignStage, had: int, rows: int) -> NDArray[Any]:
    return stage.load().reshape(-1, had)[:, :rows]
