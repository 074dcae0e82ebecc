"""Logits of a vocabulary that is longer or shorter than the model's: a copy was padded, or tokens were added."""

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from kernels.config import ModelConfig
from kernels.stages import LAST_STAGES, Site

if TYPE_CHECKING:
    from store.foreign.trace import ForeignStage, ForeignTrace

LOGITS = Site(None, LAST_STAGES[-1])


def recorded_vocabulary(stage: "ForeignStage | None", tokens: int, config: ModelConfig) -> int:
    """Return how many tokens the logits of a trace have: as many as the model's vocabulary unless they prove otherwise.

    Rows as long as the hidden size are an embedding, saved in the place of logits, and prove nothing.
    """
    if stage is None:
        return config.vocab_size
    channels = stage.channels
    if channels is None and stage.count % config.vocab_size:
        rows = 1 if stage.last_token else len(stage.positions or range(tokens))
        channels = None if stage.count % rows else stage.count // rows
    return config.vocab_size if channels in (None, config.hidden_size) else channels


def with_vocabulary(trace: "ForeignTrace", rows: int) -> "ForeignTrace":
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


def _first_columns(stage: "ForeignStage", had: int, rows: int) -> NDArray[Any]:
    return stage.load().reshape(-1, had)[:, :rows]
